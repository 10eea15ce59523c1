"""Does a camera give what it should: news, light, whole pictures, in time. Cheap: a part of the pixels is looked at."""

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mobile_vla.core import NS_PER_S, Frame

_LARGEST_STEP = 8
_ROWS = 60
"""At least so many rows are looked at, where the picture has them; no sparser than every eighth pixel."""
_BLACK_MEAN = 12.0
_BLACK_SPREAD = 6.0
_TORN_ROWS = 3
"""So many sampled rows must be repeated from the picture before in a band for it to count as torn."""
_MOVED = 4.0
"""Levels by which the rest must differ on the mean; noise alone differs by less."""


@dataclass(frozen=True, slots=True)
class FrameHealth:
    """What one frame shows beside the one before it.

    ``frozen``: every pixel looked at is the same; the noise of a real sensor never repeats. ``black``: dark all over.
    ``torn``: a band of it repeats the picture before, the rest has moved. ``gap_s``: from the capture before
    to this one; 0 for the first. ``lost``: pictures missing between, by their sequence. ``rate_hz``: by the captures
    so far, smoothed over about ten frames; None for the first.
    """

    frozen: bool
    black: bool
    torn: bool
    gap_s: float
    lost: int
    rate_hz: float | None


@dataclass(frozen=True, slots=True)
class HealthSummary:
    """Counts over all frames so far; ``longest_gap_s`` between two captures; ``rate_hz`` the mean over all of them."""

    frames: int = 0
    frozen: int = 0
    black: int = 0
    torn: int = 0
    lost: int = 0
    longest_gap_s: float = 0.0
    rate_hz: float | None = None


class HealthWatch:
    """Looks at the frames of one camera, one after another."""

    def __init__(self) -> None:
        self._sample: NDArray[np.uint8] | None = None
        self._checksum = 0
        self._capture_ns = self._first_ns = 0
        self._sequence = 0
        self._period_s: float | None = None
        self._summary = HealthSummary()

    @property
    def summary(self) -> HealthSummary:
        """All frames so far together."""
        return self._summary

    def look(self, frame: Frame) -> FrameHealth:
        """Judge ``frame`` beside the one before it."""
        step = min(_LARGEST_STEP, max(1, min(frame.pixels.shape[:2]) // _ROWS))
        sample = np.ascontiguousarray(frame.pixels[step // 2 :: step, step // 2 :: step])
        checksum = zlib.crc32(sample.data)
        before = self._sample if self._sample is not None and self._sample.shape == sample.shape else None
        frozen = before is not None and checksum == self._checksum
        first = self._summary.frames == 0
        gap_s = 0.0 if first else (frame.capture_ns - self._capture_ns) / NS_PER_S
        health = FrameHealth(
            frozen=frozen,
            black=bool(sample.mean() <= _BLACK_MEAN and sample.std() <= _BLACK_SPREAD),
            torn=before is not None and not frozen and _is_torn(before, sample),
            gap_s=gap_s,
            lost=0 if first else max(0, frame.sequence - self._sequence - 1),
            rate_hz=None if first else self._rate(gap_s),
        )
        if first:
            self._first_ns = frame.capture_ns
        self._sample, self._checksum = sample, checksum
        self._capture_ns, self._sequence = frame.capture_ns, frame.sequence
        self._count(health)
        return health

    def _rate(self, gap_s: float) -> float | None:
        if gap_s > 0:
            self._period_s = gap_s if self._period_s is None else 0.9 * self._period_s + 0.1 * gap_s
        return 1 / self._period_s if self._period_s else None

    def _count(self, health: FrameHealth) -> None:
        old = self._summary
        lasted_s = (self._capture_ns - self._first_ns) / NS_PER_S
        self._summary = HealthSummary(
            frames=old.frames + 1,
            frozen=old.frozen + health.frozen,
            black=old.black + health.black,
            torn=old.torn + health.torn,
            lost=old.lost + health.lost,
            longest_gap_s=max(old.longest_gap_s, health.gap_s),
            rate_hz=old.frames / lasted_s if lasted_s > 0 else None,
        )


def _is_torn(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> bool:
    """A band of rows is the old picture's to the bit, while the rest has moved.

    Rows of one colour say nothing: they are clipped white or black. In a picture at rest, compression may repeat rows;
    there a tear does no harm either.
    """
    flat = (after == after[:, :1]).all(axis=(1, 2))
    same = (before == after).all(axis=(1, 2))
    changed = ~same
    if not changed.any() or np.abs(after[changed].astype(np.int16) - before[changed]).mean() < _MOVED:
        return False
    longest = run = 0
    for is_same in same[~flat]:
        run = run + 1 if is_same else 0
        longest = max(longest, run)
    return longest >= _TORN_ROWS
