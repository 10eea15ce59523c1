"""Kinematics of a base on omnidirectional wheels: twist to wheel speeds and back."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mobile_vla.core import AXES, ConfigError, Twist


@dataclass(frozen=True)
class OmniKinematics:
    """Three or more omni wheels on a circle about the base centre, axles pointing at it.

    ``wheel_angles_rad``: for each wheel the direction in ``base_link`` in which it pushes the base when it turns
    positively. A wheel that pushes towards ``a`` is mounted at ``a - 90 deg``, so positive wheels turn the base
    counter-clockwise (REP-103). ConfigError for sizes that are not positive, and for wheels that cannot move all three
    axes.
    """

    wheel_angles_rad: tuple[float, ...]
    wheel_radius_m: float
    base_radius_m: float

    def __post_init__(self) -> None:
        for name in ("wheel_radius_m", "base_radius_m"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} is {value}; it needs to be positive and finite")
        if not all(map(math.isfinite, self.wheel_angles_rad)):
            raise ConfigError(f"wheel_angles_rad {self.wheel_angles_rad} are not all finite")
        if len(self.wheel_angles_rad) < len(AXES) or np.linalg.matrix_rank(self.inverse_matrix) < len(AXES):
            degrees = [round(math.degrees(angle), 1) for angle in self.wheel_angles_rad]
            raise ConfigError(f"wheels pushing towards {degrees} degrees cannot move the base along x, y and yaw")

    @cached_property
    def inverse_matrix(self) -> NDArray[np.float64]:
        """Shape (n_wheels, 3): wheel speeds in rad/s = ``inverse_matrix`` @ (vx, vy, wz)."""
        rows = [(math.cos(angle), math.sin(angle), self.base_radius_m) for angle in self.wheel_angles_rad]
        return np.array(rows) / self.wheel_radius_m

    @cached_property
    def forward_matrix(self) -> NDArray[np.float64]:
        """Shape (3, n_wheels), the pseudo-inverse: the least-squares twist where more than three wheels disagree."""
        return np.asarray(np.linalg.pinv(self.inverse_matrix))

    @property
    def wheel_matrix(self) -> tuple[tuple[float, float, float], ...]:
        """``inverse_matrix`` as plain numbers, for ``safety.Limits``."""
        return tuple((float(x), float(y), float(yaw)) for x, y, yaw in self.inverse_matrix)

    def wheel_speeds(self, twist: Twist) -> NDArray[np.float64]:
        """Shape (n_wheels,), rad/s: how the wheels turn when the base moves so without slip."""
        return np.asarray(self.inverse_matrix @ (twist.vx, twist.vy, twist.wz))

    def twist(self, wheel_speeds_radps: Sequence[float] | NDArray[np.floating]) -> Twist:
        """How the base moves when its wheels turn so; ValueError for another number of wheels."""
        speeds = np.asarray(wheel_speeds_radps, dtype=np.float64)
        if speeds.shape != (len(self.wheel_angles_rad),):
            raise ValueError(f"{len(self.wheel_angles_rad)} wheels need as many speeds, got shape {speeds.shape}")
        vx, vy, wz = self.forward_matrix @ speeds
        return Twist(float(vx), float(vy), float(wz))


LEKIWI = OmniKinematics(
    wheel_angles_rad=tuple(math.radians(degrees - 90) for degrees in (240, 0, 120)),
    wheel_radius_m=0.05,
    base_radius_m=0.125,
)
"""LeKiwi's wheels (LeRobot): front left, rear, front right."""
