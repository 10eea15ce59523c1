"""LeRobot's ``meta/stats.json``, kept up to date while recording instead of counted again at the end.

Minimum, maximum, mean, standard deviation and count are exact. Quantiles are exact up to ``SAMPLE_ROWS`` frames and
come from an even sample of that many beyond. Values that are not finite (labels that were not given) count for nothing;
a column with no value at all has zeros. Image figures come from a histogram over a sample of frames and pixels.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from mobile_vla.data.schema import EPISODE_INDEX, INDEX, NUMBERED_BY_PLACE, TASK_INDEX, Feature
from mobile_vla.data.store import STATS_STATE_PATH, EpisodeRecord, write_durably

SAMPLE_ROWS = 8192
IMAGE_FRAME_STRIDE = 16
IMAGE_PIXEL_STRIDE = 2
QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}

Columns = Mapping[str, NDArray[Any]]


class ImageHistogram:
    """How often each of the 256 levels occurs in each of the three channels, over a sample of frames."""

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] = np.zeros((3, 256), dtype=np.int64)
        self.frames = 0

    @staticmethod
    def samples(frame_index: int) -> bool:
        """A frame at this place in its episode is part of the sample."""
        return frame_index % IMAGE_FRAME_STRIDE == 0

    def add(self, frame_index: int, pixels: NDArray[np.uint8]) -> None:
        """Take in RGB uint8 (H, W, 3) if its place in the episode is one of the sampled ones."""
        if not self.samples(frame_index):
            return
        sample = pixels[::IMAGE_PIXEL_STRIDE, ::IMAGE_PIXEL_STRIDE]
        for channel in range(3):
            self.counts[channel] += np.bincount(sample[..., channel].ravel(), minlength=256)
        self.frames += 1

    def merge(self, other: "ImageHistogram") -> None:
        """Take in another histogram."""
        self.counts += other.counts
        self.frames += other.frames

    def summary(self) -> dict[str, Any]:
        """LeRobot's figures, (3, 1, 1) in 0..1."""
        levels = np.arange(256) / 255.0
        columns = [_weighted(levels, counts) for counts in self.counts]
        figures: dict[str, Any] = {key: [[[column[key]]] for column in columns] for key in columns[0]}
        return figures | {"count": [self.frames]}


def _weighted(levels: NDArray[np.float64], counts: NDArray[np.int64]) -> dict[str, float]:
    total = int(counts.sum())
    if total == 0:
        return dict.fromkeys(("min", "max", "mean", "std", *QUANTILES), 0.0)
    seen = levels[counts > 0]
    mean = float(levels @ counts / total)
    cumulative = np.cumsum(counts)
    quantiles = {
        key: float(levels[np.searchsorted(cumulative, share * total, side="left")]) for key, share in QUANTILES.items()
    }
    variance = float((levels - mean) ** 2 @ counts / total)
    return {"min": float(seen[0]), "max": float(seen[-1]), "mean": mean, "std": variance**0.5, **quantiles}


