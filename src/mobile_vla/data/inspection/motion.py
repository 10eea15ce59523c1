"""What an episode's base did: how often it stood or went to a side, and where its path led."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mobile_vla.core import NS_PER_S, ActionContract
from mobile_vla.data.reader import Episode
from mobile_vla.data.schema import ACTION, CAPTURE_NS, STATE, STATUS, STATUSES

LATERAL, YAW = "linear_y", "angular_z"
SKETCH_FRAMES = 8
AT_LIMIT = 0.999
MIN_CHORD_M = 0.3


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """Counts of frames, and the path.

    ``still``: no action on any axis. ``left`` and ``right``: sideways; ``turning_left`` and ``turning_right``: on the
    yaw axis. ``used`` and ``at_limit`` (axes,). ``statuses`` (5,): by ``STATUSES``, and at the end without a label.
    ``sketch`` (8, axes): eight of the actions, evenly spread, as shares of the limits. ``aside_m``: how far the path
    lies beside the straight line from its first to its last place, on average, left positive; NaN when that line is
    short. ``turned_rad``: the heading at the end, counter-clockwise positive, from the measured velocity.
    """

    still: int
    left: int
    right: int
    turning_left: int
    turning_right: int
    used: NDArray[np.int64]
    at_limit: NDArray[np.int64]
    statuses: NDArray[np.int64]
    sketch: NDArray[np.float32]
    aside_m: float
    turned_rad: float


def motion_of(episode: Episode, contract: ActionContract, zero_share: float) -> Motion:
    """From the numbers of an episode; an action below ``zero_share`` of its limit counts as zero."""
    shares = contract.normalise(episode[ACTION])
    used = np.abs(shares) >= zero_share
    left, right = _sides(shares, contract, LATERAL, zero_share)
    turning_left, turning_right = _sides(shares, contract, YAW, zero_share)
    aside_m, turned_rad = _path(episode, contract)
    status = episode[STATUS]
    return Motion(
        still=int((~used.any(axis=1)).sum()),
        left=left,
        right=right,
        turning_left=turning_left,
        turning_right=turning_right,
        used=used.sum(axis=0),
        at_limit=(np.abs(shares) >= AT_LIMIT).sum(axis=0),
        statuses=np.array([(status == number).sum() for number in (*range(len(STATUSES)), -1)], dtype=np.int64),
        sketch=shares[np.linspace(0, len(shares) - 1, SKETCH_FRAMES).round().astype(int)],
        aside_m=aside_m,
        turned_rad=turned_rad,
    )


def _sides(shares: NDArray[np.float32], contract: ActionContract, axis: str, zero_share: float) -> tuple[int, int]:
    if axis not in contract.axes:
        return 0, 0
    column = shares[:, contract.axes.index(axis)]
    return int((column >= zero_share).sum()), int((column <= -zero_share).sum())


def _path(episode: Episode, contract: ActionContract) -> tuple[float, float]:
    """``aside_m`` and ``turned_rad``; steps that no clock can have made count as one frame's period."""
    state = episode[STATE].astype(np.float64)
    period_s = 1 / contract.frame_rate_hz
    steps_s = np.diff(episode[CAPTURE_NS], append=0) / NS_PER_S
    steps_s = np.where((steps_s > 0) & (steps_s < 10 * period_s), steps_s, period_s)
    turns = state[:, 2] * steps_s
    heading = np.cumsum(turns) - turns / 2
    velocity = (state[:, 0] + 1j * state[:, 1]) * np.exp(1j * heading)
    places = np.concatenate([[0], np.cumsum(velocity * steps_s)])
    chord = places[-1]
    turned_rad = float(turns.sum())
    if not np.isfinite(chord) or abs(chord) < MIN_CHORD_M:
        return float("nan"), turned_rad
    return float((places / (chord / abs(chord))).imag.mean()), turned_rad
