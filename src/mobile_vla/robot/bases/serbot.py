"""Serbot: three omni wheels on a CAN bus.

Facts, from public copies of the maker's driver (class ``Driving``): id 0x010, payload ``[0x07, left, right, rear]``
where 0x07 means all three wheels, one byte a wheel, 100 at rest, at most 80 away from it. In that driver
``left = 100 - (Vx/2 + sqrt(3)/2 Vy)``, ``right = 100 - (Vx/2 - sqrt(3)/2 Vy)``, ``rear = 100 + Vx`` with
``Vx = w sin(a)``, ``Vy = w cos(a)``; 0 degrees is forward and ``spinLeft`` raises all bytes. So a byte above 100 turns
the base counter-clockwise, its Vy is our vx and its Vx is minus our vy: the wheels are those of ``omni3``. The driver
adds an offset of 10 (turning) to 28 (diagonal) to every speed that is not zero: below about 20 the wheels do not turn.
Radii and speeds are not published; ``mobile-vla calibrate`` finds them.

**No feedback.** The public protocol reports nothing. ``velocity`` is therefore a first-order lag behind what was sent:
an estimate that takes its time to reach zero, so that "it stands" is not said at the very moment of the command.
It does not see a wheel that is held, a flat battery or a slip. ``has_feedback`` is False and ``feedback_ns`` None.

**Who stops it.** Whether the motor board has a timeout is not published, so none is counted on. A thread sends the stop
when no ``send`` comes for ``command_timeout_s``; with socketcan a process of its own (``guard``) does so 0.05 s
later when this one hangs, is stopped or is killed. Nothing stops the wheels when the computer loses power or the CAN
cable comes off: keep the switch of the battery within reach.
"""

import logging
import math
import threading
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import can

from mobile_vla.core import NS_PER_S, ZERO_TWIST, BaseError, Clock, ConfigError, Twist
from mobile_vla.robot.bases import calibration, can_bus
from mobile_vla.robot.bases.checks import require_finite, require_positive
from mobile_vla.robot.bases.guard import Guard
from mobile_vla.robot.bases.lag import Lag
from mobile_vla.robot.bases.periodic import Periodic
from mobile_vla.robot.kinematics import OmniKinematics, no_faster_than, omni3

