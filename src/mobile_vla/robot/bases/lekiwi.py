"""LeKiwi: three omni wheels on Feetech STS3215 servos, ids 7, 8, 9 as LeRobot sets them up.

The wheels' ids and angles, radii and the limit of 3000 steps/s are those of LeRobot, ``lerobot/robots/lekiwi``. The
servos of the arm (1 to 6) may share the bus; they are left alone.

**Who stops it.** An STS3215 in wheel mode keeps its velocity for ever: it has no timeout of its own, and LeKiwi's 0.5 s
stand in LeRobot's program, not in the robot. Here a thread stops the wheels when no ``send`` comes for
``command_timeout_s``, and a process of its own (``guard``) does so 0.05 s later when this one hangs, is stopped or is
killed. Nothing stops the wheels when the computer loses power or the cable comes off: keep the switch of the battery
within reach.
"""

import contextlib
import logging
import math
import threading
import time
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mobile_vla.core import NS_PER_S, ZERO_TWIST, BaseError, Clock, ConfigError, Twist
from mobile_vla.robot.bases import calibration, feetech
from mobile_vla.robot.bases.checks import require_finite, require_positive
from mobile_vla.robot.bases.guard import Guard
from mobile_vla.robot.bases.periodic import Periodic
from mobile_vla.robot.bases.serial_port import SerialPort
from mobile_vla.robot.kinematics import OmniKinematics, no_faster_than, omni3
from mobile_vla.robot.odometry import Pose, moved

GUARD_MARGIN_S = 0.05
REST_LIMIT_S, STANDING_STEPS = 0.5, 20
SET_UP_LIMIT_S, TRIES = 0.3, 3
_STEPS_PER_RAD = feetech.STEPS_PER_TURN / math.tau
_FASTEST_STEPS = 32767

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lekiwi:
    """Settings. ``port``: best one of /dev/serial/by-id. ``servos``: ids of front left, rear, front right wheel.

    ``max_steps_per_s`` limits each wheel, all together by one factor. ``poll_hz``: how often the wheels are measured;
    ``answer_limit_s``: how long they may take to answer; they need 1 ms, the computer and its USB may need more.
    ``silence_limit_s``: with no whole answer of all wheels for so long the base counts as gone. ConfigError for values
    that cannot work.
    """

    port: str = "/dev/ttyACM0"
    baud: int = 1_000_000
    servos: tuple[int, ...] = (7, 8, 9)
    wheel_radius_m: float = 0.05
    base_radius_m: float = 0.125
    max_steps_per_s: int = 3000
    poll_hz: float = 50.0
    answer_limit_s: float = 0.02
    silence_limit_s: float = 0.5
    command_timeout_s: float = 0.5

    def __post_init__(self) -> None:
        require_positive("lekiwi", self, "poll_hz", "answer_limit_s", "silence_limit_s", "command_timeout_s")
        if len(set(self.servos)) != 3 or not all(0 <= servo < feetech.BROADCAST for servo in self.servos):
            raise ConfigError(f"lekiwi needs three different servos with ids of 0 to 253, not {self.servos}")
        if not 0 < self.max_steps_per_s <= _FASTEST_STEPS:
            raise ConfigError(f"max_steps_per_s is {self.max_steps_per_s}; it needs to be within 1..{_FASTEST_STEPS}")
        require_positive("lekiwi", self, "wheel_radius_m", "base_radius_m")

    @cached_property
    def kinematics(self) -> OmniKinematics:
        """Front left, rear, front right."""
        return omni3(self.wheel_radius_m, self.base_radius_m)

    def build(self, clock: Clock) -> "LekiwiBase":
        """A closed base; its measurements are stamped on ``clock``."""
        return LekiwiBase(self, clock)

    def steps(self, twist: Twist) -> list[int]:
        """What each servo is told for a twist, steps per second."""
        speeds = self.kinematics.wheel_speeds(twist) * _STEPS_PER_RAD
        return [round(speed) for speed in no_faster_than(self.max_steps_per_s, speeds).tolist()]

    def twist(self, steps: NDArray[np.int64]) -> Twist:
        """How the base moves when its wheels make so many steps per second; or how far, for so many steps."""
        return omni3(self.wheel_radius_m, self.base_radius_m).twist(
            np.asarray(steps, dtype=np.float64) / _STEPS_PER_RAD
        )

    def really(self, twist: Twist) -> Twist:
        """What ``send`` returns for a twist."""
        steps = self.steps(twist)
        return self.twist(np.array(steps)) if any(steps) else ZERO_TWIST

    def runs(self) -> tuple[calibration.Run, ...]:
        """What is driven to calibrate it."""
        return calibration.RADIUS_RUNS

    def calibrated(self, measured: calibration.Measured) -> dict[str, float]:
        """The radii that explain what was measured."""
        return calibration.radii(self, measured)


