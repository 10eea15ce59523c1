"""The policy around an engine, against the policy around the network: same frames, same drives, same numbers."""

from pathlib import Path

import numpy as np
import pytest

from mobile_vla.core import Frame, Instruction, InstructionError, Observation, Twist
from mobile_vla.engine.backends import backend
from mobile_vla.engine.backends.base import Opening
from mobile_vla.engine.policy import EnginePolicy
from mobile_vla.policy.step import step_of
from mobile_vla.policy.weights import SHIPPED, load_network, load_policy

TEXTS = ("go to the red cup", "빨간 컵으로 가", "turn left")


def engine_policy(sessions: int = 1) -> EnginePolicy:
    step = step_of(load_network(SHIPPED))
    return EnginePolicy(backend("torch").open(Opening(step, "fp32", sessions, Path())), step)


def observations(count: int, seed: int, size: tuple[int, int] = (480, 640)) -> list[Observation]:
    rng = np.random.default_rng(seed)
    return [
        Observation(
            Frame(
                rng.integers(0, 256, (*size, 3), dtype=np.uint8), number * 200_000_000, "simulation", "front", number
            ),
            Twist(*rng.uniform(-0.5, 0.5, 3).tolist()),
        )
        for number in range(count)
    ]


def test_a_drive_is_decided_as_by_the_network() -> None:
    policies = load_policy(), engine_policy()
    states = [policy.reset(Instruction(TEXTS[1])) for policy in policies]
    for observation in observations(8, 3):
        wanted, given = (policy.step(observation, state) for policy, state in zip(policies, states, strict=True))
        states = [wanted.state, given.state]
        np.testing.assert_allclose(given.chunk.velocities, wanted.chunk.velocities, atol=1e-5)
        assert (given.chunk.stamp_ns, given.chunk.rate_hz) == (wanted.chunk.stamp_ns, wanted.chunk.rate_hz)
        assert given.grounding.status == wanted.grounding.status
        assert given.grounding.box == pytest.approx(wanted.grounding.box, abs=1e-4)
        assert given.state.odometry == wanted.state.odometry


def test_a_step_leaves_its_state_and_what_it_gave_before_as_they_were() -> None:
    policy = engine_policy()
    first, second = observations(2, 4)
    state = policy.reset(Instruction(TEXTS[0]))
    one = policy.step(first, state)
    kept = one.chunk.velocities.copy(), np.array(one.state.history)
    policy.step(second, one.state)
    again = policy.step(first, state)
    np.testing.assert_array_equal(one.chunk.velocities, kept[0])
    np.testing.assert_array_equal(one.state.history, kept[1])
    np.testing.assert_array_equal(again.chunk.velocities, kept[0])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_several_robots_in_one_batch_are_decided_as_alone(count: int) -> None:
    together, alone = engine_policy(3), engine_policy()
    states = [together.reset(Instruction(text)) for text in TEXTS[:count]]
    own = [alone.reset(Instruction(text)) for text in TEXTS[:count]]
    for number in range(3):
        seen = [observations(number + 1, 10 + place)[number] for place in range(count)]
        steps = together.steps(seen, states)
        wanted = [alone.step(each, state) for each, state in zip(seen, own, strict=True)]
        states, own = [each.state for each in steps], [each.state for each in wanted]
        for one, other in zip(steps, wanted, strict=True):
            np.testing.assert_allclose(one.chunk.velocities, other.chunk.velocities, atol=1e-5)
            assert one.grounding.box == pytest.approx(other.grounding.box, abs=1e-4)


def test_words_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InstructionError):
        engine_policy().reset(Instruction("가" * 199))