ALL_WHEELS = 0x07
REST = 100
FARTHEST = 80
GUARD_MARGIN_S = 0.05
STOP_TIMES = 3

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Serbot:
    """Settings. Radii in m. A wheel's byte is ``100 +- (dead_band + units_per_radps * speed)``.

    ``interface`` and ``channel`` as python-can names them. ``fd``: send CAN FD frames; a classic frame, the default,
    is understood on a CAN FD bus too (ISO 11898-1). ``lag_s`` of the estimated velocity. ConfigError for values that
    cannot work.
    """

    wheel_radius_m: float
    base_radius_m: float
    units_per_radps: float
    dead_band: float = 20.0
    interface: str = can_bus.SOCKETCAN
    channel: str = "can0"
    fd: bool = False
    can_id: int = 0x010
    lag_s: float = 0.15
    command_timeout_s: float = 0.5

    UNCALIBRATED: ClassVar[dict[str, float]] = {"units_per_radps": 8.0}
    """What ``mobile-vla calibrate`` begins with where a setting is missing; not to be driven with."""

    def __post_init__(self) -> None:
        require_positive("serbot", self, "units_per_radps", "lag_s", "command_timeout_s")
        if not 0 <= self.dead_band < FARTHEST:
            raise ConfigError(f"dead_band is {self.dead_band}; it needs to be at least 0 and below {FARTHEST} units")
        if not 0 <= self.can_id <= 0x7FF:
            raise ConfigError(f"can_id is {self.can_id:#x}; it needs to be a standard id of at most 0x7ff")
        require_positive("serbot", self, "wheel_radius_m", "base_radius_m")

    def build(self, clock: Clock) -> "SerbotBase":
        """A closed base whose estimate lives in the time of ``clock``."""
        return SerbotBase(self, clock)

    @cached_property
    def kinematics(self) -> OmniKinematics:
        """Left, rear, right; the bytes stand in the order left, right, rear."""
        return omni3(self.wheel_radius_m, self.base_radius_m)

    @property
    def max_wheel_radps(self) -> float:
        """The speed of a wheel 80 units from rest."""
        return (FARTHEST - self.dead_band) / self.units_per_radps

    def wheel_bytes(self, twist: Twist) -> tuple[int, int, int]:
        """Left, right, rear; too fast a twist is slowed on all wheels by one factor."""
        speeds = no_faster_than(self.max_wheel_radps, self.kinematics.wheel_speeds(twist))
        left, rear, right = (self._byte(speed) for speed in speeds.tolist())
        return left, right, rear

    def twist(self, wheel_bytes: tuple[int, int, int]) -> Twist:
        """How the base moves under these bytes, by the settings."""
        left, right, rear = (self._speed(byte) for byte in wheel_bytes)
        return self.kinematics.twist([left, rear, right]) if any((left, rear, right)) else ZERO_TWIST

    def really(self, twist: Twist) -> Twist:
        """What ``send`` returns for a twist."""
        return self.twist(self.wheel_bytes(twist))

    def message(self, wheel_bytes: tuple[int, int, int]) -> can.Message:
        """What goes onto the bus."""
        data = bytes((ALL_WHEELS, *wheel_bytes))
        return can.Message(arbitration_id=self.can_id, data=data, is_extended_id=False, is_fd=self.fd)

    def runs(self) -> tuple[calibration.Run, ...]:
        """Forward at two speeds, which tell dead band from gain, and a turn."""
        slow, fast = ((units - self.dead_band) / self.units_per_radps for units in (self.dead_band + 8, 56.0))
        forward = self.kinematics.twist([-1.0, 0.0, 1.0]).vx
        turn = self.kinematics.twist([1.0, 1.0, 1.0]).wz
        return (
            calibration.Run("x", Twist(forward * slow, 0.0, 0.0), 6.0),
            calibration.Run("x_fast", Twist(forward * fast, 0.0, 0.0), 3.0),
            calibration.Run("yaw", Twist(0.0, 0.0, turn * fast), 6.0),
        )

    def calibrated(self, measured: calibration.Measured) -> dict[str, float]:
        """Gain, dead band and base radius; the wheel radius is taken as measured with a calliper.

        ConfigError when the faster run was not faster, or the turn went the other way.
        """
        slow, fast, turn = measured["x"], measured["x_fast"], measured["yaw"]
        units = [self._units(run.sent) for run in (slow, fast)]
        per_metre = float(self.kinematics.wheel_speeds(Twist(1.0, 0.0, 0.0))[2])
        speeds = [run.measured / run.duration_s * per_metre for run in (slow, fast)]
        if not 0 < speeds[0] < speeds[1]:
            raise ConfigError(
                f"the slow run went {slow.measured / slow.duration_s:.3f} m/s and the fast one "
                f"{fast.measured / fast.duration_s:.3f} m/s: the fast one has to be faster, both forward; measure again"
            )
        gain = (units[1] - units[0]) / (speeds[1] - speeds[0])
        dead_band = units[0] - gain * speeds[0]
        wheel_speed = (self._units(turn.sent) - dead_band) / gain
        turned = math.radians(turn.measured) / turn.duration_s
        if not (0 <= dead_band < FARTHEST and turned > 0 and wheel_speed > 0):
            raise ConfigError(
                f"a dead band of {dead_band:.1f} units and a turn of {turn.measured:g} degrees cannot be: "
                "measure again, left turns as positive degrees"
            )
        return {
            "units_per_radps": round(gain, 4),
            "dead_band": round(dead_band, 2),
            "base_radius_m": round(wheel_speed * self.wheel_radius_m / turned, 5),
        }

    def _byte(self, speed_radps: float) -> int:
        units = round(self.dead_band + abs(speed_radps) * self.units_per_radps)
        turns = abs(speed_radps) * self.units_per_radps >= 0.5  # less than half a unit is rest
        return REST + (units if speed_radps > 0 else -units) * turns

    def _speed(self, byte: int) -> float:
        units = byte - REST
        speed = max(0.0, abs(units) - self.dead_band) / self.units_per_radps
        return speed if units > 0 else -speed

    def _units(self, twist: Twist) -> float:
        """How far from rest the right wheel's byte is."""
        return float(self.wheel_bytes(twist)[1] - REST)