class LekiwiBase:
    """See the module. A base that failed stays so until it is closed and opened again."""

    has_feedback = True

    def __init__(self, settings: Lekiwi, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        self._link: _Link | None = None

    @property
    def command_timeout_s(self) -> float:
        """See ``Base`` and, for who keeps it, the module."""
        return self._settings.command_timeout_s

    @property
    def feedback_ns(self) -> int | None:
        """When all three wheels were last measured."""
        return self._link.measured_ns if self._link else None

    @property
    def odometry(self) -> Pose | None:
        """By the positions of the wheels, since it was opened."""
        return self._link.pose if self._link else None

    def open(self) -> None:
        """Wheel mode, torque on, at rest; BaseError names what does not answer. Within about 3 s."""
        if self._link is not None and self._link.fault is None:
            return
        self.close()
        self._link = _Link(self._settings, self._clock)

    def close(self) -> None:
        """Stop, torque off."""
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def send(self, twist: Twist) -> Twist:
        """See ``Base``."""
        require_finite(self, twist)
        if self._link is None:
            raise BaseError(f"the base on {self._settings.port} is closed: open it first")
        return self._link.send(twist)

    def velocity(self) -> Twist:
        """By the servos' encoders; zero when closed."""
        return self._link.velocity if self._link else ZERO_TWIST

    def stop(self) -> None:
        """Zero to all wheels, with their word for it where they give it."""
        if self._link is not None:
            self._link.stop()


class _Link:
    """An open base: the port, the thread that measures and watches, the guard."""

    def __init__(self, settings: Lekiwi, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        self.fault: str | None = None
        self.velocity, self.pose, self.measured_ns = ZERO_TWIST, Pose(), clock.now_ns()
        self.steps_per_s = 0
        self._positions: NDArray[np.int64] | None = None
        self._sent_ns: int | None = None
        self._complaints: dict[int, tuple[feetech.Fault, ...]] = {}
        self._lock = threading.Lock()
        self._port = SerialPort(settings.port, settings.baud)
        self._bus = feetech.ServoBus(self._port, max(SET_UP_LIMIT_S, settings.answer_limit_s), TRIES)
        self._halt = feetech.sync_write(feetech.GOAL_VELOCITY, {servo: bytes(2) for servo in settings.servos})
        try:
            self._set_up()
            self._bus = feetech.ServoBus(self._port, settings.answer_limit_s, TRIES)
            self._measure()
        except BaseException:
            self._port.close()
            raise
        self._guard = Guard(self._port.fd, [self._halt], settings.command_timeout_s + GUARD_MARGIN_S)
        self._poll = Periodic("lekiwi", 1 / settings.poll_hz, self._round)

    def send(self, twist: Twist) -> Twist:
        now_ns = self._clock.now_ns()
        if now_ns - self.measured_ns > 2 * self._settings.silence_limit_s * NS_PER_S:  # not even the thread noticed
            self._fail(f"the thread that measures the wheels on {self._settings.port} hangs: open the base again")
        if self.fault is not None:
            raise BaseError(self.fault)
        steps = self._settings.steps(twist)
        goals = {servo: feetech.signed_bytes(each) for servo, each in zip(self._settings.servos, steps, strict=True)}
        with self._lock:
            self._sent_ns = now_ns
        try:
            self._bus.tell(feetech.sync_write(feetech.GOAL_VELOCITY, goals))
        except BaseError as error:
            self._fail(str(error))
            raise
        if not self._guard.alive():
            self._fail("the guard process that stops the wheels of a dead program has ended: open the base again")
            self.stop()
            raise BaseError(self.fault)
        return self._settings.really(twist)

    def stop(self) -> None:
        with self._lock:
            self._sent_ns = None
        try:
            self._bus.tell(self._halt)
            for servo in self._settings.servos:
                if not self._bus.write(servo, feetech.GOAL_VELOCITY, bytes(2)):
                    _log.warning("servo %d on %s did not confirm the stop", servo, self._settings.port)
        except BaseError as error:
            self._fail(str(error))

    def close(self) -> None:
        """Torque goes off when the wheels stand: without it they would roll on."""
        self.stop()
        end_s = time.monotonic() + REST_LIMIT_S
        while self.fault is None and self.steps_per_s > STANDING_STEPS and time.monotonic() < end_s:
            time.sleep(1 / self._settings.poll_hz)
        self._poll.close()
        limp = feetech.sync_write(feetech.TORQUE_ENABLE, {servo: bytes(1) for servo in self._settings.servos})
        with contextlib.suppress(BaseError):  # gone, and said so
            self._bus.tell(limp)
        self._guard.close()
        self._port.close()

    def _set_up(self) -> None:
        """At rest first: a servo may have kept the velocity of a program that died."""
        self._bus.tell(self._halt)
        absent = [servo for servo in self._settings.servos if not self._bus.ping(servo)]
        if absent:
            raise feetech.missing(self._settings.port, absent)
        for servo in self._settings.servos:
            if self._bus.read(servo, feetech.OPERATING_MODE, 1) != bytes((feetech.VELOCITY_MODE,)):
                # in the EEPROM, which takes no write while it is locked, and wears by writing
                self._write(servo, feetech.TORQUE_ENABLE, 0)
                self._write(servo, feetech.LOCK, 0)
                self._write(servo, feetech.OPERATING_MODE, feetech.VELOCITY_MODE)
                self._write(servo, feetech.LOCK, 1)
            if not self._bus.write(servo, feetech.GOAL_VELOCITY, bytes(2)):
                raise feetech.missing(self._settings.port, [servo])
            self._write(servo, feetech.ACCELERATION, 254)
            self._write(servo, feetech.TORQUE_ENABLE, 1)

    def _write(self, servo: int, address: int, value: int) -> None:
        if not self._bus.write(servo, address, bytes((value,))):
            raise feetech.missing(self._settings.port, [servo])

    def _round(self) -> None:
        """Measure, and stop the wheels when nobody has asked for anything for too long."""
        if self.fault is not None:
            return
        try:
            self._measure()
        except BaseError as error:
            self._fail(str(error))
            return
        now_ns = self._clock.now_ns()
        if now_ns - self.measured_ns > self._settings.silence_limit_s * NS_PER_S:
            self._fail(str(feetech.missing(self._settings.port, self._settings.servos)))
            self.stop()
            return
        with self._lock:
            late = self._sent_ns is not None and now_ns - self._sent_ns > self._settings.command_timeout_s * NS_PER_S
        if late:
            _log.warning("no command for %s s: the wheels are stopped", self._settings.command_timeout_s)
            self.stop()

    def _measure(self) -> None:
        servos = self._settings.servos
        answers = self._bus.read_all(servos, feetech.PRESENT_POSITION, feetech.PRESENT_BYTES)
        if len(answers) < len(servos):
            return
        now_ns = self._clock.now_ns()
        speeds = np.array([feetech.signed_value(answers[servo].data[2:]) for servo in servos])
        positions = np.array([feetech.signed_value(answers[servo].data[:2]) for servo in servos])
        if np.abs(speeds).max() > 2 * self._settings.max_steps_per_s:
            return  # one damaged answer in 256 passes its checksum
        velocity = self._settings.twist(speeds)
        if self._positions is not None:
            seconds = (now_ns - self.measured_ns) / NS_PER_S
            self.pose = self.pose.after(self._displacement(positions - self._positions, velocity, seconds))
        self._positions, self.velocity, self.measured_ns = positions, velocity, now_ns
        self.steps_per_s = int(np.abs(speeds).max())
        self._complain({servo: status.faults for servo, status in answers.items() if status.faults})

    def _displacement(self, steps: NDArray[np.int64], velocity: Twist, seconds: float) -> Twist:
        """m, m, rad, by what the wheels have turned since the last time; that is known modulo one turn.

        By the velocity after a gap in which they may have turned further, and where an answer cannot be true.
        """
        half = feetech.STEPS_PER_TURN // 2
        turned = (steps + half) % feetech.STEPS_PER_TURN - half
        most = 2 * self._settings.max_steps_per_s * seconds + STANDING_STEPS
        if most > half or np.abs(turned).max() > most:
            return moved(velocity, seconds)
        return self._settings.twist(turned)

    def _complain(self, faults: dict[int, tuple[feetech.Fault, ...]]) -> None:
        for servo, each in faults.items():
            if self._complaints.get(servo) != each:
                _log.warning("servo %d on %s reports %s", servo, self._settings.port, " and ".join(each))
        self._complaints = faults

    def _fail(self, sentence: str) -> None:
        if self.fault is None:
            _log.error("%s", sentence)
        self.fault = self.fault or sentence
