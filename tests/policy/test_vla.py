"""The full-size policies in miniature: they learn, obey the words, and keep sessions apart."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from little import HEADS, WAYS, little, observation, with_siglip
from torch import Tensor, nn
from torch.nn import functional as F

from mobile_vla.core import Instruction, Status
from mobile_vla.policy.compact import MOTION_SIZE
from mobile_vla.policy.encoders.tower import repeat
from mobile_vla.policy.heads import STATUSES
from mobile_vla.policy.preprocess import HEIGHT, WIDTH
from mobile_vla.policy.vla import Drives, Questions, Remembered, VlaNetwork, VlaPolicy, VlaState

TEXTS = ["go to the red cup", "파란 의자 왼쪽으로 가서 멈춰"]
COMBINATIONS = [(way, "lstm") for way in WAYS] + [("clip_lstm", name) for name in HEADS if name != "lstm"]
"""Every way with one head, and every head with the least of them."""
LEARNERS = [(way, head) for way, head in COMBINATIONS if "without end" not in head]
STEPS = 2
FITTING = {"regression": 90, "flow": 200}
"""Steps of a fit: a flow meets another noise at each."""
ways = pytest.mark.parametrize("way", WAYS)


def frames(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (*shape, HEIGHT, WIDTH, 3), dtype=torch.uint8, generator=generator)


def counterfactual(network: VlaNetwork) -> tuple[Drives, Tensor, Tensor, Tensor]:
    """The same window twice, under two instructions: inputs, opposite chunks, statuses, and the cells meant."""
    pixels = frames(7, 1, STEPS).expand(2, -1, -1, -1, -1)
    motion = torch.randn(1, STEPS, MOTION_SIZE, generator=torch.Generator().manual_seed(7)).expand(2, -1, -1)
    chunk = torch.tensor([0.8, -0.4, 0.6]).expand(STEPS, network.contract.horizon, 3)
    cells = torch.tensor([3, network.pointer.grid[0] * network.pointer.grid[1]]).repeat_interleave(STEPS)
    inputs = Drives(pixels, network.tokenise(TEXTS), motion)
    return inputs, torch.stack([chunk, -chunk]), torch.tensor([[0] * STEPS, [1] * STEPS]), cells


def losses(network: VlaNetwork, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Of imitation and of grounding, on the counterfactual batch."""
    inputs, chunks, statuses, cells = counterfactual(network)
    answers = network(inputs)
    noise, time = torch.randn(chunks.shape, generator=generator), torch.rand(chunks.shape[:2], generator=generator)
    context, status, _ = answers.decided
    imitation = network.head.loss(context, chunks, noise, time).mean()
    imitation = imitation + F.cross_entropy(status.flatten(0, 1), statuses.flatten())
    return imitation, F.cross_entropy(answers.pointed.logits, cells)


@cache
def fitted(way: str, head: str) -> tuple[VlaNetwork, list[tuple[float, float]]]:
    """A network after a short fit on that batch, and its losses over time."""
    network, generator = little(way, head, driving=False).train(), torch.Generator().manual_seed(1)
    parameters = [each for each in network.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(parameters, 2e-3)
    told = []
    for _ in range(FITTING["flow" if head == "flow" else "regression"]):
        imitation, grounding = losses(network, generator)
        optimizer.zero_grad()
        (imitation + grounding).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)  # as in training: larger steps saturate the LSTM
        optimizer.step()
        told.append((imitation.item(), grounding.item()))
    return network.eval(), told


@pytest.mark.parametrize(("way", "head"), LEARNERS)
def test_one_batch_is_learnt_by_heart(way: str, head: str) -> None:
    imitation, grounding = np.array(fitted(way, head)[1]).T
    assert imitation[-5:].mean() < (0.5 if head.startswith("flow") else 0.15) * imitation[0]
    assert grounding[-5:].mean() < 0.1 * grounding[0]


