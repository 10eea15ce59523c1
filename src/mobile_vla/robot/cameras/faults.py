"""What can go wrong with a camera, as settings and on demand: for the virtual test pattern."""

import threading
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from mobile_vla.core import ConfigError
from mobile_vla.robot.cameras.reader import require_positive

FaultKind: TypeAlias = Literal["freeze", "stutter", "drop", "silence", "tear", "black", "unplug"]
KINDS: tuple[FaultKind, ...] = get_args(FaultKind)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault and when it holds, in seconds since the camera was opened; ``for_s`` None: until it is closed.

    - freeze: the last picture again and again, with new numbers and stamps, as a hung sensor behind a live driver.
    - stutter: pictures are held back and come together every ``hold_s`` seconds, with their true stamps.
    - drop: a ``share`` of the pictures is lost, by chance.
    - silence: nothing comes; the device does not say why.
    - tear: the lower part of each picture is that of the one before.
    - black: no light; the noise stays.
    - unplug: the device is gone, and cannot be opened.
    """

    kind: FaultKind
    after_s: float = 0.0
    for_s: float | None = None
    share: float = 0.5
    hold_s: float = 0.5

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"there is no fault {self.kind!r}; known are {', '.join(KINDS)}")
        if not 0 <= self.after_s < float("inf"):
            raise ConfigError(f"after_s is {self.after_s}; it needs to be zero or more seconds")
        if self.for_s is not None:
            require_positive(for_s=self.for_s)
        if not 0 < self.share <= 1:
            raise ConfigError(f"share is {self.share}; it needs to be above 0 and at most 1")
        require_positive(hold_s=self.hold_s)

    def holds_at(self, time_s: float) -> bool:
        """Whether it holds so long after the camera was opened."""
        return time_s >= self.after_s and (self.for_s is None or time_s < self.after_s + self.for_s)


class Faults:
    """The faults of one camera: those of its settings, and those that someone begins and ends; any thread may."""

    def __init__(self, scheduled: tuple[Fault, ...] = ()) -> None:
        self._lock = threading.Lock()
        self._scheduled = scheduled
        self._begun: list[Fault] = []
        self._ended_s: dict[FaultKind, float] = {}

    def begin(self, fault: Fault) -> None:
        """``fault`` holds from its ``after_s`` on, beside others."""
        with self._lock:
            self._begun.append(fault)

    def end(self, kind: FaultKind, time_s: float) -> None:
        """Every fault of this kind that began before ``time_s`` is over."""
        with self._lock:
            self._ended_s[kind] = time_s

    def forget_begun(self) -> None:
        """Only the scheduled ones remain, all of them to come."""
        with self._lock:
            self._begun.clear()
            self._ended_s.clear()

    def at(self, time_s: float) -> dict[FaultKind, Fault]:
        """What holds at this time; of several of one kind the one that began last."""
        with self._lock:
            faults = sorted((*self._scheduled, *self._begun), key=lambda fault: fault.after_s)
            ended = dict(self._ended_s)
        return {
            fault.kind: fault
            for fault in faults
            if fault.holds_at(time_s) and fault.after_s >= ended.get(fault.kind, 0.0)
        }
