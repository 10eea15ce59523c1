"""The simulated robot behind the protocols of every robot: a clock that plays the world, a camera and a base."""

import time
from dataclasses import dataclass

from mobile_vla.core import NS_PER_S, ZERO_TWIST, CameraError, Frame, Twist
from mobile_vla.sim.world import World

COMMAND_TIMEOUT_S = 0.5
FRONT = "front"


class SimClock:
    """Time of a world; sleeping plays it. ``pace`` 1 plays no faster than life, 0 as fast as it can.

    Between two calls the base moves under its last command, and stops by itself when that is older than
    ``COMMAND_TIMEOUT_S``, as a real one would.
    """

    name = "simulation"

    def __init__(self, world: World, pace: float = 0.0) -> None:
        self._world, self._pace = world, pace
        self._command, self._command_ns = ZERO_TWIST, 0
        self._began_s: float | None = None
        self.touched: str | None = None

    def now_ns(self) -> int:
        """Simulated time since the scene began."""
        return self._world.time_ns

    def sleep_until(self, stamp_ns: int) -> None:
        """Play the world up to ``stamp_ns``."""
        duration_ns = stamp_ns - self._world.time_ns
        if duration_ns <= 0:
            return
        alive = stamp_ns - self._command_ns <= COMMAND_TIMEOUT_S * NS_PER_S
        if self._began_s is None:
            self._began_s = time.monotonic() - self._world.time_ns / NS_PER_S / (self._pace or 1.0)
        self._world.step(self._command if alive else ZERO_TWIST, duration_ns / NS_PER_S)
        self.touched = self.touched or self._world.touching()
        if self._pace > 0:
            due_s = self._began_s + self._world.time_ns / NS_PER_S / self._pace
            time.sleep(max(0.0, due_s - time.monotonic()))

    def command(self, twist: Twist) -> None:
        """The base's motors are told ``twist`` now."""
        self._command, self._command_ns = twist, self._world.time_ns


@dataclass
class SimCamera:
    """Looks through the world's front camera; each frame is drawn when it is read, at that very time."""

    world: World
    rate_hz: float
    height: int
    width: int
    name: str = FRONT
    _sequence: int = -1
    _last_ns: int | None = None
    _is_open: bool = False

    def open(self) -> None:
        """Begin; nothing can fail here."""
        self._is_open = True

    def close(self) -> None:
        """End."""
        self._is_open = False

    def read(self, timeout_s: float) -> Frame | None:
        """A frame of now, or None before its time has come. CameraError when closed."""
        if not self._is_open:
            raise CameraError(f"camera {self.name} is closed: open it before reading")
        now_ns = self.world.time_ns
        if self._last_ns is not None and now_ns - self._last_ns < NS_PER_S / self.rate_hz * 0.99:
            return None
        self._last_ns = now_ns
        self._sequence += 1
        return Frame(self.world.render(self.height, self.width), now_ns, SimClock.name, self.name, self._sequence)


@dataclass
class SimBase:
    """The world's base; needs the world's clock to move."""

    clock: SimClock
    world: World
    command_timeout_s: float = COMMAND_TIMEOUT_S

    def open(self) -> None:
        """At rest or as the scene has it moving."""

    def close(self) -> None:
        """Stop."""
        self.stop()

    def send(self, twist: Twist) -> Twist:
        """The motors are told this. ValueError, and a stop, when it is not finite."""
        if not twist.is_finite:
            self.stop()
            raise ValueError(f"the base cannot move at {twist}: every component must be finite")
        self.clock.command(twist)
        return twist

    def velocity(self) -> Twist:
        """By odometry."""
        return self.world.velocity

    def stop(self) -> None:
        """Zero to the motors."""
        self.clock.command(ZERO_TWIST)
