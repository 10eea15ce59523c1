"""What every kind of policy keeps to: a class of tests to inherit, with two fixtures to give.

``kind`` is the PolicyKind, ``network`` one of its networks, small and in evaluation mode.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from little import observation
from torch import Tensor, nn

from mobile_vla.core import Instruction, InstructionError, Status, Step
from mobile_vla.policy.kinds import PolicyKind, kind_named, kind_of
from mobile_vla.policy.weights import load_network, load_policy, save_network, template

RED, BLUE = Instruction("go to the red cup"), Instruction("파란 의자 왼쪽으로 가서 멈춰")


def leaves(state: Any) -> list[Any]:
    """The tensors and plain values of a state, in order."""
    if isinstance(state, Tensor):
        return [state.detach().clone()]
    if isinstance(state, tuple):
        return [leaf for part in state for leaf in leaves(part)]
    return [state]


def same(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in zip(one, other, strict=True)
    )


class PolicyConformance:
    """Inherit it in a class whose name begins with Test."""

    def shapes(self, network: nn.Module) -> dict[str, tuple[Any, Any]]:
        return {name: (value.shape, value.dtype) for name, value in network.state_dict().items()}

    def drive(self, policy: Any, instruction: Instruction, seeds: list[int]) -> list[Step]:
        steps, state = [], policy.reset(instruction)
        for number, seed in enumerate(seeds):
            steps.append(policy.step(observation(seed, number * 200_000_000), state))
            state = steps[-1].state
        return steps

    def test_it_is_found_by_its_name(self, kind: PolicyKind, network: nn.Module) -> None:
        assert kind_named(kind.name) is kind
        assert kind_of(network) is kind
        assert isinstance(network, kind.network)

    def test_what_sizes_say_builds_the_same_tensors(self, kind: PolicyKind, network: nn.Module) -> None:
        said = json.loads(json.dumps(kind.sizes(network)))
        assert self.shapes(kind.build(said, network.contract)) == self.shapes(network)  # type: ignore[arg-type]

    def test_a_saved_one_acts_the_same_to_the_bit(self, kind: PolicyKind, network: nn.Module, tmp_path: Path) -> None:
        save_network(tmp_path, network, {})
        before, after = kind.drive(network), load_policy(tmp_path)
        assert after.contract == before.contract
        for one, other in zip(self.drive(before, BLUE, [1, 2]), self.drive(after, BLUE, [1, 2]), strict=True):
            assert np.array_equal(one.chunk.velocities, other.chunk.velocities)
            assert one.grounding == other.grounding
        assert not load_network(tmp_path).training
        names = {name for name, _, _ in template(tmp_path / "config.json")}
        assert names == set(network.state_dict())

    def test_a_step_gives_a_chunk_and_a_grounding(self, kind: PolicyKind, network: nn.Module) -> None:
        policy = kind.drive(network)
        step = policy.step(observation(1, 5_000), policy.reset(RED))
        assert step.chunk.velocities.shape == (policy.contract.horizon, 3)
        assert np.isfinite(step.chunk.velocities).all()
        assert (step.chunk.stamp_ns, step.chunk.rate_hz) == (5_000, policy.contract.rate_hz)
        assert 0.0 <= step.grounding.visibility <= 1.0
        assert np.isfinite([step.grounding.bearing_rad, step.grounding.distance_m, *step.grounding.box]).all()
        assert step.grounding.status in Status

    def test_a_step_is_pure_and_leaves_its_state_alone(self, kind: PolicyKind, network: nn.Module) -> None:
        policy = kind.drive(network)
        state = self.drive(policy, RED, [1])[0].state
        before = leaves(state)
        first, again = (policy.step(observation(2, 200_000_000), state) for _ in range(2))
        assert same(leaves(state), before)
        assert np.array_equal(first.chunk.velocities, again.chunk.velocities)
        assert same(leaves(first.state), leaves(again.state))
        assert not same(leaves(first.state), before)

    def test_interleaved_sessions_are_as_if_alone(self, kind: PolicyKind, network: nn.Module) -> None:
        policy = kind.drive(network)
        alone = [self.drive(policy, RED, [1, 2, 3]), self.drive(policy, BLUE, [11, 12, 13])]
        states = [policy.reset(RED), policy.reset(BLUE)]
        for number in range(3):
            for session, first in enumerate((1, 11)):
                step = policy.step(observation(first + number, number * 200_000_000), states[session])
                states[session] = step.state
                assert np.array_equal(step.chunk.velocities, alone[session][number].chunk.velocities)
        assert all(same(leaves(state), leaves(steps[-1].state)) for state, steps in zip(states, alone, strict=True))

    def test_other_words_move_otherwise(self, kind: PolicyKind, network: nn.Module) -> None:
        policy = kind.drive(network)
        one, other = (self.drive(policy, each, [1])[0] for each in (RED, BLUE))
        assert one.grounding != other.grounding
        statuses = {one.grounding.status, other.grounding.status}
        assert any(status.is_final for status in statuses) or not np.array_equal(
            one.chunk.velocities, other.chunk.velocities
        )

    def test_no_words_are_refused(self, kind: PolicyKind, network: nn.Module) -> None:
        with pytest.raises(InstructionError, match="empty"):
            kind.drive(network).reset(Instruction("  "))
