"""One pass over an episode's pictures: each is decoded once, and what is kept is small."""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mobile_vla.core import Colour
from mobile_vla.data.reader import Episode
from mobile_vla.data.schema import (
    ACTION,
    COLOURS,
    GROUNDING_BOX,
    GROUNDING_VISIBLE,
    MAX_OBJECTS,
    OBJECT_FIELDS,
    OBJECTS,
)

FRAMES_AT_ONCE = 64
THUMBNAIL_ROWS = 24
SKETCH_ROWS, SKETCH_COLUMNS = 8, 9
COLOUR_STRIDE = 5
"""Every fifth frame is asked for the colours of its objects: a second at 5 Hz."""
MIN_SEEN = 0.7
MIN_HALF_PIXELS = 2.0
DECISIVE_LEVELS = 25.0
"""Red minus blue, below which an object's pixels say nothing."""
REDDER: dict[Colour, bool] = {Colour.RED: True, Colour.ORANGE: True, Colour.YELLOW: True, Colour.BLUE: False}
"""Colours that tell red from blue. Green does not change when the two are exchanged, and purple has much of both."""


@dataclass(frozen=True, slots=True, eq=False)
class Changes:
    """From each picture to the next, (T - 1).

    ``same``: the two JPEG files are equal byte by byte. ``difference``: mean distance of the pixels, in levels.
    ``contrast``: of the second picture, mean distance of pixels beside each other; where it is small, as before a bare
    wall, moving changes little.
    """

    same: NDArray[np.bool_]
    difference: NDArray[np.float32]
    contrast: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """What is kept of an episode's pictures, about a kilobyte.

    ``mean_rgb`` (3,), in levels. ``fitting`` and ``swapped``: looks at objects of a known colour whose pixels fit it as
    RGB, and as BGR. ``sketches`` uint8 (3, 8, 9, 3): first, middle and last picture. ``digest``: SHA-256 of all
    pictures and actions.
    """

    mean_rgb: NDArray[np.float64]
    fitting: int
    swapped: int
    sketches: NDArray[np.uint8]
    digest: str


def look_at(episode: Episode, colour: Colour | None) -> tuple[Changes, Pictures]:
    """Decode the episode, 64 frames at a time; ``colour`` is the named target's. DatasetError for a damaged picture."""
    jpegs, total = episode.jpegs, len(episode)
    digest = sha256(np.ascontiguousarray(episode[ACTION]).tobytes())
    for jpeg in jpegs:
        digest.update(jpeg)
    wanted = {0, total // 2, total - 1}
    kept: dict[int, NDArray[np.uint8]] = {}
    differences: list[NDArray[np.float32]] = []
    contrasts: list[NDArray[np.float32]] = []
    sums = np.zeros(3)
    votes = [0, 0]
    before: NDArray[np.int16] | None = None
    for start in range(0, total, FRAMES_AT_ONCE):
        frames = episode.images(start, start + FRAMES_AT_ONCE)
        step = max(1, frames.shape[1] // THUMBNAIL_ROWS)
        small = frames[:, ::step, ::step].astype(np.int16)
        sums += small.mean(axis=(1, 2)).sum(axis=0)
        chain = small if before is None else np.concatenate([before, small])
        differences.append(np.abs(np.diff(chain, axis=0)).mean(axis=(1, 2, 3)).astype(np.float32))
        contrasts.append(np.abs(np.diff(small, axis=2)).mean(axis=(1, 2, 3)).astype(np.float32))
        before = small[-1:]
        for frame in wanted & set(range(start, start + len(frames))):
            kept[frame] = _sketch(frames[frame - start])
        for frame in range(-(-start // COLOUR_STRIDE) * COLOUR_STRIDE, start + len(frames), COLOUR_STRIDE):
            for redder, pixels in _coloured(episode, frame, frames[frame - start], colour):
                distance = float(pixels[..., 0].mean() - pixels[..., 2].mean())
                if abs(distance) >= DECISIVE_LEVELS:
                    votes[(distance > 0) != redder] += 1
    same = np.array([one == two for one, two in pairwise(jpegs)], dtype=np.bool_)
    return Changes(same, np.concatenate(differences), np.concatenate(contrasts)[1:]), Pictures(
        mean_rgb=sums / total,
        fitting=votes[0],
        swapped=votes[1],
        sketches=np.stack([kept[frame] for frame in (0, total // 2, total - 1)]),
        digest=digest.hexdigest(),
    )


def _sketch(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Means over a grid of 8 x 9 fields, uint8 (8, 9, 3)."""
    height, width, _ = pixels.shape
    rows = np.linspace(0, height, SKETCH_ROWS + 1).astype(int)
    columns = np.linspace(0, width, SKETCH_COLUMNS + 1).astype(int)
    sums = np.add.reduceat(np.add.reduceat(pixels.astype(np.float64), rows[:-1], axis=0), columns[:-1], axis=1)
    areas = np.maximum(np.diff(rows), 1)[:, None, None] * np.maximum(np.diff(columns), 1)[None, :, None]
    return np.asarray(np.rint(sums / areas), dtype=np.uint8)


def _coloured(
    episode: Episode, frame: int, pixels: NDArray[np.uint8], colour: Colour | None
) -> Iterator[tuple[bool, NDArray[np.uint8]]]:
    """The inner half of each object whose colour is known to be redder than blue, or bluer."""
    height, width, _ = pixels.shape
    for values in episode[OBJECTS][frame].reshape(MAX_OBJECTS, len(OBJECT_FIELDS)):
        kind, number, u, v, half_width, half_height, seen, _ = values.tolist()
        if kind < 0 or not 0 <= number < len(COLOURS) or not seen >= MIN_SEEN:
            continue
        if (redder := REDDER.get(COLOURS[int(number)])) is not None:
            yield from _inner(redder, pixels, u, v, half_width, half_height)
    redder = None if colour is None else REDDER.get(colour)
    if redder is not None and episode[GROUNDING_VISIBLE][frame] >= MIN_SEEN:
        left, top, right, bottom = episode[GROUNDING_BOX][frame].tolist()
        sizes = (width * (right - left) / 2, height * (bottom - top) / 2)
        yield from _inner(redder, pixels, width * (left + right) / 2, height * (top + bottom) / 2, *sizes)


def _inner(
    redder: bool, pixels: NDArray[np.uint8], u: float, v: float, half_width: float, half_height: float
) -> Iterator[tuple[bool, NDArray[np.uint8]]]:
    if not (half_width >= MIN_HALF_PIXELS and half_height >= MIN_HALF_PIXELS and np.isfinite(u + v)):
        return
    top, left = max(0, int(v - half_height / 2)), max(0, int(u - half_width / 2))
    inner = pixels[top : max(0, int(v + half_height / 2) + 1), left : max(0, int(u + half_width / 2) + 1)]
    if inner.size:
        yield redder, inner