class SerbotBase:
    """See the module. A base that failed stays so until it is closed and opened again."""

    has_feedback = False
    feedback_ns: int | None = None

    def __init__(self, settings: Serbot, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        self._link: _Link | None = None

    @property
    def command_timeout_s(self) -> float:
        """See ``Base`` and, for who keeps it, the module."""
        return self._settings.command_timeout_s

    def open(self) -> None:
        """Open the bus and send the stop; BaseError says what is wrong with the bus. Nobody answers on it."""
        if self._link is not None and self._link.fault is None:
            return
        self.close()
        self._link = _Link(self._settings, self._clock)

    def close(self) -> None:
        """Stop, and let the bus go."""
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def send(self, twist: Twist) -> Twist:
        """See ``Base``."""
        require_finite(self, twist)
        if self._link is None:
            raise BaseError(f"the base on {self._settings.channel} is closed: open it first")
        return self._link.send(twist)

    def velocity(self) -> Twist:
        """An estimate; see the module for why, and what it does not see."""
        return self._link.estimate() if self._link else ZERO_TWIST

    def stop(self) -> None:
        """The stop, three times: nobody confirms it."""
        if self._link is not None:
            self._link.stop()


class _Link:
    """An open bus, the thread that watches, the guard."""

    def __init__(self, settings: Serbot, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        self.fault: str | None = None
        self._lock = threading.Lock()
        self._lag = Lag(settings.lag_s, clock.now_ns())
        self._sent_ns: int | None = None
        self._bus = can_bus.CanBus(settings.interface, settings.channel, settings.fd)
        self._rest = settings.message((REST, REST, REST))
        try:
            self._put(self._rest)
        except BaseError:
            self._bus.close()
            raise
        self._guard = self._guarded()
        self._watch = Periodic("serbot", settings.command_timeout_s / 20, self._round)

    def send(self, twist: Twist) -> Twist:
        if self.fault is not None:
            raise BaseError(self.fault)
        wheel_bytes = self._settings.wheel_bytes(twist)
        sent = self._settings.twist(wheel_bytes)
        now_ns = self._clock.now_ns()
        with self._lock:
            self._put(self._settings.message(wheel_bytes))
            self._sent_ns = now_ns
            self._lag.want(sent, now_ns, now_ns + round(self._settings.command_timeout_s * NS_PER_S))
        if self._guard is not None and not self._guard.alive():
            self.fault = "the guard process that stops the wheels of a dead program has ended: open the base again"
            self.stop()
            raise BaseError(self.fault)
        return sent

    def estimate(self) -> Twist:
        with self._lock:
            self._lag.play(self._clock.now_ns())
            return self._lag.velocity

    def stop(self) -> None:
        with self._lock:
            self._sent_ns = None
            now_ns = self._clock.now_ns()
            self._lag.want(ZERO_TWIST, now_ns, now_ns)
            for _ in range(STOP_TIMES):
                try:
                    self._put(self._rest)
                except BaseError as error:
                    _log.error("the stop was not sent: %s", error)
                    return

    def close(self) -> None:
        self._watch.close()
        self.stop()
        if self._guard is not None:
            self._guard.close()
        self._bus.close()

    def _round(self) -> None:
        limit_ns = self._settings.command_timeout_s * NS_PER_S
        with self._lock:
            late = self._sent_ns is not None and self._clock.now_ns() - self._sent_ns > limit_ns
        if late:
            _log.warning("no command for %s s: the wheels are stopped", self._settings.command_timeout_s)
            self.stop()

    def _put(self, message: can.Message) -> None:
        try:
            self._bus.send(message)
        except BaseError as error:
            self.fault = self.fault or str(error)
            raise

    def _guarded(self) -> Guard | None:
        """Only a CAN socket is a file that another process can write a frame to."""
        if self._settings.interface != can_bus.SOCKETCAN:
            return None
        limit_s = self._settings.command_timeout_s + GUARD_MARGIN_S
        return Guard(self._bus.fileno(), [can_bus.kernel_frame(self._rest)], limit_s)
