"""Velocities of the base, alone and in chunks. Frame ``base_link``, REP-103: x forward, y left, z up."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from mobile_vla.core.clock import NS_PER_S

AXES = ("linear_x", "linear_y", "angular_z")


@dataclass(frozen=True, slots=True)
class Twist:
    """A planar velocity: ``vx`` and ``vy`` in m/s, ``wz`` in rad/s, counter-clockwise positive."""

    vx: float
    vy: float
    wz: float

    def as_array(self) -> NDArray[np.float32]:
        """Shape (3,), float32, in the order of ``AXES``."""
        return np.array([self.vx, self.vy, self.wz], dtype=np.float32)

    @classmethod
    def from_array(cls, values: NDArray[np.floating]) -> Self:
        """From shape (3,); ValueError for any other shape."""
        if values.shape != (3,):
            raise ValueError(f"a Twist needs shape (3,), got {values.shape}")
        return cls(float(values[0]), float(values[1]), float(values[2]))

    @property
    def is_finite(self) -> bool:
        """No component is NaN or infinite."""
        return math.isfinite(self.vx) and math.isfinite(self.vy) and math.isfinite(self.wz)


ZERO_TWIST = Twist(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class ActionChunk:
    """Future velocities at a fixed rate. Row k holds for the k-th period after ``stamp_ns``.

    ``velocities``: float32 (horizon, 3) in m/s, m/s, rad/s. ``stamp_ns``: capture time of the frame it was decided on,
    so a late chunk is aligned to what it was meant for rather than started from its first row.
    """

    velocities: NDArray[np.float32]
    stamp_ns: int
    rate_hz: float

    def __post_init__(self) -> None:
        if self.velocities.ndim != 2 or self.velocities.shape[1] != len(AXES):
            raise ValueError(f"an ActionChunk needs velocities of shape (horizon, 3), got {self.velocities.shape}")

    @property
    def horizon(self) -> int:
        """Number of rows."""
        return int(self.velocities.shape[0])

    @property
    def period_ns(self) -> int:
        """Duration of one row."""
        return round(NS_PER_S / self.rate_hz)

    def row_at(self, stamp_ns: int) -> int:
        """Index of the row meant for ``stamp_ns``; may lie outside 0..horizon-1."""
        return (stamp_ns - self.stamp_ns) // self.period_ns

    def at(self, stamp_ns: int) -> Twist | None:
        """The velocity meant for ``stamp_ns``, or None before the chunk begins and after it ends."""
        row = self.row_at(stamp_ns)
        return Twist.from_array(self.velocities[row]) if 0 <= row < self.horizon else None
