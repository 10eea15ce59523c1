"""Any base whose firmware speaks the line protocol of docs/serial-protocol.md.

**Who stops it.** The firmware: the protocol asks for a timeout, ``open`` reads it and refuses a base whose timeout is
longer than ``command_timeout_s``. So the wheels stop when the program hangs or dies, when the computer loses power and
when the cable comes off.
"""

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mobile_vla.core import NS_PER_S, ZERO_TWIST, BaseError, Clock, ConfigError, Twist
from mobile_vla.robot.bases import calibration
from mobile_vla.robot.bases.checks import require_finite, require_positive
from mobile_vla.robot.bases.line_protocol import (
    COUNTER,
    SEQUENCES,
    VERSION,
    Complaint,
    Identity,
    LineReader,
    TwistReport,
    WheelReport,
    line,
)
from mobile_vla.robot.bases.periodic import Periodic
from mobile_vla.robot.bases.serial_port import SerialPort
from mobile_vla.robot.kinematics import Kinematics, MecanumKinematics, no_faster_than, omni3, omni4
from mobile_vla.robot.odometry import Pose

ASK_EVERY_S = 0.25
STOP_TRIES, STOP_WAIT_S = 4, 0.06
_SIZES = {
    "twist": (),
    "omni3": ("wheel_radius_m", "base_radius_m"),
    "omni4": ("wheel_radius_m", "base_radius_m"),
    "mecanum": ("wheel_radius_m", "half_length_m", "half_width_m"),
}
_MILLI = 1000.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SerialLine:
    """Settings. ``wheels``: "twist" where the firmware knows its kinematics, else omni3, omni4 or mecanum.

    Sizes in m as those kinematics want them. ``max_wheel_radps`` limits each wheel, all together by one factor.
    ``open_limit_s``: a board that is reset by opening its port needs seconds to start. ``silence_limit_s``: with no
    report, or no command taken, for so long the base counts as gone. ConfigError for values that cannot work.
    """

    port: str = "/dev/ttyACM0"
    baud: int = 115_200
    wheels: str = "twist"
    wheel_radius_m: float | None = None
    base_radius_m: float | None = None
    half_length_m: float | None = None
    half_width_m: float | None = None
    max_wheel_radps: float | None = None
    open_limit_s: float = 5.0
    silence_limit_s: float = 0.5
    command_timeout_s: float = 0.5

    def __post_init__(self) -> None:
        require_positive("serial", self, "open_limit_s", "silence_limit_s", "command_timeout_s")
        if self.wheels not in _SIZES:
            raise ConfigError(
                f"wheels of the base serial is {self.wheels!r}; it needs to be one of {', '.join(_SIZES)}"
            )
        for name in ("wheel_radius_m", "base_radius_m", "half_length_m", "half_width_m", "max_wheel_radps"):
            if getattr(self, name) is not None:
                require_positive("serial", self, name)
            elif name in _SIZES[self.wheels]:
                raise ConfigError(f"the base serial with wheels {self.wheels} needs a {name}: measure it, in metres")

    @cached_property
    def kinematics(self) -> Kinematics | None:
        """None where the firmware has its own."""
        sizes = [getattr(self, name) for name in _SIZES[self.wheels]]
        kinds: dict[str, Callable[..., Kinematics]] = {"omni3": omni3, "omni4": omni4, "mecanum": MecanumKinematics}
        return kinds[self.wheels](*sizes) if sizes else None

    def build(self, clock: Clock) -> "SerialLineBase":
        """A closed base; its measurements are stamped on ``clock``."""
        return SerialLineBase(self, clock)

    def command(self, twist: Twist) -> tuple[str, list[int]]:
        """The line's letter and its whole numbers: mm/s and mrad/s, or each wheel's mrad/s."""
        if self.kinematics is None:
            return "V", [round(value * _MILLI) for value in (twist.vx, twist.vy, twist.wz)]
        speeds = self.kinematics.wheel_speeds(twist)
        if self.max_wheel_radps is not None:
            speeds = no_faster_than(self.max_wheel_radps, speeds)
        return "W", [round(speed * _MILLI) for speed in speeds.tolist()]

    def twist(self, numbers: tuple[int, ...]) -> Twist:
        """The twist of a command's or report's whole numbers; or a displacement, of displacements."""
        if self.kinematics is None:
            return Twist(*(number / _MILLI for number in numbers))
        return self.kinematics.twist(np.array(numbers) / _MILLI) if any(numbers) else ZERO_TWIST

    def really(self, twist: Twist) -> Twist:
        """What ``send`` returns for a twist."""
        return self.twist(tuple(self.command(twist)[1]))

    def runs(self) -> tuple[calibration.Run, ...]:
        """What is driven to calibrate it; ConfigError where only the firmware could be."""
        if self.wheels not in ("omni3", "omni4"):
            raise ConfigError(
                f"a serial base with wheels {self.wheels} has no radii here that could be calibrated: "
                + ("calibrate its firmware" if self.wheels == "twist" else "measure wheel radius and half lengths")
            )
        return calibration.RADIUS_RUNS

    def calibrated(self, measured: calibration.Measured) -> dict[str, float]:
        """The radii that explain what was measured."""
        return calibration.radii(self, measured)


