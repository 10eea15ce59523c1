import numpy as np
import pytest

from engine.little import CASES, little
from mobile_vla.core import Frame, Instruction, InstructionError, Observation, Twist
from mobile_vla.engine.backends import backend
from mobile_vla.engine.backends.base import Opening
from mobile_vla.engine.policy import EnginePolicy
from mobile_vla.policy.step import step_of
from mobile_vla.policy.vla import VlaPolicy
from mobile_vla.policy.vla_step import VlaStep


@pytest.mark.parametrize("case", CASES)
def test_it_decides_as_the_policy_does(case: str, tmp_path) -> None:
    network = little(case)
    policy, step = VlaPolicy(network), step_of(network)
    other = EnginePolicy(backend("torch").open(Opening(step, "fp32", 1, tmp_path)), step)
    rng = np.random.default_rng(1)
    instruction = Instruction("파란 의자 왼쪽으로 가서 멈춰")
    states = [policy.reset(instruction), other.reset(instruction)]
    for number in range(5):
        frame = Frame(rng.integers(0, 256, (480, 640, 3), dtype=np.uint8), number * 200_000_000, "sim", "front", number)
        observation = Observation(frame, Twist(0.3, -0.1, 0.2))
        wanted, given = (each.step(observation, state) for each, state in zip((policy, other), states, strict=True))
        states = [wanted.state, given.state]
        np.testing.assert_allclose(given.chunk.velocities, wanted.chunk.velocities, atol=1e-4)
        assert given.grounding.status == wanted.grounding.status
        assert given.grounding.box == pytest.approx(wanted.grounding.box, abs=1e-4)
        assert given.grounding.visibility == pytest.approx(wanted.grounding.visibility, abs=1e-4)
        assert given.grounding.distance_m == pytest.approx(wanted.grounding.distance_m, rel=1e-3)


def test_more_words_than_there_is_room_for_are_refused() -> None:
    with pytest.raises(InstructionError, match="more than the 3 that there is room for"):
        VlaStep(little("kosmos_clip"), 3).read("go round the green chair on its left side")
