from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from mobile_vla.core import Frame, Instruction, Observation, Twist
from mobile_vla.data import Dataset, load_split
from mobile_vla.data import schema as s
from mobile_vla.language import Grammar
from mobile_vla.policy.heads import HEADS
from mobile_vla.policy.kinds import kind_named
from mobile_vla.policy.vla import Remembered, VlaNetwork, VlaPolicy
from mobile_vla.train.config import read_vla_config
from mobile_vla.train.feed import Feed
from mobile_vla.train.imitate import Memory, draw_windows, imitation_loss
from mobile_vla.train.loop import Piece

from .vla_data import CONTRACT, SMALL, TOWERS, written

GRAMMAR = Grammar.load()


def made(kind: str, *settings: str) -> VlaNetwork:
    known = kind_named(kind)
    config = read_vla_config(known, None, [*SMALL, *TOWERS[kind], *settings])
    torch.manual_seed(0)
    network = known.make(config.network, CONTRACT)
    assert isinstance(network, VlaNetwork)
    return network.eval()


@pytest.fixture(scope="module")
def network() -> VlaNetwork:
    return made("kosmos_clip")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset.open(written(tmp_path_factory.mktemp("imitate") / "data"))


@pytest.fixture(scope="module")
def feed(dataset: Dataset) -> Feed:
    return Feed([(dataset, load_split(dataset).train)], (96, 192))


@pytest.fixture(scope="module")
def memory(dataset: Dataset, network: VlaNetwork) -> Memory:
    kept = Memory(2)
    kept.add(dataset, dataset.episode_indices, network, GRAMMAR, np.random.default_rng(0))
    return kept


@pytest.mark.parametrize("of", [1, 2, 4])
def test_pieces_of_windows_have_the_loss_of_the_batch(network: VlaNetwork, feed: Feed, of: int) -> None:
    draw = partial(draw_windows, network, feed, GRAMMAR, 4, 3)

    def loss(piece: Piece) -> float:
        driving = draw(np.random.default_rng(5), piece)
        with torch.no_grad():
            return imitation_loss(network, network(driving.inputs), driving, 0.3)[0].item()

    assert np.mean([loss(Piece(place, of)) for place in range(of)]) == pytest.approx(loss(Piece()), rel=1e-4)


@pytest.mark.parametrize("head", HEADS)
def test_pieces_of_remembered_drives_have_the_loss_of_the_batch(head: str, dataset: Dataset, feed: Feed) -> None:
    network = made("clip_lstm", f"network.head.kind={head}")
    memory = Memory(1)
    memory.add(dataset, dataset.episode_indices[:3], network, GRAMMAR, np.random.default_rng(0))

    def loss(piece: Piece) -> float:
        driving = memory.draw(CONTRACT, 4, np.random.default_rng(5), piece)
        with torch.no_grad():
            return imitation_loss(network, network(driving.inputs), driving, 0.3)[0].item()

    assert np.mean([loss(Piece(place, 2)) for place in range(2)]) == pytest.approx(loss(Piece()), rel=1e-4)


def test_the_head_meets_in_memory_what_it_meets_when_it_drives(
    network: VlaNetwork, dataset: Dataset, memory: Memory
) -> None:
    place = 1
    episode = dataset.episode(dataset.episode_indices[place])
    policy = VlaPolicy(network)
    state = policy.reset(Instruction(episode.instruction))
    period_ns = round(1e9 / CONTRACT.frame_rate_hz)
    with torch.no_grad():
        lead, beside = memory.lead[place][0].float()[None], memory.beside[place][0].float()[None]
        answers = network(Remembered(lead, beside, memory.motion[place][None]))
        assert answers.decided is not None
        expected = network.head.chunk(answers.decided.context)[0].numpy()
    for number, velocity in enumerate(np.array(episode[s.STATE])):
        frame = Frame(episode.images()[number], number * period_ns, "test", "front", number)
        step = policy.step(Observation(frame, Twist.from_array(velocity)), state)
        state = step.state
        driven = CONTRACT.denormalise(expected[number])
        if not step.grounding.status.is_final:
            np.testing.assert_allclose(step.chunk.velocities, driven, atol=0.02)  # bfloat16 and float16 between them


def test_a_row_that_nobody_said_teaches_nothing(network: VlaNetwork, feed: Feed) -> None:
    driving = draw_windows(network, feed, GRAMMAR, 2, 3, np.random.default_rng(1), Piece())
    with torch.no_grad():
        answers = network(driving.inputs)

    def loss(chunk: torch.Tensor) -> float:
        return imitation_loss(network, answers, driving._replace(chunk=chunk), 0.0)[0].item()

    silent = driving.chunk.clone()
    silent[0, 0, 1:] = float("nan")
    other = silent.clone()
    other[0, 0, 0] += 1.0
    assert loss(silent) < loss(driving.chunk)
    assert loss(other) != loss(silent)
    assert loss(torch.full_like(silent, float("nan"))) == pytest.approx(
        0.2 * imitation_loss(network, answers, driving, 0.0)[1]["status"]
    )


def test_half_of_the_windows_are_told_in_other_words(network: VlaNetwork, feed: Feed) -> None:
    tokens = [
        draw_windows(network, feed, GRAMMAR, 8, 2, np.random.default_rng(seed), Piece()).inputs.tokens[0][0]
        for seed in range(4)
    ]
    texts = {tuple(row.tolist()) for each in tokens for row in each}
    assert len(texts) > len(set(feed._instructions))


def test_memory_keeps_every_frame_of_every_wording(dataset: Dataset, memory: Memory) -> None:
    assert len(memory) == len(dataset)
    assert memory.frames == dataset.total_frames
    assert all(len(each) == 2 for each in memory.lead)
    first, second = memory.lead[0]
    assert not torch.equal(first, second)  # other words, another answer


def test_what_is_drawn_follows_from_the_generator(memory: Memory, tmp_path: Path) -> None:
    first, again = (memory.draw(CONTRACT, 4, np.random.default_rng(2), Piece()) for _ in range(2))
    assert torch.equal(first.inputs.lead, again.inputs.lead)
    assert torch.equal(first.noise, again.noise)
