"""A virtual camera: a moving test pattern whose pictures carry their number, and which fails on demand."""

import time
from dataclasses import dataclass, field

from mobile_vla.core import NS_PER_S, CameraError, Clock, ConfigError
from mobile_vla.robot.cameras.drawing import SMALLEST, Drawing, was_lost
from mobile_vla.robot.cameras.faults import Fault, FaultKind, Faults
from mobile_vla.robot.cameras.reader import DeviceSettings, Lost, ReaderCamera, Shot, from_monotonic, require_positive

_KEPT_S = 0.25
"""How long the virtual device keeps a picture that nobody takes."""


@dataclass(frozen=True, kw_only=True)
class Pattern(DeviceSettings):
    """``faults`` begin and end by themselves, e.g. ``faults: [{kind: freeze, after_s: 3, for_s: 2}]``."""

    width: int = 640
    height: int = 480
    rate_hz: float = 30.0
    seed: int = 1
    faults: tuple[Fault, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(rate_hz=self.rate_hz)
        if self.width < SMALLEST[0] or self.height < SMALLEST[1]:
            raise ConfigError(
                f"the test pattern cannot be {self.width}x{self.height}: the least is {SMALLEST[0]}x{SMALLEST[1]}"
            )

    def build(self, clock: Clock) -> "PatternCamera":
        """The camera, closed."""
        return PatternCamera(self, clock)


@dataclass
class VirtualDevice:
    """The device that lives on while the camera looks for it: its faults, its pictures and its time."""

    settings: Pattern
    faults: Faults
    drawing: Drawing
    began_ns: int = field(default_factory=time.monotonic_ns)

    def time_s(self, stamp_ns: int) -> float:
        """Since the camera was opened; ``stamp_ns`` on the machine's monotonic clock."""
        return (stamp_ns - self.began_ns) / NS_PER_S

    def capture_s(self, number: int) -> float:
        """When this picture is taken, since the camera was opened."""
        return number / self.settings.rate_hz

    def arrival_s(self, number: int) -> float | None:
        """When it reaches the computer; None when it never does."""
        capture_s = self.capture_s(number)
        holding = self.faults.at(capture_s)
        drop, stutter = holding.get("drop"), holding.get("stutter")
        if "silence" in holding or "unplug" in holding:
            return None
        if drop is not None and was_lost(self.settings.seed, number, drop.share):
            return None
        if stutter is None:
            return capture_s
        holds = int((capture_s - stutter.after_s) / stutter.hold_s) + 1
        return stutter.after_s + holds * stutter.hold_s

    def shot(self, number: int, clock: Clock) -> Shot:
        """Picture ``number`` as the faults at its capture leave it."""
        capture_s = self.capture_s(number)
        holding = self.faults.at(capture_s)
        shown = number
        if "freeze" in holding:
            shown = min(number, max(0, int(holding["freeze"].after_s * self.settings.rate_hz)))
        if "black" in holding:
            pixels = self.drawing.black(shown)
        elif "tear" in holding and shown > 0:
            pixels = self.drawing.torn(shown, shown - 1)
        else:
            pixels = self.drawing.picture(shown)
        capture_ns = self.began_ns + round(capture_s * NS_PER_S)
        return Shot(pixels, from_monotonic(clock, capture_ns), number)


class PatternCamera(ReaderCamera):
    """The test pattern as a camera. Faults may be begun and ended from any thread while it is open."""

    def __init__(self, settings: Pattern, clock: Clock) -> None:
        self._faults = Faults(settings.faults)
        self._device = VirtualDevice(settings, self._faults, Drawing(settings.width, settings.height, settings.seed))
        super().__init__(
            lambda: PatternSource(self._device, clock),
            clock,
            name=settings.name,
            rate_hz=settings.rate_hz,
            recovery=settings.recovery,
        )

    def open(self) -> None:
        """Open it; where it was closed, time and faults begin anew."""
        if not self.is_open:
            self._faults.forget_begun()
            self._device.began_ns = time.monotonic_ns()
        super().open()

    def begin(self, kind: FaultKind, *, for_s: float | None = None, share: float = 0.5, hold_s: float = 0.5) -> None:
        """A fault of this kind begins now; see ``Fault``."""
        now_s = self._device.time_s(time.monotonic_ns())
        self._faults.begin(Fault(kind, after_s=now_s, for_s=for_s, share=share, hold_s=hold_s))

    def end(self, kind: FaultKind) -> None:
        """Every fault of this kind that holds now is over."""
        self._faults.end(kind, self._device.time_s(time.monotonic_ns()))


class PatternSource:
    """The virtual device as ``ReaderCamera`` reads it."""

    def __init__(self, device: VirtualDevice, clock: Clock) -> None:
        self._device, self._clock = device, clock
        self._next = 0

    def open(self) -> None:
        """Begin with the next picture to be taken; CameraError while it is unplugged."""
        self._require_plugged(CameraError)
        now_s = self._now_s()
        self._next = int(now_s * self._device.settings.rate_hz) + 1 if now_s > self._device.capture_s(1) else 0

    def take(self, timeout_s: float) -> Shot | None:
        """The next picture once it has arrived; for who comes late, the device has dropped what it could not keep."""
        until_s = self._now_s() + timeout_s
        while True:
            self._require_plugged(Lost)
            arrival_s = self._device.arrival_s(self._next)
            due_s = self._device.capture_s(self._next) if arrival_s is None else arrival_s
            now_s = self._now_s()
            if due_s > now_s:
                time.sleep(max(0.0, min(due_s, until_s) - now_s))
                if due_s > until_s:
                    return None
                continue  # a fault may have begun meanwhile
            number, self._next = self._next, self._next + 1
            if now_s - due_s > _KEPT_S:
                self._next = max(self._next, int(now_s * self._device.settings.rate_hz))
            elif arrival_s is not None:
                return self._device.shot(number, self._clock)

    def close(self) -> None:
        """Nothing is held."""

    def _now_s(self) -> float:
        return self._device.time_s(time.monotonic_ns())

    def _require_plugged(self, error: type[CameraError]) -> None:
        if "unplug" in self._device.faults.at(self._now_s()):
            raise error(f"camera {self._device.settings.name}: the test pattern is unplugged")
