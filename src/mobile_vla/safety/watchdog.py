"""Watchdogs: is what the robot sees new, how old is what it acts on, and how much is asked of it."""

import zlib

import numpy as np

from mobile_vla.core import NS_PER_S, Frame
from mobile_vla.safety.states import Finding, Reason


class FrameWatch:
    """Tells frames that bring news from those of a frozen camera.

    A frame is a repeat when its sequence number or its capture time is not greater than the last new frame's, or when
    its pixels are the same to the bit: a driver can stamp and number a picture that no longer changes, and the noise of
    a real sensor never repeats. Pass ``identical_pixels=False`` for a rendered camera, which has no noise.

    Whoever drives gives a repeat to no policy, so that the age of the last new frame goes on growing and the supervisor
    stops. A camera that was opened again needs a new watch.
    """

    def __init__(self, identical_pixels: bool = True) -> None:
        self._identical_pixels = identical_pixels
        self._last: Frame | None = None
        self._checksum: int | None = None

    def repeats(self, frame: Frame) -> bool:
        """The frame brings nothing new; remembers it when it does."""
        last = self._last
        checksum = zlib.crc32(np.ascontiguousarray(frame.pixels).data) if self._identical_pixels else None
        if last is not None and (
            frame.sequence <= last.sequence
            or frame.capture_ns <= last.capture_ns
            or (checksum is not None and checksum == self._checksum)
        ):
            return True
        self._last, self._checksum = frame, checksum
        return False


class AgeWatch:
    """Judges the age of one thing at the moment it is used."""

    def __init__(self, limit_s: float, future_tolerance_s: float) -> None:
        self._limit_ns = round(limit_s * NS_PER_S)
        self._future_tolerance_ns = round(future_tolerance_s * NS_PER_S)

    def from_future(self, now_ns: int, stamp_ns: int) -> str | None:
        """How far after now it is stamped, when that is more than the tolerance: then its age cannot be known."""
        ahead_ns = stamp_ns - now_ns
        return _seconds(ahead_ns) if ahead_ns > self._future_tolerance_ns else None

    def too_old(self, now_ns: int, stamp_ns: int) -> str | None:
        """Its age and the limit, when it is older than that."""
        age_ns = now_ns - stamp_ns
        return f"{_seconds(age_ns)} old, more than {_seconds(self._limit_ns)}" if age_ns > self._limit_ns else None

    def distrusted(self, now_ns: int, stamp_ns: int) -> str | None:
        """What is wrong with its age, either way: a stamp that lies ahead would hide for how long nothing has come."""
        ahead = self.from_future(now_ns, stamp_ns)
        return self.too_old(now_ns, stamp_ns) if ahead is None else f"stamped {ahead} after now"


def judge_observation(watch: AgeWatch, now_ns: int, capture_ns: int | None, repeated: bool) -> Finding | None:
    """What is wrong with an observation captured at ``capture_ns``, or None.

    ``repeated``: the camera has given only repeats of it since; that is named when the age is too great.
    """
    if capture_ns is None:
        return Finding(Reason.NO_FRAME, "there is no camera frame yet")
    ahead = watch.from_future(now_ns, capture_ns)
    if ahead is not None:
        return Finding(
            Reason.FRAME_IN_THE_FUTURE,
            f"the frame was captured {ahead} after now: camera and robot do not share a clock",
        )
    ages = watch.too_old(now_ns, capture_ns)
    if ages is None:
        return None
    if repeated:
        return Finding(Reason.FRAME_REPEATED, f"the camera repeats one picture; it is {ages}")
    return Finding(Reason.FRAME_TOO_OLD, f"the frame behind the command is {ages}")


class CommandRate:
    """Counts the commands of the last second, as of each step."""

    def __init__(self) -> None:
        self._arrivals: list[tuple[int, int]] = []

    def count(self, now_ns: int, received: int) -> int:
        """How many came in the second before ``now_ns``, the ``received`` of this step among them.

        After the clock went back, steps that now lie ahead are forgotten.
        """
        within = [(at_ns, count) for at_ns, count in self._arrivals if now_ns - NS_PER_S < at_ns <= now_ns]
        self._arrivals = [*within, (now_ns, received)]
        return sum(count for _, count in self._arrivals)


def _seconds(duration_ns: int) -> str:
    return f"{duration_ns / NS_PER_S:.3f} s"