class RunningStats:
    """Figures of the first ``episodes`` episodes of a data set; more can be added and two can be merged."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self.features = tuple(
            feature for feature in features if not feature.is_image and feature.name not in NUMBERED_BY_PLACE
        )
        self.image_name = next(feature.name for feature in features if feature.is_image)
        width = sum(feature.width for feature in self.features)
        self.episodes = 0
        self.frames = 0
        self.histogram = ImageHistogram()
        self.count = np.zeros(width, dtype=np.int64)
        self.mean = np.zeros(width)
        self.squares = np.zeros(width)  # sum of squared distances from the mean
        self.low = np.full(width, np.inf)
        self.high = np.full(width, -np.inf)
        self.sample = np.zeros((0, width))
        self.ranks = np.zeros(0)  # random, one a frame; the lowest SAMPLE_ROWS of all frames are the sample
        self._pending: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []  # drawn, not yet in the sample
        self._pending_rows = 0

    def update(self, columns: Columns, histogram: ImageHistogram) -> None:
        """Take in one episode: columns of shape (T,) or (T, width), and its images' histogram."""
        length = len(columns[self.features[0].name])
        rows = np.concatenate(
            [columns[feature.name].reshape(length, feature.width).astype(np.float64) for feature in self.features],
            axis=1,
        )
        ranks = np.random.default_rng([self.episodes, self.frames]).random(length)
        finite = np.isfinite(rows)
        count = finite.sum(axis=0)
        mean = np.where(finite, rows, 0.0).sum(axis=0) / np.maximum(count, 1)
        squares = (np.where(finite, rows - mean, 0.0) ** 2).sum(axis=0)
        low = np.where(finite, rows, np.inf).min(axis=0)
        high = np.where(finite, rows, -np.inf).max(axis=0)
        self._combine(count, mean, squares, low, high)
        self._draw(rows, ranks)
        self.histogram.merge(histogram)
        self.episodes += 1
        self.frames += length

    def merge(self, other: Self) -> None:
        """Take in the figures of episodes that follow ours."""
        self._combine(other.count, other.mean, other.squares, other.low, other.high)
        other._trim(SAMPLE_ROWS)
        self._draw(other.sample, other.ranks)
        self.histogram.merge(other.histogram)
        self.episodes += other.episodes
        self.frames += other.frames

    def summary(self, records: Sequence[EpisodeRecord]) -> dict[str, Any]:
        """The contents of ``stats.json``; the numbering columns follow from ``records`` alone."""
        self._trim(SAMPLE_ROWS)
        figures: dict[str, Any] = {self.image_name: self.histogram.summary()}
        with np.errstate(invalid="ignore"):
            deviation = np.sqrt(self.squares / np.maximum(self.count, 1))
        seen = self.count > 0
        start = 0
        for feature in self.features:
            part = slice(start, start + feature.width)
            start = part.stop
            whole = {
                "min": np.where(seen, self.low, 0.0)[part],
                "max": np.where(seen, self.high, 0.0)[part],
                "mean": self.mean[part],
                "std": deviation[part],
            }
            quantiles = _quantiles(self.sample[:, part])
            figures[feature.name] = {
                **{key: values.tolist() for key, values in whole.items()},
                "count": [self.frames],
                **{key: values.tolist() for key, values in zip(QUANTILES, quantiles, strict=True)},
            }
        return figures | _numbering(records)

    def save(self, root: Path) -> None:
        """Keep the state beside the data, so that the next session goes on from it."""
        self._trim(SAMPLE_ROWS)
        buffer = io.BytesIO()
        np.savez(
            buffer,
            names=np.array([f"{feature.name}:{feature.width}" for feature in self.features]),
            totals=np.array([self.episodes, self.frames, self.histogram.frames]),
            histogram=self.histogram.counts,
            count=self.count,
            mean=self.mean,
            squares=self.squares,
            low=self.low,
            high=self.high,
            sample=self.sample,
            ranks=self.ranks,
        )
        write_durably(root / STATS_STATE_PATH, buffer.getbuffer())

    @classmethod
    def load(cls, root: Path, features: Sequence[Feature]) -> Self:
        """The kept state; an empty one where none is kept or it is unusable, since it can be counted again."""
        stats = cls(features)
        names = [f"{feature.name}:{feature.width}" for feature in stats.features]
        try:
            with np.load(root / STATS_STATE_PATH, allow_pickle=False) as kept:
                if kept["names"].tolist() != names:
                    return stats
                arrays = {key: kept[key] for key in kept.files}
        except (OSError, ValueError, KeyError, EOFError):
            return stats
        loaded = cls(features)
        loaded.episodes, loaded.frames, loaded.histogram.frames = (int(total) for total in arrays["totals"])
        loaded.histogram.counts = arrays["histogram"]
        for key in ("count", "mean", "squares", "low", "high", "sample", "ranks"):
            setattr(loaded, key, arrays[key])
        return loaded

    def _combine(
        self,
        count: NDArray[np.int64],
        mean: NDArray[np.float64],
        squares: NDArray[np.float64],
        low: NDArray[np.float64],
        high: NDArray[np.float64],
    ) -> None:
        """Chan, Golub and LeVeque's update of mean and squares: exact however the frames are grouped."""
        total = np.maximum(self.count + count, 1)
        distance = mean - self.mean
        self.squares += squares + distance**2 * (self.count * count / total)
        self.mean += distance * (count / total)
        self.count += count
        self.low = np.minimum(self.low, low)
        self.high = np.maximum(self.high, high)

    def _draw(self, rows: NDArray[np.float64], ranks: NDArray[np.float64]) -> None:
        if len(self.ranks) >= SAMPLE_ROWS:
            chosen = ranks < self.ranks.max()
            rows, ranks = rows[chosen], ranks[chosen]
        self._pending.append((rows, ranks))
        self._pending_rows += len(ranks)
        if self._pending_rows > SAMPLE_ROWS:
            self._trim(SAMPLE_ROWS)

    def _trim(self, size: int) -> None:
        if self._pending:
            self.sample = np.concatenate([self.sample, *(rows for rows, _ in self._pending)])
            self.ranks = np.concatenate([self.ranks, *(ranks for _, ranks in self._pending)])
            self._pending, self._pending_rows = [], 0
        if len(self.ranks) > size:
            kept = np.argpartition(self.ranks, size)[:size]
            self.sample, self.ranks = self.sample[kept], self.ranks[kept]


def _quantiles(sample: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shape (quantiles, width), each column over its finite values."""
    result = np.zeros((len(QUANTILES), sample.shape[1]))
    for place in range(sample.shape[1]):
        values = sample[:, place]
        values = values[np.isfinite(values)]
        if len(values):
            result[:, place] = np.quantile(values, list(QUANTILES.values()))
    return result


def _numbering(records: Sequence[EpisodeRecord]) -> dict[str, Any]:
    lengths = [record.length for record in records]
    columns = {
        EPISODE_INDEX: np.repeat([record.episode_index for record in records], lengths),
        INDEX: np.arange(sum(lengths)),
        TASK_INDEX: np.repeat([record.task_index for record in records], lengths),
    }
    figures: dict[str, Any] = {}
    for name, values in columns.items():
        column = values.astype(np.float64)
        if not len(column):
            column = np.zeros(1)
        figures[name] = {
            "min": [float(column.min())],
            "max": [float(column.max())],
            "mean": [float(column.mean())],
            "std": [float(column.std())],
            "count": [sum(lengths)],
            **{key: [float(np.quantile(column, share))] for key, share in QUANTILES.items()},
        }
    return figures
