"""The thread that reads a device, so that whoever asks gets its newest frame and waits for nothing else."""

import dataclasses
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mobile_vla.core import NS_PER_S, CameraError, Clock, ConfigError, Frame, MonotonicClock

RATE_WINDOW_S = 2.0
"""The measured rate is that of the frames captured within this time."""

_TAKE_S = 0.1
"""How long a source may wait for one picture: a closing camera waits for it."""
_CLOSE_LIMIT_S = 5.0
_GRACE_S = 2.0
"""More than ``open_limit_s``, so that a source which keeps the limit itself can say what it waited for."""
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 1.0
_log = logging.getLogger(__name__)


class Lost(CameraError):  # noqa: N818 - it names what happened to the device
    """The device went away or went silent; it may come back."""


@dataclass(frozen=True, slots=True, eq=False)
class Shot:
    """One picture from a device. ``pixels``: RGB uint8 (H, W, 3), written by nobody else from now on.

    ``capture_ns`` on the camera's clock. ``number`` is the device's own count, which shows what it dropped; None where
    it does not count.
    """

    pixels: NDArray[np.uint8]
    capture_ns: int
    number: int | None = None


class Source(Protocol):
    """A device as its reader sees it: opened once, used by one thread, closed, and never opened again."""

    def open(self) -> None:
        """Make ready; CameraError in one sentence when that fails."""
        ...

    def take(self, timeout_s: float) -> Shot | None:
        """The device's next picture, None when none comes within ``timeout_s``.

        Lost when the device may come back, another CameraError when it will not.
        """
        ...

    def close(self) -> None:
        """Let the device go; also after an ``open`` that failed, and twice."""
        ...


@dataclass(frozen=True, slots=True)
class Recovery:
    """What happens when a device goes away.

    A device that gives nothing for ``silent_after_s`` counts as gone (None: never). One that is gone is opened again
    and again for ``recover_for_s`` seconds; during these ``read`` gives None, after them CameraError. ``open_limit_s``:
    how long the first opening may take. ConfigError for times that are not positive (``recover_for_s`` may be 0).
    """

    recover_for_s: float = 10.0
    silent_after_s: float | None = 2.0
    open_limit_s: float = 10.0

    def __post_init__(self) -> None:
        require_positive(open_limit_s=self.open_limit_s)
        if self.silent_after_s is not None:
            require_positive(silent_after_s=self.silent_after_s)
        if not (math.isfinite(self.recover_for_s) and self.recover_for_s >= 0):
            raise ConfigError(f"recover_for_s is {self.recover_for_s}; give seconds, or 0 for no recovery")


@dataclass(frozen=True, kw_only=True)
class DeviceSettings:
    """What cameras that can be unplugged have in common; see ``Recovery``. ``name`` is the ``camera`` of its frames."""

    name: str = "front"
    recover_for_s: float = 10.0
    silent_after_s: float = 2.0
    open_limit_s: float = 10.0

    def __post_init__(self) -> None:
        require_name(self.name)
        _ = self.recovery

    @property
    def recovery(self) -> Recovery:
        """The three times together."""
        return Recovery(self.recover_for_s, self.silent_after_s, self.open_limit_s)


def require_positive(**values: float) -> None:
    """ConfigError for a value that is not positive and finite."""
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{name} is {value}; it needs to be positive and finite")


def require_name(name: str) -> None:
    """ConfigError for a camera without a name."""
    if not name.strip():
        raise ConfigError("the camera's name is empty: give it a word, e.g. front")


def from_monotonic(clock: Clock, stamp_ns: int) -> int:
    """A stamp of the machine's monotonic clock as one of ``clock``."""
    if isinstance(clock, MonotonicClock):
        return stamp_ns
    return clock.now_ns() - (time.monotonic_ns() - stamp_ns)


