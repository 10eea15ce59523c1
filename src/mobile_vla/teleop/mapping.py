"""From the axes and buttons of a pad to what they mean: one way for the Linux device and ``sensor_msgs/Joy``."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from mobile_vla.core import ConfigError
from mobile_vla.teleop.stick import NO_SHARES, Button, Shares

Axis = tuple[int, float]
"""Number of an axis, and what to multiply its value with: -1.0 where the pad counts the other way round."""


@dataclass(frozen=True)
class PadMap:
    """Which axis drives what, and which button asks for what; numbers count from 0 as the pad counts.

    The axes give -1 to 1. Below ``dead_zone`` a value counts as 0, and the rest is stretched to begin at 0. With
    ``dead_man`` the robot moves only while that button is held; with None a stick outside the dead zone is a touch.
    ConfigError for numbers that cannot be.
    """

    x: Axis
    y: Axis
    yaw: Axis
    buttons: Mapping[int, Button] = field(default_factory=lambda: MappingProxyType({}))
    dead_man: int | None = None
    dead_zone: float = 0.12

    def __post_init__(self) -> None:
        if not 0 <= self.dead_zone < 1:
            raise ConfigError(f"dead_zone is {self.dead_zone}; it needs to be at least 0 and below 1")
        for number, factor in (self.x, self.y, self.yaw):
            if number < 0 or not math.isfinite(factor):
                raise ConfigError(f"axis ({number}, {factor}) needs a number of at least 0 and a finite factor")
        if any(number < 0 for number in self.buttons) or (self.dead_man is not None and self.dead_man < 0):
            raise ConfigError("buttons are numbered from 0")
        if self.dead_man in self.buttons:
            raise ConfigError(f"button {self.dead_man} is the dead-man button and cannot mean something else as well")

    @property
    def axes_needed(self) -> int:
        """The pad must have at least so many axes."""
        return 1 + max(self.x[0], self.y[0], self.yaw[0])

    @property
    def buttons_needed(self) -> int:
        """The pad must have at least so many buttons for all of them to be reached."""
        return 1 + max((*self.buttons, -1 if self.dead_man is None else self.dead_man), default=-1)

    def shares(self, axes: Sequence[float], held: Sequence[bool]) -> Shares:
        """(x, y, yaw) of -1 to 1; all 0 while the dead-man button is not held. Missing axes and buttons count as 0."""
        if self.dead_man is not None and not (self.dead_man < len(held) and held[self.dead_man]):
            return NO_SHARES
        x, y, yaw = (
            self._share(axes[n] * factor if n < len(axes) else 0.0) for n, factor in (self.x, self.y, self.yaw)
        )
        return (x, y, yaw)

    def touched(self, axes: Sequence[float], held: Sequence[bool]) -> bool:
        """A person drives: the dead-man button is held, or without one the stick is out of its dead zone."""
        if self.dead_man is not None:
            return self.dead_man < len(held) and held[self.dead_man]
        return self.shares(axes, held) != NO_SHARES

    def _share(self, value: float) -> float:
        beyond = (abs(value) - self.dead_zone) / (1 - self.dead_zone)
        return math.copysign(min(beyond, 1.0), value) if beyond > 0 else 0.0


GAME_CONTROLLER = PadMap(
    x=(1, 1.0),
    y=(0, 1.0),
    yaw=(2, 1.0),
    dead_man=9,
    buttons=MappingProxyType(
        {
            0: Button.START,
            1: Button.EMERGENCY_STOP,
            2: Button.STOP,
            3: Button.DISCARD,
            4: Button.REARM,
            6: Button.RESUME,
            11: Button.REPLAY,
            12: Button.REPEAT,
            14: Button.NEXT,
        }
    ),
)
"""As ROS 2's ``joy/game_controller_node`` numbers every pad (https://docs.ros.org/en/jazzy/p/joy): left stick drives,
right stick turns, L1 is held, A start, B emergency stop, X stop, Y discard, BACK re-arm, START resume. Left and up are
positive there."""

LINUX_PAD = PadMap(
    x=(1, -1.0),
    y=(0, -1.0),
    yaw=(3, -1.0),
    dead_man=4,
    buttons=MappingProxyType(
        {
            0: Button.START,
            1: Button.EMERGENCY_STOP,
            2: Button.STOP,
            3: Button.DISCARD,
            6: Button.REARM,
            7: Button.RESUME,
        }
    ),
)
"""As Linux's ``xpad`` driver numbers an Xbox pad on ``/dev/input/js*``, for a device that does not tell its codes.
Right and down are positive there."""
