"""Predictors of recorded actions that look at no picture, made from other episodes than the one that is judged.

"constant": the mean chunk. "majority": the middle of the most frequent cell of first actions, with the range of each
axis cut into ``CELLS_PER_AXIS``. "hold_last": the action that was executed at the frame before, zero at the first.
"nearest_instruction": of the episodes whose instruction is most like this one, the median chunk at the same frame since
the beginning. It hears the words and knows the time that has passed; it is the strongest of those tried that do not
look and do not know how long the episode will be.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mobile_vla.core import ActionContract, DatasetError
from mobile_vla.data import Dataset, Episode, EpisodeRecord, schema
from mobile_vla.evaluate.nearest import Instructions, median_course

Chunks = NDArray[np.float32]
"""(T, horizon, axes), in the units of the contract; NaN where nobody said what to do."""

CELLS_PER_AXIS = 21
BASELINES = ("constant", "majority", "hold_last", "nearest_instruction")

_KEPT = 512
"""Episodes whose chunks stay in memory: some 5 MB of drives of ten seconds."""


def labels(episode: Episode, contract: ActionContract) -> Chunks:
    """What the expert, or the person who drove, would do next; infinite numbers count as unknown."""
    flat = episode.read([schema.ACTION_CHUNK])[schema.ACTION_CHUNK]
    chunks: Chunks = flat.reshape(len(flat), contract.horizon, len(contract.axes))
    return np.where(np.isfinite(chunks), chunks, np.float32(np.nan))


def judged_frames(chunks: Chunks) -> NDArray[np.bool_]:
    """(T,): the first action is known. Of such a frame the later actions count as far as they are known."""
    return np.asarray(np.isfinite(chunks[:, 0]).all(axis=1))


class Sources:
    """The episodes that baselines are made from, read once and then again where they are neighbours."""

    def __init__(self, dataset: Dataset, episodes: Sequence[int]) -> None:
        self._dataset, self._contract = dataset, dataset.contract
        self._chunks: Callable[[int], Chunks] = lru_cache(_KEPT)(self._read)
        self._total = _Tally.empty(dataset.contract)
        self._by_scene: dict[Hashable, list[int]] = defaultdict(list)
        self._used: list[int] = []
        for index in episodes:
            chunks = self._read(index)
            if not judged_frames(chunks).any():
                continue
            self._used.append(index)
            self._by_scene[_scene(dataset.episode(index).record)].append(index)
            self._total = self._total + _Tally.of(chunks, dataset.contract)
        texts = [dataset.episode(index).instruction for index in self._used]
        self._instructions = Instructions(texts, self._used)

    def __len__(self) -> int:
        """Episodes with frames that say what to do."""
        return len(self._used)

    def predictions(self, episode: Episode) -> dict[str, Chunks]:
        """By each of ``BASELINES``, made from the episodes of other scenes than this one's.

        DatasetError where there is no other, or the recorded actions are not finite.
        """
        mates = self._by_scene.get(_scene(episode.record), [])
        tally = self._total
        for mate in mates:
            tally = tally - _Tally.of(self._chunks(mate), self._contract)
        if not tally.counts[0].any():
            raise DatasetError(
                f"{self._dataset.root} has no labelled episode of another scene than that of episode "
                f"{episode.record.episode_index} to make baselines from: record more, or judge another part"
            )
        shape = (len(episode), self._contract.horizon, len(self._contract.axes))
        constant = tally.mean()
        neighbours = self._instructions.nearest(episode.instruction, but=mates)
        course = median_course(neighbours, self._chunks, constant)
        return {
            "constant": np.broadcast_to(constant, shape),
            "majority": np.broadcast_to(tally.most_frequent(self._contract), shape),
            "hold_last": np.broadcast_to(_held(episode)[:, None], shape),
            "nearest_instruction": course[np.minimum(np.arange(len(episode)), len(course) - 1)],
        }

    def _read(self, index: int) -> Chunks:
        return labels(self._dataset.episode(index), self._contract)


@dataclass(frozen=True, slots=True)
class _Tally:
    """Sums and counts (horizon, axes) of what is known, and how many first actions lie in each cell."""

    sums: NDArray[np.float64]
    counts: NDArray[np.int64]
    cells: NDArray[np.int64]

    @classmethod
    def empty(cls, contract: ActionContract) -> "_Tally":
        shape = (contract.horizon, len(contract.axes))
        return cls(np.zeros(shape), np.zeros(shape, np.int64), np.zeros(_cells(contract), np.int64))

    @classmethod
    def of(cls, chunks: Chunks, contract: ActionContract) -> "_Tally":
        frames = chunks[judged_frames(chunks)]
        known = np.isfinite(frames)
        shares = np.clip(contract.normalise(frames[:, 0]), -1.0, 1.0)
        places = np.rint((shares + 1.0) / 2.0 * (CELLS_PER_AXIS - 1)).astype(np.int64)
        flat = np.ravel_multi_index(tuple(places.T), _cells(contract))
        cells = np.bincount(flat, minlength=CELLS_PER_AXIS ** len(contract.axes)).reshape(_cells(contract))
        return cls(np.where(known, frames, 0.0).sum(axis=0, dtype=np.float64), known.sum(axis=0), cells)

    def __add__(self, other: "_Tally") -> "_Tally":
        return _Tally(self.sums + other.sums, self.counts + other.counts, self.cells + other.cells)

    def __sub__(self, other: "_Tally") -> "_Tally":
        return _Tally(self.sums - other.sums, self.counts - other.counts, self.cells - other.cells)

    def mean(self) -> NDArray[np.float32]:
        """(horizon, axes); the mean over all rows where a row was never known."""
        over_rows = self.sums.sum(axis=0) / self.counts.sum(axis=0)
        each = self.sums / np.maximum(self.counts, 1)
        return np.where(self.counts > 0, each, over_rows).astype(np.float32)

    def most_frequent(self, contract: ActionContract) -> NDArray[np.float32]:
        """(axes,): the middle of the cell that most first actions lie in."""
        place = np.array(np.unravel_index(int(self.cells.argmax()), self.cells.shape))
        return contract.denormalise(place / (CELLS_PER_AXIS - 1) * 2.0 - 1.0)


def _cells(contract: ActionContract) -> tuple[int, ...]:
    return (CELLS_PER_AXIS,) * len(contract.axes)


def _held(episode: Episode) -> NDArray[np.float32]:
    """(T, axes): what was executed at the frame before."""
    executed = episode.read([schema.ACTION])[schema.ACTION]
    if not np.isfinite(executed).all():
        frame = int(np.flatnonzero(~np.isfinite(executed).all(axis=1))[0])
        raise DatasetError(
            f"the action at frame {frame} of episode {episode.record.episode_index} ({episode.path}) is not finite "
            f"({executed[frame].tolist()}): mend or leave out that episode; `mobile-vla data validate` lists all"
        )
    return np.concatenate([np.zeros_like(executed[:1]), executed[:-1]])


def _scene(record: EpisodeRecord) -> Hashable:
    """Episodes of one scene are no strangers to each other; without a seed each is a scene of its own."""
    seed = record.extras.get(schema.EXTRA_SCENE_SEED)
    return ("scene", seed) if seed is not None else ("episode", record.episode_index)