class _Session:
    """What belongs to one opening: a thread left over from an earlier one can touch nothing of the next."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.changed = threading.Condition()
        self.ready = False
        self.newest: Frame | None = None
        self.failure: CameraError | None = None
        self.stamps: deque[int] = deque(maxlen=1000)
        self.sequence = -1
        self.last_ns: int | None = None

    def fail(self, error: CameraError) -> None:
        with self.changed:
            self.failure = error
            self.changed.notify_all()


class ReaderCamera:
    """A ``Camera`` on any ``Source``: a thread of its own takes every picture, ``read`` gives the newest.

    ``sequence`` counts the pictures of the device, so that gaps are those which it dropped or which nobody read in
    time. A picture whose capture time is not after that of the one before is left out. ``keep_unread``: no picture is
    taken before the last was read, and each is stamped when it is read, for sources that are not live. ``make_source``
    is called for every opening.
    """

    def __init__(
        self,
        make_source: Callable[[], Source],
        clock: Clock,
        *,
        name: str,
        rate_hz: float,
        recovery: Recovery,
        keep_unread: bool = False,
    ) -> None:
        self.name, self.rate_hz = name, rate_hz
        self._make_source, self._clock = make_source, clock
        self._recovery, self._keep_unread = recovery, keep_unread
        self._session: _Session | None = None
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Open the device in the thread that will read it; CameraError when it fails or takes too long."""
        if self._session is not None:
            return
        session = _Session()
        thread = threading.Thread(target=self._run, args=(session,), name=f"camera-{self.name}", daemon=True)
        self._session, self._thread = session, thread
        thread.start()
        with session.changed:
            session.changed.wait_for(lambda: session.ready or session.failure, self._recovery.open_limit_s + _GRACE_S)
            ready, failure = session.ready, session.failure
        if ready:
            return
        self.close()
        raise failure or CameraError(
            f"camera {self.name} did not open within {self._recovery.open_limit_s:g} s: plug it in again, or give it "
            "more time with open_limit_s"
        )

    def close(self) -> None:
        """End the thread and let the device go; waits for it a few seconds at most."""
        session, thread = self._session, self._thread
        self._session = self._thread = None
        if session is None or thread is None:
            return
        session.over.set()
        with session.changed:
            session.changed.notify_all()
        thread.join(_CLOSE_LIMIT_S)
        if thread.is_alive():
            _log.warning("camera %s did not let go of its device within %g s", self.name, _CLOSE_LIMIT_S)

    def read(self, timeout_s: float) -> Frame | None:
        """As ``Camera.read``; None while a lost device is looked for, CameraError when it did not come back."""
        session = self._require_open()
        with session.changed:
            session.changed.wait_for(
                lambda: session.newest is not None or session.failure is not None or session.over.is_set(), timeout_s
            )
            frame, session.newest = session.newest, None
            failure = session.failure
            if frame is not None and self._keep_unread:
                session.changed.notify_all()
                frame = self._stamped_now(session, frame)
            if frame is not None:
                return frame
        if failure is not None:
            raise CameraError(str(failure)) from failure
        if session.over.is_set():
            self._require_open()
        return None

    @property
    def is_open(self) -> bool:
        """Between ``open`` and ``close``; also while a lost device is looked for."""
        return self._session is not None

    @property
    def measured_rate_hz(self) -> float | None:
        """Pictures per second that the device really gave in the last two seconds; None when there were not two."""
        session = self._session
        if session is None:
            return None
        with session.changed:
            oldest_ns = self._clock.now_ns() - round(RATE_WINDOW_S * NS_PER_S)
            stamps = [stamp for stamp in session.stamps if stamp >= oldest_ns]
        return (len(stamps) - 1) * NS_PER_S / (stamps[-1] - stamps[0]) if len(stamps) > 1 else None

    def _require_open(self) -> _Session:
        if self._session is None:
            raise CameraError(f"camera {self.name} is closed: open it before reading")
        return self._session

    def _run(self, session: _Session) -> None:
        source = self._make_source()
        try:
            source.open()
            with session.changed:
                session.ready = True
                session.changed.notify_all()
            while not session.over.is_set():
                error = self._take_until_lost(session, source)
                if error is None:
                    break
                source.close()
                source = self._find_again(session, error)
        except CameraError as error:
            session.fail(error)
        except Exception as error:
            _log.exception("camera %s failed", self.name)
            session.fail(CameraError(f"camera {self.name} failed: {type(error).__name__}: {error}"))
        finally:
            source.close()

    def _take_until_lost(self, session: _Session, source: Source) -> Lost | None:
        """Publish what the source gives; None when the camera is closed."""
        heard_s, number = time.monotonic(), None
        limit_s = self._recovery.silent_after_s
        while not session.over.is_set():
            try:
                shot = source.take(_TAKE_S)
            except Lost as error:
                return error
            if shot is not None:
                heard_s = time.monotonic()
                self._publish(session, shot, number)
                number = shot.number
            elif limit_s is not None and time.monotonic() - heard_s > limit_s:
                return Lost(f"camera {self.name} gave nothing for {limit_s:g} s")
        return None

    def _find_again(self, session: _Session, lost: Lost) -> Source:
        """A source that is open and has given a picture; CameraError when that takes too long."""
        if self._recovery.recover_for_s:
            _log.warning("%s; looking for it for %g s", lost, self._recovery.recover_for_s)
        deadline_s = time.monotonic() + self._recovery.recover_for_s
        pause_s = _FIRST_PAUSE_S
        last: CameraError | None = None
        while not session.over.is_set():
            remaining_s = deadline_s - time.monotonic()
            if remaining_s <= 0:
                raise CameraError(self._did_not_return(lost, last))
            session.over.wait(min(pause_s, remaining_s))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            source, found = self._make_source(), False
            try:
                source.open()
                found = self._first_shot(session, source, deadline_s)
            except CameraError as error:
                last = error
            finally:
                if not found:
                    source.close()
            if found:
                _log.info("camera %s is back", self.name)
                return source
        return self._make_source()  # never opened: the camera is closed

    def _did_not_return(self, lost: Lost, last: CameraError | None) -> str:
        if not self._recovery.recover_for_s:
            return str(lost)
        ending = f": {last}" if last is not None and str(last) != str(lost) else ""
        return f"{lost}; it did not come back within {self._recovery.recover_for_s:g} s{ending}"

    def _first_shot(self, session: _Session, source: Source, deadline_s: float) -> bool:
        silent_s = self._recovery.silent_after_s
        until_s = deadline_s if silent_s is None else min(deadline_s, time.monotonic() + silent_s)
        while not session.over.is_set() and time.monotonic() < until_s:
            shot = source.take(_TAKE_S)
            if shot is not None:
                self._publish(session, shot, None)
                return True
        return False

    def _stamped_now(self, session: _Session, frame: Frame) -> Frame:
        """It counts as captured when it is read, however long it waited."""
        session.last_ns = max(self._clock.now_ns(), -1 if session.last_ns is None else session.last_ns + 1)
        session.stamps.append(session.last_ns)
        return dataclasses.replace(frame, capture_ns=session.last_ns)

    def _publish(self, session: _Session, shot: Shot, number_before: int | None) -> None:
        with session.changed:
            if self._keep_unread:
                session.changed.wait_for(lambda: session.newest is None or session.over.is_set())
            counted = shot.number is not None and number_before is not None
            session.sequence += max(1, shot.number - number_before) if counted else 1  # type: ignore[operator]
            if not self._keep_unread:
                if session.last_ns is not None and shot.capture_ns <= session.last_ns:
                    return
                session.last_ns = shot.capture_ns
                session.stamps.append(shot.capture_ns)
            session.newest = Frame(shot.pixels, shot.capture_ns, self._clock.name, self.name, session.sequence)
            session.changed.notify_all()
