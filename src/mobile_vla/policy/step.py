"""One decision as a pure function of tensors: what engines trace, compile, quantise and run in place of the network.

Nothing here depends on Python's values: all shapes are static, and a policy's own objects stay outside.
"""

import math
from abc import ABC, abstractmethod
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mobile_vla.core import ActionContract, ConfigError, Grounding, Status
from mobile_vla.policy.compact import MOTION_SIZE
from mobile_vla.policy.kinds import kind_of

BELIEF = ("visibility", "u", "v", "half_u", "half_v", "distance_m", "bearing_rad")
"""What a decision believes of its target: a probability, the box as shares of the image, metres, left positive rad."""
MOST_DISTANCE_M = 10.0
STATUSES = tuple(Status)


class Inputs(NamedTuple):
    """Of N sessions: uint8 (N, H, W, 3), words that were read beforehand, float32 (N, MOTION_SIZE), (N, ...)."""

    pixels: Tensor
    words: tuple[Tensor, ...]
    motion: Tensor
    history: Tensor


class Decision(NamedTuple):
    """Of N sessions, all float32 but the history.

    ``chunk`` (N, horizon, 3) in shares of the limits, ``status`` logits (N, 4), ``belief`` (N, 7) as in ``BELIEF``, and
    the ``history`` for the next decision.
    """

    chunk: Tensor
    status: Tensor
    belief: Tensor
    history: Tensor


class DecisionStep(nn.Module, ABC):
    """What every kind of policy offers to engines. ``size``: (rows, columns) of the pixels; sessions come first.

    ``forward`` takes the fields of ``Inputs`` and gives those of a ``Decision`` as a plain tuple.
    """

    contract: ActionContract
    size: tuple[int, int]

    @abstractmethod
    def read(self, text: str) -> tuple[Tensor, ...]:
        """The words of one session, in static shapes (1, ...). InstructionError for a text that does not fit."""

    @abstractmethod
    def start(self) -> Tensor:
        """The history of one session before its first frame, (1, ...)."""

    def example(self, sessions: int = 1) -> Inputs:
        """Inputs of the shapes and types that ``forward`` takes, all sessions told to stop."""
        history = self.start().detach()
        device = history.device
        return Inputs(
            torch.zeros(sessions, *self.size, 3, dtype=torch.uint8, device=device),
            tuple(part.repeat_interleave(sessions, 0) for part in self.read("stop")),
            torch.zeros(sessions, MOTION_SIZE, device=device),
            history.repeat_interleave(sessions, 0),
        )


def step_of(network: nn.Module) -> DecisionStep:
    """The decision of a network of any kind; it may stand on the network's own weights.

    ConfigError for a kind that cannot be run by engines.
    """
    kind = kind_of(network)
    if kind.step is None:
        raise ConfigError(
            f"policies of the kind {kind.name} have no step for engines: drive with the checkpoint itself"
        )
    return cast("DecisionStep", kind.step(network).eval())


def believed(visibility: Tensor, box: Tensor, log_distance: Tensor, bearing: Tensor) -> Tensor:
    """(N,), (N, 4) middle and half size, (N,) and (N,) to (N, 7) as in ``BELIEF``."""
    distance = log_distance.clamp(max=3.0).exp().clamp(max=MOST_DISTANCE_M)
    return torch.cat([visibility[:, None], box, distance[:, None], bearing[:, None]], dim=1)


def grounding_from(belief: NDArray[np.float32], status: Status) -> Grounding:
    """One session's row (7,) of ``BELIEF``."""
    visibility, u, v, half_u, half_v, distance_m, bearing_rad = belief.tolist()
    box = (u - half_u, v - half_v, u + half_u, v + half_v)
    return Grounding(visibility, bearing_rad, distance_m, box, status)


def motion_row(
    velocity: NDArray[np.float32], odometry: tuple[float, float, float], contract: ActionContract
) -> NDArray[np.float32]:
    """``compact.motion_features`` of one session without torch: (MOTION_SIZE,)."""
    x, y, turned = odometry
    row = np.empty(MOTION_SIZE, dtype=np.float32)
    row[:3] = velocity / contract.limits_array
    row[3:] = x / 2.0, y / 2.0, math.cos(turned), math.sin(turned), turned / (2 * math.pi)
    return row
