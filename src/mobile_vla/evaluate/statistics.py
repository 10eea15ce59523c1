"""Shares with their intervals, path efficiency, percentiles and the bootstrap: what stands beside every figure."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

_Z_95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Share:
    """``count`` of ``total``, with Wilson's 95 % interval (Wilson 1927); all of it unknown (NaN) where total is 0."""

    count: int
    total: int

    def __post_init__(self) -> None:
        if not 0 <= self.count <= self.total:
            raise ValueError(f"a share of {self.count} out of {self.total}")

    @classmethod
    def of(cls, outcomes: Iterable[bool]) -> "Share":
        """How many of these are true."""
        listed = list(outcomes)
        return cls(sum(listed), len(listed))

    @property
    def value(self) -> float:
        """In 0..1."""
        return self.count / self.total if self.total else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """(low, high), in 0..1, around ``value``."""
        return wilson(self.count, self.total)

    def to_dict(self) -> dict[str, float | int | None]:
        """For JSON; None for what is unknown."""
        low, high = self.interval
        known = self.total > 0
        return {
            "count": self.count,
            "total": self.total,
            "value": self.value if known else None,
            "low": low if known else None,
            "high": high if known else None,
        }

    def __str__(self) -> str:
        if not self.total:
            return "-"
        low, high = self.interval
        return f"{100 * self.value:.0f} % [{100 * low:.0f}, {100 * high:.0f}] ({self.count}/{self.total})"


def wilson(count: int, total: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927); (NaN, NaN) where ``total`` is 0."""
    if total == 0:
        return math.nan, math.nan
    share, z2 = count / total, _Z_95**2
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z_95 / (1 + z2 / total) * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    low = 0.0 if count == 0 else max(0.0, middle - half)
    high = 1.0 if count == total else min(1.0, middle + half)
    return low, high


def spl_term(success: bool, shortest_m: float, path_m: float) -> float:
    """One drive's part of SPL, success weighted by path length (Anderson et al. 2018): in 0..1."""
    if not success:
        return 0.0
    longest = max(shortest_m, path_m)
    return shortest_m / longest if longest > 0 else 1.0


@dataclass(frozen=True, slots=True)
class Spread:
    """Of a set of numbers: how many, mean, and the 10th, 50th and 90th percentile; NaN where there are none."""

    total: int
    mean: float
    p10: float
    p50: float
    p90: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Numbers that are not finite are an error: ValueError."""
        if not values:
            return cls(0, math.nan, math.nan, math.nan, math.nan)
        listed = np.asarray(values, dtype=np.float64)
        if not np.isfinite(listed).all():
            raise ValueError("a spread needs finite numbers")
        low, middle, high = (float(value) for value in np.percentile(listed, (10, 50, 90)))
        return cls(len(values), float(listed.mean()), low, middle, high)

    def to_dict(self) -> dict[str, float | int | None]:
        """For JSON; None for what is unknown."""
        known = self.total > 0
        figures = {"mean": self.mean, "p10": self.p10, "p50": self.p50, "p90": self.p90}
        return {"total": self.total} | {name: value if known else None for name, value in figures.items()}


@dataclass(frozen=True, slots=True)
class Paired:
    """Two drivers, or two ways to say it, on the same scenes: where only one of them succeeded.

    ``p_value``: exact McNemar test, two-sided; 1 where they never differ.
    """

    only_first: int
    only_second: int
    both: int
    neither: int

    @classmethod
    def of(cls, outcomes: Iterable[tuple[bool, bool]]) -> "Paired":
        """From pairs of successes."""
        listed = list(outcomes)
        counts = [listed.count(pair) for pair in ((True, False), (False, True), (True, True), (False, False))]
        return cls(*counts)

    @property
    def p_value(self) -> float:
        """Probability of so uneven a division, or more, if both were equally good."""
        differing = self.only_first + self.only_second
        return float(binomtest(self.only_first, differing).pvalue) if differing else 1.0

    def to_dict(self) -> dict[str, float | int]:
        """For JSON."""
        return asdict(self) | {"p_value": self.p_value}


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with the 95 % interval of a bootstrap over clusters, such as episodes, whose parts are alike."""

    value: float
    low: float
    high: float

    @classmethod
    def of(
        cls, sums: NDArray[np.float64], counts: NDArray[np.int64], rng: np.random.Generator, draws: int = 1000
    ) -> "Estimate":
        """``sums`` and ``counts`` of each cluster, shape (clusters,). ValueError where there are no parts."""
        if len(sums) == 0 or counts.sum() == 0:
            raise ValueError("there is nothing to estimate a mean from")
        totals = bootstrap_totals(np.column_stack([sums, counts]), rng, draws)
        return cls.of_draws(totals[:, 0] / np.maximum(totals[:, 1], 1))

    @classmethod
    def of_draws(cls, values: NDArray[np.float64]) -> "Estimate":
        """From one figure worked out on each row of ``bootstrap_totals``: the first row is the value itself."""
        low, high = np.percentile(values[1:], (2.5, 97.5))
        return cls(float(values[0]), float(low), float(high))

    def scaled(self, factor: float) -> "Estimate":
        """In another unit; ``factor`` is positive."""
        return Estimate(self.value * factor, self.low * factor, self.high * factor)


def bootstrap_totals(parts: NDArray[np.float64], rng: np.random.Generator, draws: int = 1000) -> NDArray[np.float64]:
    """Sums over clusters as they are, then over clusters drawn with replacement, as many as there are.

    ``parts``: (clusters, columns). Returns (1 + draws, columns). All columns share the draws, so what is worked out
    from several of them, such as a root mean square or the difference of two predictors, is drawn in pairs.
    ValueError without clusters.
    """
    clusters = len(parts)
    if clusters == 0:
        raise ValueError("there is nothing to draw from")
    totals = np.empty((1 + draws, parts.shape[1]))
    totals[0] = parts.sum(axis=0)
    for draw in range(draws):
        times = np.bincount(rng.integers(clusters, size=clusters), minlength=clusters)
        totals[1 + draw] = times @ parts
    return totals
