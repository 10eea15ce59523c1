"""Numbers of an episode that cannot be so, whoever recorded it: what the layout and the action contract rule out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobile_vla.core import NS_PER_S, ActionContract
from mobile_vla.data.schema import (
    ACTION,
    ACTION_CHUNK,
    CAPTURE_NS,
    EXTRA_DRIVER,
    GROUNDING_VISIBLE,
    SEQUENCE,
    STATE,
    STATUS,
    STATUSES,
    UNLABELLED,
)
from mobile_vla.data.store import EpisodeRecord

LIMIT_TOLERANCE = 1e-4
RATE_FACTOR = 1.5
"""How far the usual step between two frames may be from the contract's before it must be another rate or unit."""
SURVEY = "survey"
"""As driver: the frames are poses without an order in time, so ``capture_ns`` counts them and nothing moves between."""


@dataclass(frozen=True, slots=True)
class Impossible:
    """``what`` names the column; ``frame`` is the first one concerned, ``value`` what stands there."""

    what: str
    frame: int
    value: float


def is_survey(record: EpisodeRecord) -> bool:
    """The episode is a set of poses, not a drive."""
    return record.extras.get(EXTRA_DRIVER) == SURVEY


def impossible(
    columns: Mapping[str, NDArray[Any]], contract: ActionContract, survey: bool = False
) -> Iterator[Impossible]:
    """All of them, at most one for each rule; ``columns`` are (T,) or (T, width). A ``survey`` has no rate."""
    for name in (STATE, ACTION):
        yield from _first(
            ~np.isfinite(columns[name]), columns[name], f"the column {name} has values that are not finite"
        )
    action = columns[ACTION]
    beyond = np.abs(action) > contract.limits_array * (1 + LIMIT_TOLERANCE)
    yield from _first(beyond, action, f"actions exceed the limits of the contract, {contract.limits}")
    chunk = columns[ACTION_CHUNK].reshape(len(action), contract.horizon, -1)
    partly = ~np.isfinite(chunk) & np.isfinite(chunk).any(axis=2, keepdims=True)
    yield from _first(
        partly | np.isinf(chunk),
        chunk,
        f"the column {ACTION_CHUNK} has rows that are partly numbers: give a row whole, or leave it out whole as NaN",
    )
    yield from _time(columns, contract, survey)
    unknown = ~np.isin(columns[STATUS], [UNLABELLED, *range(len(STATUSES))])
    yield from _first(unknown, columns[STATUS], f"the column {STATUS} has numbers that mean nothing")
    visible = columns[GROUNDING_VISIBLE]
    yield from _first((visible < 0) | (visible > 1), visible, f"the column {GROUNDING_VISIBLE} leaves 0..1")


def _time(columns: Mapping[str, NDArray[Any]], contract: ActionContract, survey: bool) -> Iterator[Impossible]:
    steps_s = np.diff(columns[CAPTURE_NS]) / NS_PER_S
    yield from _first(
        np.concatenate([[False], steps_s <= 0]),
        columns[CAPTURE_NS],
        "capture times do not grow: the camera gave a frame twice, or its clock went back",
    )
    yield from _first(
        np.concatenate([[False], np.diff(columns[SEQUENCE]) <= 0]),
        columns[SEQUENCE],
        "frame numbers do not grow: the camera gave a frame twice",
    )
    usual_s = float(np.median(steps_s)) if len(steps_s) else 0.0
    ratio = usual_s * contract.frame_rate_hz
    if not survey and usual_s > 0 and not 1 / RATE_FACTOR < ratio < RATE_FACTOR:
        yield Impossible(
            f"frames are usually {usual_s:.3g} s apart, where the contract says {1 / contract.frame_rate_hz:.3g} s: "
            "the data set has another rate, or its times another unit than nanoseconds",
            0,
            usual_s,
        )


def _first(wrong: NDArray[np.bool_], values: NDArray[Any], what: str) -> Iterator[Impossible]:
    rows = np.flatnonzero(wrong.reshape(len(wrong), -1).any(axis=1))
    if len(rows):
        frame = int(rows[0])
        culprit = float(values[frame][wrong[frame]].ravel()[0]) if wrong.ndim > 1 else float(values[frame])
        yield Impossible(what, frame, culprit)
