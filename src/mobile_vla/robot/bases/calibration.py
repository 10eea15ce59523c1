"""Calibration of a base: what is driven, what a person measures with a tape, and the settings that explain it.

A run starts and ends at rest at one constant command. A base that follows with a lag begins late and ends late by the
same: the way is that of the command, so no ramp needs to be known. Wheels that slip while starting spoil a run; hence
the runs are slow.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from mobile_vla.core import ConfigError, Twist


@dataclass(frozen=True, slots=True)
class Run:
    """One drive: at ``twist`` for ``duration_s``. ``name``: "x..." is a way forward in m, "yaw" a turn in degrees.

    The turn counts whole turns: 350 and 370 degrees are told apart.
    """

    name: str
    twist: Twist
    duration_s: float

    @property
    def unit(self) -> str:
        """Of what is measured."""
        return "degrees" if self.name == "yaw" else "m"

    @property
    def what(self) -> str:
        """What the base is about to do, in words."""
        t = self.duration_s
        if self.name == "yaw":
            degrees, side = math.degrees(self.twist.wz * t), "left" if self.twist.wz > 0 else "right"
            return f"turn {side} on the spot for {t:g} s, about {abs(degrees):.0f} degrees by its present settings"
        return f"drive forward for {t:g} s, about {self.twist.vx * t:.2f} m by its present settings"


@dataclass(frozen=True, slots=True)
class Driven:
    """A run as it was: what was really sent, for how long, and what a person ``measured`` (m, or degrees)."""

    sent: Twist
    duration_s: float
    measured: float


Measured = Mapping[str, Driven]
"""By name of the run."""


@runtime_checkable
class Calibratable(Protocol):
    """Settings of a base that can be calibrated."""

    def build(self, clock: Any) -> Any:
        """See ``registry.BaseSettings``."""
        ...

    def really(self, twist: Twist) -> Twist:
        """What ``send`` returns for a twist."""
        ...

    def runs(self) -> tuple[Run, ...]:
        """What is driven to calibrate it."""
        ...

    def calibrated(self, measured: Measured) -> dict[str, float]:
        """The settings that explain what was measured in all of ``runs``; ConfigError when none can."""
        ...


RADIUS_RUNS = (Run("x", Twist(0.15, 0.0, 0.0), 6.0), Run("yaw", Twist(0.0, 0.0, 0.6), 12.0))
"""For bases whose wheels keep the speed that they are told."""


def radii(settings: Any, measured: Measured) -> dict[str, float]:
    """``wheel_radius_m`` and ``base_radius_m``, from ``RADIUS_RUNS`` driven with ``settings``.

    ConfigError for a measurement that is less than half or more than twice of what was expected: then something else
    is wrong, and a radius would hide it.
    """
    straight, turn = measured["x"], measured["yaw"]
    way_ratio = straight.measured / (straight.sent.vx * straight.duration_s)
    turn_ratio = math.radians(turn.measured) / (turn.sent.wz * turn.duration_s)
    for name, ratio in (("x", way_ratio), ("yaw", turn_ratio)):
        require_plausible(name, ratio)
    return {
        "wheel_radius_m": round(settings.wheel_radius_m * way_ratio, 6),
        "base_radius_m": round(settings.base_radius_m * way_ratio / turn_ratio, 6),
    }


def require_plausible(name: str, ratio: float) -> None:
    """ConfigError for a measured way or turn that is not within half and twice the expected one."""
    if not 0.5 <= ratio <= 2.0:
        raise ConfigError(
            f"the run {name} went {ratio:.2f} times as far as expected: measure again, and check the order of the "
            "wheels and the settings, before anything is calibrated"
        )