@pytest.mark.parametrize(("way", "head"), LEARNERS)
def test_the_same_pixels_under_other_words_move_rightly(way: str, head: str) -> None:
    network = fitted(way, head)[0]
    inputs, chunks, statuses, cells = counterfactual(network)
    with torch.inference_mode():
        answers = network(inputs)
        given = network.head.chunk(answers.decided.context)
    if head != "flow":  # which has learnt the direction by now, and not yet the place
        assert (given - chunks).abs().mean() < 0.3
    assert F.cosine_similarity((given[0] - given[1]).flatten(), (chunks[0] - chunks[1]).flatten(), dim=0) > 0.6
    assert torch.equal(answers.decided.status.argmax(-1), statuses)
    assert torch.equal(answers.pointed.logits.argmax(-1), cells)


@ways
def test_the_chunk_hangs_on_the_words(way: str) -> None:
    network = little(way)
    tokens = network.tokenise(TEXTS[:1])
    words = tuple(
        tuple(part.detach().requires_grad_() if part.is_floating_point() else part for part in each)
        for each in network.read(tokens)
    )
    asked = network.ask(network.see(frames(1, 1)), words)
    motion, history = torch.zeros(1, 1, MOTION_SIZE), network.head.initial(1)
    decided = network.decide(asked.lead[:, None], asked.beside[:, None], motion, history)
    network.head.chunk(decided.context).sum().backward()
    gradients = [part.grad for each in words for part in each if part.is_floating_point()]
    assert len(gradients) == len(network.towers)
    assert all(gradient is not None and gradient.abs().sum() > 0.0 for gradient in gradients)


@pytest.mark.parametrize(("way", "head"), COMBINATIONS)
def test_driving_step_by_step_is_the_pass_over_the_window(way: str, head: str) -> None:
    network = little(way, head)
    pixels, motion = frames(2, 2, 5), torch.randn(2, 5, MOTION_SIZE)
    with torch.inference_mode():
        tokens = network.tokenise(TEXTS)
        answers = network(Drives(pixels, tokens, motion))
        words, history, contexts = network.read(tokens), network.head.initial(2), []
        asked = [network.ask(network.see(pixels[:, step]), words) for step in range(5)]
        for step, each in enumerate(asked):
            decided = network.decide(each.lead[:, None], each.beside[:, None], motion[:, step : step + 1], history)
            history = decided.history
            contexts.append(decided.context[:, 0])
        lead, beside = (torch.stack([each[part] for each in asked], dim=1) for part in (0, 1))
        remembered = network(Remembered(lead, beside, motion)).decided
    for context in (torch.stack(contexts, dim=1), remembered.context):
        torch.testing.assert_close(context, answers.decided.context, rtol=1e-3, atol=1e-4)