class SerialLineBase:
    """See the module. A base that failed stays so until it is closed and opened again."""

    has_feedback = True

    def __init__(self, settings: SerialLine, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        self._link: _Link | None = None

    @property
    def command_timeout_s(self) -> float:
        """See ``Base``; the firmware's own is no longer, and known once the base was opened."""
        return self._settings.command_timeout_s if self._link is None else self._link.timeout_s

    @property
    def feedback_ns(self) -> int | None:
        """When the last report came."""
        return self._link.measured_ns if self._link else None

    @property
    def odometry(self) -> Pose | None:
        """By the base's encoders, since it was opened."""
        return self._link.pose if self._link else None

    def open(self) -> None:
        """Find the firmware, see that it fits, stop it; else BaseError, within ``open_limit_s`` and a second."""
        if self._link is not None and self._link.fault is None:
            return
        self.close()
        self._link = _Link(self._settings, self._clock)

    def close(self) -> None:
        """Stop, and let the port go."""
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
        """As the base last reported it; zero when closed."""
        return self._link.velocity if self._link else ZERO_TWIST

    def stop(self) -> None:
        """Ask for a stop until the base has taken it, four times at most."""
        if self._link is not None:
            self._link.stop()


class _Link:
    """An open base: the port, the thread that listens, what it heard."""

    def __init__(self, settings: SerialLine, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        self.fault: str | None = None
        self.velocity, self.pose, self.measured_ns = ZERO_TWIST, Pose(), clock.now_ns()
        self._sequence = self._taken = 0
        self._taken_ns = self.measured_ns
        self._origin: Pose | None = None
        self._last: TwistReport | WheelReport | None = None
        self._refused: str | None = None
        self._heard = threading.Condition()
        self._reader = LineReader()
        self._port = SerialPort(settings.port, settings.baud)
        try:
            self.timeout_s = self._identify()
        except BaseException:
            self._port.close()
            raise
        self.measured_ns = clock.now_ns()
        self._listener = Periodic("serial base", 0.0, self._listen)
        self.stop()

    def send(self, twist: Twist) -> Twist:
        letter, numbers = self._settings.command(twist)
        with self._heard:
            now_ns = self._clock.now_ns()
            if self._taken == self._sequence:
                self._taken_ns = now_ns
            self._judge(now_ns)
        self._say(letter, *numbers)
        return self._settings.twist(tuple(numbers))

    def stop(self) -> None:
        try:
            for _ in range(STOP_TRIES):
                self._say("S")
                with self._heard:
                    if self._heard.wait_for(lambda: self._taken == self._sequence, STOP_WAIT_S):
                        return
        except BaseError:
            pass  # gone: its firmware stops it
        _log.warning("%s did not confirm the stop", self._settings.port)

    def close(self) -> None:
        self.stop()
        self._listener.close()
        self._port.close()

    def _judge(self, now_ns: int) -> None:
        limit_s = self._settings.silence_limit_s
        if self.fault is None and now_ns - self.measured_ns > limit_s * NS_PER_S:
            self.fault = f"{self._settings.port} reported nothing for {limit_s} s: check the base's power and cable"
        if self.fault is None and now_ns - self._taken_ns > limit_s * NS_PER_S:
            self.fault = (
                f"{self._settings.port} reports but has taken no command for {limit_s} s: check the line from the "
                "computer to the base"
            )
        if self.fault is not None:
            raise BaseError(self.fault)

    def _say(self, letter: str, *numbers: int) -> None:
        with self._heard:
            self._sequence = self._sequence % (SEQUENCES - 1) + 1  # 0 is what a base says that has taken none yet
            words = line(letter, *numbers, self._sequence)
        try:
            self._port.write(words)
        except BaseError as error:
            self.fault = self.fault or str(error)
            raise BaseError(self.fault) from error

    def _identify(self) -> float:
        """Ask until the firmware says who it is; its timeout in s."""
        end_s = time.monotonic() + self._settings.open_limit_s
        while (now_s := time.monotonic()) < end_s:
            self._port.write(line("?", VERSION, 0))
            again_s = min(end_s, now_s + ASK_EVERY_S)
            while (left_s := again_s - time.monotonic()) > 0:
                for report in self._reader.feed(self._port.read(left_s)):
                    if isinstance(report, Identity):
                        return self._fitting(report)
        raise BaseError(
            f"nothing on {self._settings.port} said in {self._settings.open_limit_s} s that it is a base: check port, "
            f"baud rate ({self._settings.baud}) and firmware (docs/serial-protocol.md)"
        )

    def _fitting(self, identity: Identity) -> float:
        settings, who = self._settings, f"the firmware {identity.name} on {self._settings.port}"
        if identity.version != VERSION:
            raise BaseError(f"{who} speaks version {identity.version} of the protocol; this program needs {VERSION}")
        mode = "twist" if settings.kinematics is None else "wheels"
        if identity.mode != mode:
            raise BaseError(
                f"{who} takes {identity.mode} commands, and wheels is set to {settings.wheels!r}: change it"
            )
        if settings.kinematics is not None and identity.wheels != settings.kinematics.wheels:
            raise BaseError(f"{who} has {identity.wheels} wheels, and wheels is set to {settings.wheels!r}: change it")
        if not 0 < identity.timeout_ms <= settings.command_timeout_s * _MILLI:
            raise BaseError(
                f"{who} stops {identity.timeout_ms} ms after the last command; it needs to do so within "
                f"{settings.command_timeout_s * _MILLI:.0f} ms: change its timeout, or command_timeout_s"
            )
        return identity.timeout_ms / _MILLI

    def _listen(self) -> bool:
        try:
            reports = self._reader.feed(self._port.read(0.05))
        except BaseError as error:
            self.fault = self.fault or str(error)
            return False
        with self._heard:
            for report in reports:
                self._hear(report)
            self._heard.notify_all()
        return True

    def _hear(self, report: object) -> None:
        if isinstance(report, Complaint):
            if report.stops:
                self.fault = self.fault or f"the base on {self._settings.port} reports {report.code}: {report.words}"
            if report.code != self._refused:
                _log.warning("the base on %s reports %s: %s", self._settings.port, report.code, report.words)
            self._refused = report.code
        elif isinstance(report, TwistReport) and self._settings.kinematics is None:
            self._measured(report, report.velocity)
            x, y, yaw = (number / _MILLI for number in report.pose)
            own = Pose(x, y, math.remainder(yaw, math.tau))
            if self._origin is None:
                self._origin = self.pose.at(own.inverse())
            self.pose = self._origin.at(own)
            self._last = report
        elif isinstance(report, WheelReport) and self._settings.kinematics is not None:
            if len(report.speeds) != self._settings.kinematics.wheels:
                return
            self._measured(report, report.speeds)
            if isinstance(self._last, WheelReport):
                pairs = zip(report.angles, self._last.angles, strict=True)
                turned = tuple((b - a + COUNTER // 2) % COUNTER - COUNTER // 2 for b, a in pairs)
                self.pose = self.pose.after(self._settings.twist(turned))
            self._last = report

    def _measured(self, report: TwistReport | WheelReport, velocity: tuple[int, ...]) -> None:
        self.velocity, self.measured_ns = self._settings.twist(velocity), self._clock.now_ns()
        if report.sequence != self._taken:
            self._taken, self._taken_ns, self._refused = report.sequence, self.measured_ns, None
        if self._last is not None and (report.stamp_ms - self._last.stamp_ms) % COUNTER > COUNTER // 2:
            self.fault = self.fault or f"the base on {self._settings.port} was switched on again: open it again"
