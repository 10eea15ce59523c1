import numpy as np
import pytest
import torch

from mobile_vla.core import Frame, Instruction, InstructionError, Observation, Twist
from mobile_vla.language import encode
from mobile_vla.policy.compact import CompactPolicy, motion_features
from mobile_vla.policy.compact_step import CompactStep
from mobile_vla.policy.step import STATUSES, Decision, grounding_from
from mobile_vla.policy.weights import load_policy


@pytest.fixture(scope="module")
def policy() -> CompactPolicy:
    return load_policy()


@pytest.fixture(scope="module")
def step(policy: CompactPolicy) -> CompactStep:
    return CompactStep(policy.network)


def test_it_decides_as_the_policy_does(policy: CompactPolicy, step: CompactStep) -> None:
    rng = np.random.default_rng(2)
    state = policy.reset(Instruction("go to the red cup"))
    words, history = step.read("go to the red cup"), step.start()
    for number in range(6):
        pixels = rng.integers(0, 256, (*step.size, 3), dtype=np.uint8)
        velocity = Twist(*rng.uniform(-0.5, 0.5, 3).tolist())
        frame = Frame(pixels, number * 200_000_000, "simulation", "front", number)
        wanted = policy.step(Observation(frame, velocity), state)
        state = wanted.state
        motion = motion_features(
            torch.from_numpy(velocity.as_array())[None], torch.tensor([state.odometry]), policy.contract
        )
        with torch.inference_mode():
            given = Decision(*step(torch.from_numpy(pixels)[None], words, motion, history))
        history = given.history
        status = STATUSES[int(given.status.argmax())]
        assert status == wanted.grounding.status
        chunk = policy.contract.denormalise(given.chunk[0].numpy()) * (0.0 if status.is_final else 1.0)
        np.testing.assert_allclose(chunk, wanted.chunk.velocities, atol=1e-5)
        believed = grounding_from(given.belief[0].numpy(), status)
        assert believed.visibility == pytest.approx(wanted.grounding.visibility, abs=1e-5)
        assert believed.distance_m == pytest.approx(wanted.grounding.distance_m, rel=1e-4)
        assert believed.bearing_rad == pytest.approx(wanted.grounding.bearing_rad, abs=1e-4)
        assert believed.box == pytest.approx(wanted.grounding.box, abs=1e-4)


def test_sessions_do_not_meet(step: CompactStep) -> None:
    generator = torch.Generator().manual_seed(4)
    inputs = step.example(3)
    inputs = inputs._replace(
        pixels=torch.randint(0, 256, inputs.pixels.shape, dtype=torch.uint8, generator=generator),
        history=torch.randn(inputs.history.shape, generator=generator),
        words=(torch.cat([step.read(text)[0] for text in ("stop", "빨간 컵으로 가", "turn left")]),),
    )
    with torch.inference_mode():
        together = step(*inputs)
        for place in range(3):
            here = slice(place, place + 1)
            alone = step(inputs.pixels[here], (inputs.words[0][here],), inputs.motion[here], inputs.history[here])
            for one, other in zip(alone, together, strict=True):
                torch.testing.assert_close(one, other[here], rtol=1e-4, atol=1e-5)


def test_the_network_keeps_its_own_weights_and_norms(policy: CompactPolicy) -> None:
    before = {name: value.clone() for name, value in policy.network.state_dict().items()}
    CompactStep(policy.network).to(torch.bfloat16)
    after = policy.network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_words_are_read_in_full_precision_whatever_the_step_has(policy: CompactPolicy) -> None:
    narrow = CompactStep(policy.network).to(torch.bfloat16)
    (words,) = narrow.read("go to the red cup")
    wanted = policy.network.text(torch.from_numpy(encode("go to the red cup"))[None]).bfloat16()
    assert words.dtype == torch.bfloat16
    assert torch.equal(words, wanted)
    with pytest.raises(InstructionError):
        narrow.read("go " * 300)
