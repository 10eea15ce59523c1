"""The pictures of many episodes, fitted once and kept while there is room; what does not fit is decoded again.

The images lie in the data files as they are, not compressed a second time. Where each lies is noted when its episode is
first read, so that a frame out of the middle costs the reading of that frame and not of its episode.
"""

import mmap
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobile_vla.data import Dataset, Episode, images

Fit = Callable[[NDArray[np.uint8], tuple[int, int]], NDArray[np.uint8]]
"""RGB uint8 (H, W, 3) and a size (rows, columns) to uint8 (rows, columns, 3)."""

Places = NDArray[np.int64]
"""(T, 2): first byte and length of each image in its episode's file."""


class Pictures:
    """Frames 0, 1, 2, ... of ``episodes`` one after another, fitted to ``size``; any number of threads may read.

    ``episodes`` are data sets with a number of an episode in each. At most ``cache_bytes`` of fitted frames are kept,
    those last used; they change how long reading takes and nothing else. ``threads`` decode at a time.
    """

    def __init__(
        self,
        episodes: Sequence[tuple[Dataset, int]],
        size: tuple[int, int],
        cache_bytes: int,
        fit: Fit,
        threads: int,
    ) -> None:
        self._episodes = list(episodes)
        lengths = [len(dataset.episode(index)) for dataset, index in self._episodes]
        self.starts: NDArray[np.int64] = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        self.size = size
        self._fit, self._threads = fit, threads
        self._places: list[Places | None] = [None] * len(self._episodes)
        self._cache = _Cache((*size, 3), cache_bytes, int(self.starts[-1]))

    @property
    def held_bytes(self) -> int:
        """Of fitted frames, now."""
        return self._cache.held_bytes

    def read(self, frames: NDArray[np.int64]) -> NDArray[np.uint8]:
        """These frames, (N, rows, columns, 3). DatasetError naming the episode that is damaged."""
        out = np.empty((len(frames), *self.size, 3), dtype=np.uint8)
        self.fill(out, np.arange(len(frames)), frames)
        return out

    def fill(self, out: NDArray[np.uint8], rows: NDArray[np.int64], frames: NDArray[np.int64]) -> None:
        """Frame ``frames[i]`` into ``out[rows[i]]``; a frame that is wanted twice is decoded once."""
        missing: dict[int, list[int]] = {}
        for row, frame in zip(rows.tolist(), frames.tolist(), strict=True):
            if frame in missing or not self._cache.take(frame, out[row]):
                missing.setdefault(frame, []).append(row)
        if not missing:
            return
        wanted = np.sort(np.fromiter(missing, dtype=np.int64))
        episodes = np.searchsorted(self.starts, wanted, side="right") - 1
        groups = np.split(wanted, np.flatnonzero(np.diff(episodes)) + 1)

        def work(group: NDArray[np.int64]) -> None:
            for frame, pixels in zip(group.tolist(), self._decode(group), strict=True):
                picture = self._fit(pixels, self.size)
                out[missing[frame]] = picture
                self._cache.keep(frame, picture)

        if self._threads == 1:
            deque(map(work, groups), maxlen=0)
        else:
            with ThreadPoolExecutor(self._threads) as pool:
                deque(pool.map(work, groups), maxlen=0)

    def _decode(self, group: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """Frames of one episode as the camera gave them. What fails is left to the reader, which says what it is."""
        number = int(np.searchsorted(self.starts, group[0], side="right")) - 1
        frames = (group - self.starts[number]).tolist()
        dataset, index = self._episodes[number]
        episode = dataset.episode(index)
        try:
            jpegs = self._jpegs(number, episode, frames)
            return [images.decode([jpeg], dataset.image_shape)[0] for jpeg in jpegs]
        except (OSError, ValueError):
            return [episode.images(frame, frame + 1)[0] for frame in frames]

    def _jpegs(self, number: int, episode: Episode, frames: list[int]) -> list[bytes | memoryview]:
        places = self._places[number]
        if places is None:
            jpegs = episode.jpegs
            self._places[number] = _find(jpegs, episode.path)
            return [jpegs[frame] for frame in frames]
        with episode.path.open("rb", buffering=0) as file:
            return [os.pread(file.fileno(), int(length), int(start)) for start, length in places[frames]]


def _find(jpegs: Sequence[memoryview], path: Path) -> Places | None:
    """Where these images lie in the file; None where another program packed them otherwise."""
    places = np.empty((len(jpegs), 2), dtype=np.int64)
    position = 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for place, jpeg in enumerate(jpegs):
            position = content.find(jpeg, position)
            if position < 0:
                return None
            places[place] = position, len(jpeg)
            position += len(jpeg)
    return places


class _Cache:
    """Pictures of one shape, the last used ones, in a block of memory that never grows. Safe between threads."""

    def __init__(self, shape: tuple[int, int, int], limit_bytes: int, at_most: int) -> None:
        self._picture_bytes = int(np.prod(shape))
        self._capacity = min(limit_bytes // self._picture_bytes, at_most)
        self._block = np.empty((self._capacity, *shape), dtype=np.uint8)
        self._slots: OrderedDict[int, int] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def held_bytes(self) -> int:
        with self._lock:
            return len(self._slots) * self._picture_bytes

    def take(self, key: int, out: NDArray[np.uint8]) -> bool:
        """Copy the picture into ``out``, if it is here."""
        with self._lock:
            slot = self._slots.get(key)
            if slot is None:
                return False
            self._slots.move_to_end(key)
            out[...] = self._block[slot]
            return True

    def keep(self, key: int, picture: NDArray[np.uint8]) -> None:
        """In the place of the one that was not used for longest, when there is no other."""
        with self._lock:
            if not self._capacity or key in self._slots:
                return
            slot = len(self._slots) if len(self._slots) < self._capacity else self._slots.popitem(last=False)[1]
            self._block[slot] = picture
            self._slots[key] = slot
