"""Watchdogs: is what the robot sees new, and how old is the observation behind a command."""

import zlib
from dataclasses import dataclass

import numpy as np

from mobile_vla.core import NS_PER_S, Frame
from mobile_vla.core.backports import StrEnum


class Reason(StrEnum):
    """Why the supervisor does what it does."""

    DRIVING = "driving"
    RECOVERING = "recovering"
    NO_FRAME = "no_frame"
    FRAME_TOO_OLD = "frame_too_old"
    FRAME_REPEATED = "frame_repeated"
    CLOCK_NOT_ADVANCING = "clock_not_advancing"
    NO_COMMAND = "no_command"
    NON_FINITE_COMMAND = "non_finite_command"
    FRAME_IN_THE_FUTURE = "frame_in_the_future"
    EMERGENCY_STOP = "emergency_stop"
    POLICY_FAILED = "policy_failed"
    CAMERA_FAILED = "camera_failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """A reason, and the sentence that a person is shown."""

    reason: Reason
    sentence: str


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


class ObservationWatchdog:
    """Judges the age of the observation behind a command, at the moment the command is to be used."""

    def __init__(self, stale_after_s: float, future_tolerance_s: float) -> None:
        self._stale_after_ns = round(stale_after_s * NS_PER_S)
        self._future_tolerance_ns = round(future_tolerance_s * NS_PER_S)

    def judge(self, now_ns: int, capture_ns: int | None, repeated: bool) -> Finding | None:
        """What is wrong with an observation captured at ``capture_ns``, or None.

        ``repeated``: the camera has given only repeats of it since; that is named when the age is too great.
        """
        if capture_ns is None:
            return Finding(Reason.NO_FRAME, "there is no camera frame yet")
        age_ns = now_ns - capture_ns
        if age_ns < -self._future_tolerance_ns:
            return Finding(
                Reason.FRAME_IN_THE_FUTURE,
                f"the frame was captured {_seconds(-age_ns)} after now: camera and robot do not share a clock",
            )
        if age_ns <= self._stale_after_ns:
            return None
        ages = f"{_seconds(age_ns)} old, more than {_seconds(self._stale_after_ns)}"
        if repeated:
            return Finding(Reason.FRAME_REPEATED, f"the camera repeats one picture; it is {ages}")
        return Finding(Reason.FRAME_TOO_OLD, f"the frame behind the command is {ages}")


def _seconds(duration_ns: int) -> str:
    return f"{duration_ns / NS_PER_S:.3f} s"
