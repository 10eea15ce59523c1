"""Kinematics of bases that move along x, y and yaw: twist to wheel speeds and back."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mobile_vla.core import AXES, ConfigError, Twist


class Kinematics(ABC):
    """Wheels that roll without slip, each at a speed that is linear in the twist of the base."""

    @cached_property
    @abstractmethod
    def inverse_matrix(self) -> NDArray[np.float64]:
        """Shape (n_wheels, 3): wheel speeds in rad/s = ``inverse_matrix`` @ (vx, vy, wz)."""

    @cached_property
    def forward_matrix(self) -> NDArray[np.float64]:
        """Shape (3, n_wheels), the pseudo-inverse: the least-squares twist where more than three wheels disagree."""
        return np.asarray(np.linalg.pinv(self.inverse_matrix))

    @property
    def wheel_matrix(self) -> tuple[tuple[float, float, float], ...]:
        """``inverse_matrix`` as plain numbers, for ``safety.Limits``."""
        return tuple((float(x), float(y), float(yaw)) for x, y, yaw in self.inverse_matrix)

    @property
    def wheels(self) -> int:
        """How many there are."""
        return len(self.inverse_matrix)

    def wheel_speeds(self, twist: Twist) -> NDArray[np.float64]:
        """Shape (n_wheels,), rad/s: how the wheels turn when the base moves so without slip."""
        return np.asarray(self.inverse_matrix @ (twist.vx, twist.vy, twist.wz))

    def twist(self, wheel_speeds_radps: Sequence[float] | NDArray[np.floating]) -> Twist:
        """How the base moves when its wheels turn so; ValueError for another number of wheels."""
        speeds = np.asarray(wheel_speeds_radps, dtype=np.float64)
        if speeds.shape != (self.wheels,):
            raise ValueError(f"{self.wheels} wheels need as many speeds, got shape {speeds.shape}")
        vx, vy, wz = self.forward_matrix @ speeds
        return Twist(float(vx), float(vy), float(wz))


@dataclass(frozen=True)
class OmniKinematics(Kinematics):
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
        _require_positive(self, "wheel_radius_m", "base_radius_m")
        if not all(map(math.isfinite, self.wheel_angles_rad)):
            raise ConfigError(f"wheel_angles_rad {self.wheel_angles_rad} are not all finite")
        if len(self.wheel_angles_rad) < len(AXES) or np.linalg.matrix_rank(self.inverse_matrix) < len(AXES):
            degrees = [round(math.degrees(angle), 1) for angle in self.wheel_angles_rad]
            raise ConfigError(f"wheels pushing towards {degrees} degrees cannot move the base along x, y and yaw")

    @cached_property
    def inverse_matrix(self) -> NDArray[np.float64]:
        """See ``Kinematics``."""
        rows = [(math.cos(angle), math.sin(angle), self.base_radius_m) for angle in self.wheel_angles_rad]
        return np.array(rows) / self.wheel_radius_m


@dataclass(frozen=True)
class MecanumKinematics(Kinematics):
    """Four mecanum wheels at the corners of a rectangle, axles along y: front left, front right, rear left, rear right.

    Positive wheels drive forward. Seen from above the rollers form an X, the usual way to mount them. Lengths in m:
    ``half_length_m`` from the centre to the axles along x, ``half_width_m`` to the middle of the wheels along y.
    A wheel's contact does not slip along the axis of its roller, which lies at 45 degrees: that gives each row
    (Lynch and Park, Modern Robotics, 13.2). ConfigError for sizes that are not positive.
    """

    wheel_radius_m: float
    half_length_m: float
    half_width_m: float

    def __post_init__(self) -> None:
        _require_positive(self, "wheel_radius_m", "half_length_m", "half_width_m")

    @cached_property
    def inverse_matrix(self) -> NDArray[np.float64]:
        """See ``Kinematics``."""
        arm = self.half_length_m + self.half_width_m
        rows = [(1.0, -1.0, -arm), (1.0, 1.0, arm), (1.0, 1.0, -arm), (1.0, -1.0, arm)]
        return np.array(rows) / self.wheel_radius_m


def omni3(wheel_radius_m: float, base_radius_m: float) -> OmniKinematics:
    """Three omni wheels at 60, 180 and -60 degrees: front left, rear, front right. Positive turns it left."""
    return _omni((60, -180, -60), wheel_radius_m, base_radius_m)


def omni4(wheel_radius_m: float, base_radius_m: float) -> OmniKinematics:
    """Four omni wheels at the diagonals: front left, front right, rear left, rear right. Positive turns it left."""
    return _omni((45, -45, 135, -135), wheel_radius_m, base_radius_m)


def no_faster_than(limit_radps: float, wheel_speeds_radps: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same speeds, all scaled by one factor where one is above the limit: the direction of the base stays."""
    fastest = float(np.abs(wheel_speeds_radps).max(initial=0.0))
    return wheel_speeds_radps * (limit_radps / fastest) if fastest > limit_radps else wheel_speeds_radps


def _omni(mounts_deg: Sequence[float], wheel_radius_m: float, base_radius_m: float) -> OmniKinematics:
    return OmniKinematics(tuple(math.radians(mount + 90) for mount in mounts_deg), wheel_radius_m, base_radius_m)


def _require_positive(kinematics: Kinematics, *names: str) -> None:
    for name in names:
        value = getattr(kinematics, name)
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{name} is {value}; it needs to be positive and finite")


LEKIWI = omni3(wheel_radius_m=0.05, base_radius_m=0.125)
"""LeKiwi's wheels (LeRobot): front left, rear, front right."""
