"""Room to move: what a range sensor sees round the robot, and how fast it may go there."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from mobile_vla.core import ConfigError, Twist
from mobile_vla.safety.envelope import Limits

PATH_STEP_M = 0.02
"""The way ahead is looked at in pieces of this length; what is free is rounded down to whole pieces."""


@dataclass(frozen=True, slots=True, eq=False)
class Clearance:
    """One reading of a range sensor: what stands round the robot, seen from the origin of ``base_link``.

    ``angles_rad`` and ``ranges_m``: shape (n,), counter-clockwise from x, and metres. A range that is not finite or not
    positive is no return: there, the way counts as free. ``stamp_ns``: when it was measured, on the supervisor's clock.
    ValueError for other shapes and for angles that are not finite.
    """

    angles_rad: NDArray[np.float64]
    ranges_m: NDArray[np.float64]
    stamp_ns: int

    def __post_init__(self) -> None:
        if self.angles_rad.ndim != 1 or self.angles_rad.shape != self.ranges_m.shape:
            raise ValueError(
                "a Clearance needs angles and ranges of one shape (n,), "
                f"got {self.angles_rad.shape} and {self.ranges_m.shape}"
            )
        if not np.isfinite(self.angles_rad).all():
            raise ValueError("a Clearance needs finite angles; give a beam without a return the range inf")

    @classmethod
    def from_scan(
        cls,
        angle_min_rad: float,
        angle_increment_rad: float,
        ranges_m: NDArray[np.floating],
        stamp_ns: int,
        *,
        range_min_m: float = 0.0,
        range_max_m: float = math.inf,
        mount: tuple[float, float, float] = (0.0, 0.0, 0.0),
    ) -> Self:
        """From the fields of a ``sensor_msgs/LaserScan``; ``mount`` is the sensor's x, y (m) and yaw in ``base_link``.

        A range outside ``range_min_m``..``range_max_m`` is no return, as that message says.
        """
        ranges = np.asarray(ranges_m, dtype=np.float64)
        returned = np.isfinite(ranges) & (ranges >= range_min_m) & (ranges <= range_max_m) & (ranges > 0)
        bearings = mount[2] + angle_min_rad + angle_increment_rad * np.flatnonzero(returned)
        x = mount[0] + ranges[returned] * np.cos(bearings)
        y = mount[1] + ranges[returned] * np.sin(bearings)
        return cls(np.arctan2(y, x), np.hypot(x, y), stamp_ns)


@dataclass(frozen=True, slots=True)
class ClearanceConfig:
    """A round robot of ``robot_radius_m`` stays ``stop_distance_m`` before what stands in its way.

    A reading older than ``stale_after_s`` is not used. ``reaction_s``: from a reading to the base's deceleration, the
    age of the reading not counted: a period of control, the jerk limit's window, the base's own lag.
    """

    robot_radius_m: float
    stop_distance_m: float
    stale_after_s: float = 0.5
    reaction_s: float = 0.3

    def __post_init__(self) -> None:
        for name in ("robot_radius_m", "stale_after_s"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ConfigError(f"{name} is {value}; it needs to be positive and finite")
        for name in ("stop_distance_m", "reaction_s"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ConfigError(f"{name} is {value}; it needs to be at least 0 and finite")


class Room:
    """How much of a velocity the room round the robot allows."""

    def __init__(self, config: ClearanceConfig, limits: Limits) -> None:
        self.config = config
        self._limits = limits

    def share(self, clearance: Clearance, twist: Twist, age_s: float) -> float:
        """The greatest share of ``twist``, 0 to 1, from which the robot can ramp to rest in what is free.

        ``twist`` keeps the speed limits and is taken as held: it leads along a line or an arc. ``age_s``: of the
        reading. Turning on the spot moves no hull that is round, and is always allowed.
        """
        speed = math.hypot(twist.vx, twist.vy)
        if speed == 0:
            return 1.0
        # All axes ramp down together, so the robot stays on its arc and its deceleration does not depend on the share.
        deceleration = speed / self._limits.ramp_seconds((twist.vx, twist.vy, twist.wz))
        reaction_s = self.config.reaction_s + age_s
        needed_m = speed * reaction_s + speed**2 / (2 * deceleration)
        stop_m = self.config.stop_distance_m
        free_m = free_way(clearance, twist, self.config.robot_radius_m, needed_m + stop_m) - stop_m
        if free_m >= needed_m:
            return 1.0
        if free_m <= 0:
            return 0.0
        # the speed v for which v * reaction + v^2 / (2 * deceleration) is what is free
        return deceleration * (math.sqrt(reaction_s**2 + 2 * free_m / deceleration) - reaction_s) / speed


def free_way(clearance: Clearance, twist: Twist, radius_m: float, horizon_m: float) -> float:
    """How far, in metres, a round robot that holds ``twist`` comes before its hull touches something.

    Infinite where that is further than ``horizon_m``. What the robot moves away from is not in its way, even within
    ``radius_m``. ``twist`` moves: turning on the spot leads nowhere.
    """
    ranges = clearance.ranges_m
    near = np.isfinite(ranges) & (ranges > 0) & (ranges < horizon_m + radius_m)
    # The plane as complex numbers: x + iy in metres.
    points = ranges[near] * np.exp(1j * clearance.angles_rad[near])
    lengths_m = PATH_STEP_M * np.arange(math.ceil(horizon_m / PATH_STEP_M) + 1)
    times_s = lengths_m / math.hypot(twist.vx, twist.vy)
    half_turns = twist.wz * times_s / 2
    centres = complex(twist.vx, twist.vy) * times_s * np.sinc(half_turns / np.pi) * np.exp(1j * half_turns)
    distances = np.abs(points - centres[:, np.newaxis])
    touches = (distances[1:] < radius_m) & (distances[1:] < distances[:-1])
    touching = np.flatnonzero(touches.any(axis=1))
    return float(lengths_m[touching[0]]) if touching.size else math.inf
