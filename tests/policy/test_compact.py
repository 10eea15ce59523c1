import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.core import Frame, Instruction, InstructionError, Observation, Status, Twist
from mobile_vla.policy.compact import (
    CELLS,
    COLUMNS,
    ROWS,
    CompactNetwork,
    CompactPolicy,
    Decision,
    bearing_of,
    command,
    integrate,
    motion_features,
    pointed_box,
)
from mobile_vla.policy.preprocess import HEIGHT, WIDTH


def observation(seed: int, stamp_ns: int) -> Observation:
    pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    return Observation(Frame(pixels, stamp_ns, "test", "front", seed), Twist(0.1, 0.0, 0.2))


def test_a_step_gives_a_chunk_within_the_contract_and_a_grounding(network: CompactNetwork) -> None:
    policy = CompactPolicy(network)
    step = policy.step(observation(1, 5_000), policy.reset(Instruction("go to the red cup")))
    assert step.chunk.velocities.shape == (policy.contract.horizon, 3)
    assert (np.abs(step.chunk.velocities) <= policy.contract.limits_array + 1e-6).all()
    assert step.chunk.stamp_ns == 5_000
    assert 0.0 <= step.grounding.visibility <= 1.0
    assert step.grounding.status in Status


def test_a_step_is_pure_and_state_is_what_connects_steps(network: CompactNetwork) -> None:
    policy = CompactPolicy(network)
    state = policy.reset(Instruction("go to the red cup"))
    first = policy.step(observation(1, 0), state)
    again = policy.step(observation(1, 0), state)
    assert np.array_equal(first.chunk.velocities, again.chunk.velocities)
    remembered = policy.step(observation(2, 200_000_000), first.state)
    fresh = policy.step(observation(2, 200_000_000), state)
    assert not np.array_equal(remembered.chunk.velocities, fresh.chunk.velocities)


def test_one_policy_serves_two_robots_without_mixing_them(network: CompactNetwork) -> None:
    policy = CompactPolicy(network)
    alone = [policy.reset(Instruction("go to the red cup"))]
    for k in range(3):
        alone.append(policy.step(observation(k, k), alone[-1]).state)
    one, two = policy.reset(Instruction("go to the red cup")), policy.reset(Instruction("turn left"))
    for k in range(3):
        one = policy.step(observation(k, k), one).state
        two = policy.step(observation(90 + k, k), two).state
    assert torch.equal(one.memory, alone[-1].memory)


def test_stepping_one_by_one_equals_a_whole_sequence_as_in_training(network: CompactNetwork) -> None:
    seen_size = network.enter.in_features - network.config.words - 8
    seen, motion = torch.randn(2, 5, seen_size), torch.randn(2, 5, 8)
    words = torch.randn(2, network.config.words)
    whole = network.decide(seen, words, motion)
    memory, parts = None, []
    for k in range(5):
        decision = network.decide(seen[:, k : k + 1], words, motion[:, k : k + 1], memory)
        memory = decision.memory
        parts.append(decision.actions)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole.actions, rtol=1e-4, atol=1e-5)


def test_who_says_it_has_finished_stands_still(network: CompactNetwork) -> None:
    status = torch.full((4, 1, 4), -1.0)
    for row in range(4):
        status[row, 0, row] = 1.0
    decision = Decision(torch.full((4, 1, network.contract.horizon, 3), 0.5), status, torch.zeros(1, 4, 16))
    velocities, statuses = command(decision, network.contract)
    assert statuses == list(Status)
    for row, said in zip(velocities, statuses, strict=True):
        assert (row == 0.0).all() == said.is_final


def test_words_that_do_not_fit_are_refused(network: CompactNetwork) -> None:
    with pytest.raises(InstructionError, match="empty"):
        CompactPolicy(network).reset(Instruction("   "))


def test_other_words_point_elsewhere(network: CompactNetwork) -> None:
    policy = CompactPolicy(network)
    a = policy.step(observation(1, 0), policy.reset(Instruction("go to the red cup")))
    b = policy.step(observation(1, 0), policy.reset(Instruction("stop at the blue chair")))
    assert not np.array_equal(a.chunk.velocities, b.chunk.velocities)


@given(st.integers(0, CELLS - 1), st.floats(-0.5, 0.5), st.floats(-0.5, 0.5))
def test_a_single_cell_gives_its_own_place(cell: int, du: float, dv: float) -> None:
    shares = torch.zeros(1, CELLS)
    shares[0, cell] = 1.0
    boxes = torch.zeros(1, CELLS, 5)
    boxes[0, cell, 0], boxes[0, cell, 1] = du, dv
    u, v = pointed_box(shares, boxes)[0, :2].tolist()
    assert u * COLUMNS == pytest.approx(cell % COLUMNS + 0.5 + du, abs=1e-4)
    assert v * ROWS == pytest.approx(cell // COLUMNS + 0.5 + dv, abs=1e-4)


@given(st.floats(0.0, 1.0), st.floats(-1.0, 1.5))
def test_left_in_the_picture_is_a_positive_bearing(u: float, log_distance: float) -> None:
    bearing = float(bearing_of(torch.tensor([u]), torch.tensor([log_distance]))[0])
    assert bearing == pytest.approx(0.0, abs=1e-3) if abs(u - 0.5) < 1e-4 else (bearing > 0) == (u < 0.5)


@given(st.floats(-0.5, 0.5), st.floats(-1.5, 1.5), st.integers(1, 40))
def test_dead_reckoning_of_a_steady_twist_is_an_arc(vx: float, wz: float, steps: int) -> None:
    odometry = (0.0, 0.0, 0.0)
    for _ in range(steps):
        odometry = integrate(odometry, Twist(vx, 0.0, wz), 0.1)
    assert odometry[2] == pytest.approx(wz * 0.1 * steps, abs=1e-6)
    if abs(wz) > 1e-3:
        radius = vx / wz
        assert odometry[0] == pytest.approx(radius * math.sin(odometry[2]), abs=0.02)
        assert odometry[1] == pytest.approx(radius * (1 - math.cos(odometry[2])), abs=0.02)


def test_a_full_turn_is_not_nothing(network: CompactNetwork) -> None:
    still = motion_features(torch.zeros(1, 3), torch.zeros(1, 3), network.contract)
    turned = motion_features(torch.zeros(1, 3), torch.tensor([[0.0, 0.0, 2 * math.pi]]), network.contract)
    assert not torch.allclose(still, turned)
