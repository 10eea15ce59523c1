"""A full-size policy that drives several robots at once while data are collected."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mobile_vla.core import ConfigError, Frame, Instruction, Observation, Twist
from mobile_vla.policy.vla import VlaNetwork, VlaPolicy, VlaState

_NS_PER_S = 1_000_000_000


class VlaLearner:
    """One state a lane; all lanes are decided on as one batch, in bfloat16."""

    def __init__(self, network: nn.Module, lanes: int) -> None:
        if not isinstance(network, VlaNetwork):
            raise ConfigError(f"a policy of class {type(network).__name__} cannot learn by driving here")
        for tower in network.towers.values():
            tower.model.set_attn_implementation("eager")  # type: ignore[operator, union-attr]
        self._policy = VlaPolicy(network)
        self._states: list[VlaState | None] = [None] * lanes
        self._frames = [0] * lanes
        self._period_ns = round(_NS_PER_S / network.contract.frame_rate_hz)

    def reset(self, place: int, instruction: Instruction) -> None:
        """Lane ``place`` begins an episode."""
        self._states[place] = self._policy.reset(instruction)
        self._frames[place] = 0

    def act(self, frames: NDArray[np.uint8], velocities: NDArray[np.float32]) -> NDArray[np.float32]:
        """Frames (N, H, W, 3) and measured velocities (N, 3) to velocities (N, horizon, 3), physical units.

        Lanes that have not begun get zeros.
        """
        contract = self._policy.contract
        wanted = np.zeros((len(frames), contract.horizon, len(contract.axes)), dtype=np.float32)
        begun = [place for place, state in enumerate(self._states) if state is not None]
        seen = [
            Observation(
                Frame(frames[place], self._frames[place] * self._period_ns, "steps", "front", self._frames[place]),
                Twist.from_array(velocities[place]),
            )
            for place in begun
        ]
        states = [state for state in self._states if state is not None]
        with torch.autocast("cpu", torch.bfloat16):
            steps = self._policy.steps(seen, states)
        for place, step in zip(begun, steps, strict=True):
            self._states[place] = step.state
            self._frames[place] += 1
            wanted[place] = step.chunk.velocities
        return wanted
