"""Figures of a data set's numbers: axes, statuses, left and right. No picture is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mobile_vla.core import AXES
from mobile_vla.data.inspection.balance import balance
from mobile_vla.data.inspection.findings import Thresholds
from mobile_vla.data.inspection.trace import trace_of
from mobile_vla.data.reader import Dataset
from mobile_vla.data.schema import ACTION, STATE
from mobile_vla.data.stats import QUANTILES
from mobile_vla.data.store import STATS_PATH, read_json

SHARES = {
    "frames_by_status": "status",
    "frames_still": "still",
    "sides": "pass_on",
    "frames_sideways": "sideways",
    "frames_turning": "turning",
}
"""Counts of ``balance`` that are given as shares, and their names here."""
FIGURES = ("mean", "std", "min", *QUANTILES, "max")


@dataclass(frozen=True, slots=True)
class Summary:
    """``shares``: of each kind of thing, the share of each value, 0..1; kinds of which there is nothing are left out.

    ``axes``: of the actions and the measured velocity, for each axis, the figures of ``meta/stats.json`` in the units
    of the contract; the quantiles of more than 8192 frames come from a sample.
    """

    shares: dict[str, dict[str, float]]
    axes: dict[str, dict[str, dict[str, float]]]


def summary(dataset: Dataset) -> Summary:
    """Of the sound episodes. DatasetError when ``meta/stats.json`` cannot be read."""
    zero_share = Thresholds().zero_share
    counts = balance([trace_of(episode, dataset.contract, zero_share) for episode in dataset], dataset.contract)
    figures = read_json(dataset.root / STATS_PATH)
    return Summary(
        {name: shares for key, name in SHARES.items() if (shares := _shares(counts[key]))},
        {
            ACTION: _axes(figures[ACTION], dataset.contract.axes),
            STATE: _axes(figures[STATE], AXES),
        },
    )


def _shares(counts: Mapping[str, int]) -> dict[str, float]:
    total = sum(counts.values())
    return {name: number / total for name, number in counts.items()} if total else {}


def _axes(figures: Mapping[str, Any], axes: tuple[str, ...]) -> dict[str, dict[str, float]]:
    return {axis: {key: float(figures[key][place]) for key in FIGURES} for place, axis in enumerate(axes)}
