"""Recorded pictures played as if a camera took them now."""

import time
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from mobile_vla.core import NS_PER_S, CameraError, Clock
from mobile_vla.robot.cameras.reader import Recovery, Shot, from_monotonic

Recording = Iterator[tuple[NDArray[np.uint8], float]]
"""Pictures, RGB uint8 (H, W, 3), and the seconds after the first at which each is due, rising."""

NO_RECOVERY = Recovery(recover_for_s=0.0, silent_after_s=None, open_limit_s=30.0)

_LATEST_S = 0.5


class PacedSource:
    """Plays a recording at ``pace`` times its speed; 0: each picture at once.

    ``play`` begins it anew. At its end it begins again where ``loop`` says so, one picture's time later, else it fails
    with ``ended``. Pictures are numbered from the beginning and stamped when they are due. A machine too slow for the
    recording gets it late: the rest is put off.
    """

    def __init__(
        self, play: Callable[[], Recording], clock: Clock, *, pace: float, loop: bool, period_s: float, ended: str
    ) -> None:
        self._play, self._clock, self._pace = play, clock, pace
        self._loop, self._period_s, self._ended = loop, period_s, ended
        self._recording: Recording | None = None
        self._waiting: tuple[NDArray[np.uint8], float] | None = None
        self._began_ns: int | None = None
        self._begin_s = self._last_s = 0.0
        self._number = -1

    def open(self) -> None:
        """Read the first picture; CameraError when there is none."""
        self._recording = self._play()
        self._waiting = next(self._recording, None)
        if self._waiting is None:
            raise CameraError(self._ended)

    def take(self, timeout_s: float) -> Shot | None:
        """The next picture once it is due."""
        if self._waiting is None:
            self._waiting = self._read()
        pixels, due_s = self._waiting
        due_ns = self._due_ns(due_s)
        wait_s = (due_ns - time.monotonic_ns()) / NS_PER_S
        if wait_s > 0:
            time.sleep(min(wait_s, timeout_s))
            if wait_s > timeout_s:
                return None
        self._waiting = None
        self._last_s = due_s
        self._number += 1
        return Shot(pixels, from_monotonic(self._clock, due_ns), self._number)

    def close(self) -> None:
        """Close the recording."""
        recording, self._recording = self._recording, None
        if recording is not None:
            recording.close()  # type: ignore[attr-defined]

    def _read(self) -> tuple[NDArray[np.uint8], float]:
        assert self._recording is not None
        entry = next(self._recording, None)
        if entry is None and self._loop:
            self._begin_s = self._last_s + self._period_s
            self._recording = self._play()
            entry = next(self._recording, None)
        if entry is None:
            raise CameraError(self._ended)
        return entry[0], self._begin_s + entry[1]

    def _due_ns(self, due_s: float) -> int:
        now_ns = time.monotonic_ns()
        if self._pace == 0:
            return now_ns
        since_ns = round(due_s / self._pace * NS_PER_S)
        if self._began_ns is None or now_ns - self._began_ns - since_ns > _LATEST_S * NS_PER_S:
            self._began_ns = now_ns - since_ns
        return self._began_ns + since_ns
