"""The protocol of what a person drives with: keyboard, gamepad, or a stick on another machine."""

from dataclasses import dataclass
from typing import Protocol

from mobile_vla.core.backports import StrEnum

Shares = tuple[float, float, float]
NO_SHARES: Shares = (0.0, 0.0, 0.0)


class Button(StrEnum):
    """What a person can ask for beside motion."""

    EMERGENCY_STOP = "emergency_stop"
    REARM = "rearm"
    RESUME = "resume"
    START = "start"
    STOP = "stop"
    DISCARD = "discard"
    REPEAT = "repeat"
    REPLAY = "replay"
    NEXT = "next"
    QUIT = "quit"


@dataclass(frozen=True, slots=True)
class StickState:
    """What the stick says now.

    ``twist_share``: (x, y, yaw), each -1 to 1 of the robot's limit, x forward, y left, yaw counter-clockwise (REP-103).
    ``touched``: a person drives. ``pressed``: buttons that went down since the last read. ``stamp_ns``: when the stick
    was last known to live, on the clock that it was given; 0 before the first sign. ``connected``: it can be read.
    """

    twist_share: Shares = NO_SHARES
    touched: bool = False
    pressed: frozenset[Button] = frozenset()
    stamp_ns: int = 0
    connected: bool = False


class Stick(Protocol):
    """Something to drive with. One thread reads it."""

    @property
    def name(self) -> str:
        """For people: what it is, and where."""
        ...

    def open(self) -> None:
        """Make ready to read; ConfigError when there is no such thing. Open twice is open."""
        ...

    def close(self) -> None:
        """Let the device go, as it was found. Never raises; closed twice is closed."""
        ...

    def read(self) -> StickState:
        """What it says now, without waiting. A stick that went away is not connected, which is no error."""
        ...