@ways
def test_questions_are_asked_of_one_look(way: str) -> None:
    network, texts = little(way), [*TEXTS, "stop", "go to the green chair"]
    pixels = frames(3, 2)
    with torch.inference_mode():
        answers = network(Questions(pixels, network.tokenise(texts)))
        words = network.read(network.tokenise(texts))
        apart = network.ask(network.see(pixels.repeat_interleave(2, 0)), words).pointed
    torch.testing.assert_close(answers.pointed.logits, apart.logits, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(answers.pointed.boxes, apart.boxes, rtol=1e-3, atol=1e-4)
    assert answers.ranges.shape == (2, network.pointer.grid[1])
    assert answers.what.shape[:2] == (2, network.pointer.grid[0] * network.pointer.grid[1])
    assert answers.decided is None


@pytest.mark.parametrize(("way", "head"), COMBINATIONS)
def test_sessions_as_one_batch_are_as_each_alone(way: str, head: str) -> None:
    policy = VlaPolicy(little(way, head))
    texts = ["stop", "go round the yellow chair on the left and stop at the red cup", TEXTS[1]]
    alone = [policy.reset(Instruction(text)) for text in texts]
    together = list(alone)
    for number in range(3):
        seen = [observation(10 * place + number, number * 200_000_000) for place in range(3)]
        steps = policy.steps(seen, together)
        for place, step in enumerate(steps):
            one = policy.step(seen[place], alone[place])
            assert step.chunk.velocities == pytest.approx(one.chunk.velocities, abs=1e-4)
            assert step.grounding.box == pytest.approx(one.grounding.box, abs=1e-3)
            assert step.grounding.visibility == pytest.approx(one.grounding.visibility, abs=1e-3)
            assert step.state.odometry == one.state.odometry
            alone[place] = one.state
        together = [step.state for step in steps]


@ways
def test_words_kept_from_frame_to_frame_are_as_read_afresh(way: str) -> None:
    policy = VlaPolicy(little(way))
    kept = policy.reset(Instruction(TEXTS[0]))
    for number in range(3):
        afresh: VlaState = kept._replace(words=policy.reset(Instruction(TEXTS[0])).words)
        one, other = (policy.step(observation(number, number), state) for state in (kept, afresh))
        assert np.array_equal(one.chunk.velocities, other.chunk.velocities)
        kept = one.state


def test_who_says_it_has_finished_stands_still() -> None:
    for status in Status:
        network = little("clip_lstm")
        with torch.no_grad():
            network.head.status.bias.copy_(100.0 * F.one_hot(torch.tensor(STATUSES.index(status)), len(STATUSES)))
        policy = VlaPolicy(network)
        step = policy.step(observation(1), policy.reset(Instruction("stop")))
        assert step.grounding.status is status
        assert (step.chunk.velocities == 0.0).all() == status.is_final


@ways
def test_in_bfloat16_it_drives_nearly_the_same(way: str) -> None:
    network = little(way)
    given = []
    for dtype in (torch.float32, torch.bfloat16):
        policy = VlaPolicy(network.to(dtype))
        given.append(policy.step(observation(1), policy.reset(Instruction(TEXTS[1]))))
    limits = policy.contract.limits_array
    assert np.abs((given[0].chunk.velocities - given[1].chunk.velocities) / limits).max() < 0.05
    assert given[1].grounding.box == pytest.approx(given[0].grounding.box, abs=0.05)


@pytest.mark.parametrize("head", HEADS)
def test_under_autocast_every_head_learns_and_drives(head: str) -> None:
    network, generator = little("kosmos_clip", head).train(), torch.Generator().manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        imitation, grounding = losses(network, generator)
        (imitation + grounding).backward()
        policy = VlaPolicy(network)
        step = policy.step(observation(1), policy.reset(Instruction(TEXTS[0])))
    assert np.isfinite(step.chunk.velocities).all()
    assert all(torch.isfinite(each.grad).all() for each in network.parameters() if each.grad is not None)


def test_a_siglip_drives_in_clips_place() -> None:
    network = with_siglip()
    policy = VlaPolicy(network)
    states = [policy.reset(Instruction(text)) for text in TEXTS]
    together = policy.steps([observation(1), observation(1)], states)
    for state, step in zip(states, together, strict=True):
        assert policy.step(observation(1), state).chunk.velocities == pytest.approx(step.chunk.velocities, abs=1e-4)
    assert not np.array_equal(together[0].chunk.velocities, together[1].chunk.velocities)
    answers = network(Drives(frames(1, 2, 2), network.tokenise(TEXTS), torch.zeros(2, 2, MOTION_SIZE)))
    answers.decided.context.sum().backward()
    assert network.towers["clip"].model.vision_model.embeddings.patch_embedding.weight.grad.abs().sum() > 0.0


def test_a_frame_feature_of_another_width_is_projected() -> None:
    wide = little("clip_lstm")
    narrow = type(wide)(replace(wide.config, feature=10), wide.contract, wide.specs).eval()
    assert narrow.head.width == 10
    policy = VlaPolicy(narrow)
    assert np.isfinite(policy.step(observation(1), policy.reset(Instruction("stop"))).chunk.velocities).all()


def test_repeated_words_go_with_the_frames_of_their_window() -> None:
    numbers = (torch.tensor([[1], [2]]),)
    assert repeat(numbers, 3)[0].flatten().tolist() == [1, 1, 1, 2, 2, 2]
