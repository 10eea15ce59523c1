"""Networks that drive several robots at once while data are collected."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mobile_vla.core import Instruction, Twist
from mobile_vla.language import encode
from mobile_vla.policy.compact import CompactNetwork, command, integrate, motion_features
from mobile_vla.policy.preprocess import to_tensor
from mobile_vla.policy.weights import load_network
from mobile_vla.train.collect import Learner


def load_learner(folder: Path, lanes: int) -> Learner:
    """The network of a checkpoint of any kind that can be trained here, over ``lanes`` robots."""
    network = load_network(folder)
    if isinstance(network, CompactNetwork):
        return NetworkLearner(network, lanes)
    from mobile_vla.train.vla_learner import VlaLearner

    return VlaLearner(network, lanes)


class NetworkLearner:
    """The compact network over ``lanes`` robots in step; each lane has its own words, memory and odometry."""

    def __init__(self, network: CompactNetwork, lanes: int) -> None:
        network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._network = network
        self._words = torch.zeros(lanes, network.config.words)
        self._memory = torch.zeros(1, lanes, network.config.memory)
        self._odometry = [(0.0, 0.0, 0.0)] * lanes
        self._begun = [False] * lanes

    @torch.inference_mode()
    def reset(self, place: int, instruction: Instruction) -> None:
        """Lane ``place`` begins an episode."""
        self._words[place] = self._network.text(torch.from_numpy(encode(instruction.text))[None])[0]
        self._memory[:, place] = 0.0
        self._odometry[place] = (0.0, 0.0, 0.0)
        self._begun[place] = False

    @torch.inference_mode()
    def act(self, frames: NDArray[np.uint8], velocities: NDArray[np.float32]) -> NDArray[np.float32]:
        """Frames (N, H, W, 3) and measured velocities (N, 3) to velocities (N, horizon, 3), physical units."""
        contract = self._network.contract
        for place, velocity in enumerate(velocities):
            if self._begun[place]:
                twist = Twist.from_array(velocity)
                self._odometry[place] = integrate(self._odometry[place], twist, 1.0 / contract.frame_rate_hz)
            self._begun[place] = True
        motion = motion_features(torch.from_numpy(velocities), torch.tensor(self._odometry), contract)
        with torch.autocast("cpu", torch.bfloat16):
            sight = self._network.eye(to_tensor(torch.from_numpy(frames)))
        _, seen = self._network.read(sight, self._words)
        decision = self._network.decide(seen[:, None], self._words, motion[:, None], self._memory)
        self._memory = decision.memory
        return command(decision, contract)[0]
