"""What is looked at after each episode, before anybody decides whether to keep it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mobile_vla.core import NS_PER_S, ActionContract
from mobile_vla.core.backports import StrEnum
from mobile_vla.robot.cameras.health import HealthSummary

MIN_FRAMES = 10
"""Two seconds at 5 Hz."""
MAX_GAP_PERIODS = 2.5
MAX_RATE_ERROR = 0.15
MAX_BAD_SHARE = 0.05
"""Of frames that are frozen, black or torn."""
MAX_ZERO_SHARE = 0.6
MAX_HELD_SHARE = 0.2
ZERO = 0.02
"""An action below this share of its limit on every axis counts as zero."""
MIN_MOTION = 0.02
"""The mean measured speed, as a share of the limits, below which a base that was told to move did not."""


class Verdict(StrEnum):
    """``BAD`` proposes to discard; ``NOTE`` is only to be known."""

    GOOD = "good"
    NOTE = "note"
    BAD = "bad"


@dataclass(frozen=True)
class Facts:
    """An episode of T frames. ``actions`` and ``measured``: (T, 3) in physical units.

    ``held_share``: of the control steps in which a motion was asked for and the safety layer held the robot. ``stop``:
    the sentence of a protective or emergency stop during the episode, else None.
    """

    contract: ActionContract
    capture_ns: NDArray[np.int64]
    actions: NDArray[np.float32]
    measured: NDArray[np.float32]
    health: HealthSummary
    held_share: float = 0.0
    stop: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: what was found, and what is asked for."""

    name: str
    found: str
    limit: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Report:
    """All lines; ``keep`` is the proposal."""

    rows: tuple[Row, ...]

    @property
    def keep(self) -> bool:
        """Nothing is bad."""
        return not self.bad

    @property
    def bad(self) -> tuple[str, ...]:
        """Names of what is."""
        return tuple(row.name for row in self.rows if row.verdict is Verdict.BAD)


def check(facts: Facts) -> Report:
    """Judge a finished episode."""
    frames = len(facts.capture_ns)
    rows = [_row("length", f"{frames} frames", f"at least {MIN_FRAMES}", frames >= MIN_FRAMES)]
    if frames >= 2:
        rows += _time_rows(facts)
    if frames:
        rows += [*_picture_rows(facts), *_action_rows(facts)]
    rows.append(_row("stops", facts.stop or "none", "none", facts.stop is None))
    return Report(tuple(rows))


def _time_rows(facts: Facts) -> list[Row]:
    rate_hz = facts.contract.frame_rate_hz
    gaps_s = np.diff(facts.capture_ns) / NS_PER_S
    longest_s, limit_s = float(gaps_s.max()), MAX_GAP_PERIODS / rate_hz
    lasted_s = float(gaps_s.sum())
    found_hz = (len(facts.capture_ns) - 1) / lasted_s if lasted_s > 0 else 0.0
    return [
        _row("longest gap", f"{longest_s:.2f} s", f"at most {limit_s:.2f} s", longest_s <= limit_s),
        _row(
            "capture rate",
            f"{found_hz:.2f} Hz",
            f"{rate_hz:g} Hz +- {MAX_RATE_ERROR:.0%}",
            abs(found_hz / rate_hz - 1) <= MAX_RATE_ERROR,
        ),
    ]


def _picture_rows(facts: Facts) -> list[Row]:
    health, frames = facts.health, max(1, facts.health.frames)
    return [
        _row(f"{name} frames", f"{count / frames:.0%}", f"at most {MAX_BAD_SHARE:.0%}", count / frames <= MAX_BAD_SHARE)
        for name, count in (("frozen", health.frozen), ("black", health.black), ("torn", health.torn))
    ]


def _action_rows(facts: Facts) -> list[Row]:
    limits = facts.contract.limits_array
    shares = np.abs(facts.actions) / limits
    moving = (shares >= ZERO).any(axis=1)
    zero = 1 - float(moving.mean())
    rows = [_row("zero actions", f"{zero:.0%}", f"at most {MAX_ZERO_SHARE:.0%}", zero <= MAX_ZERO_SHARE)]
    if moving.any():
        direction, share = _commonest(facts.actions[moving] / limits)
        rows.append(
            Row(
                "commonest action",
                f"{direction}, {share:.0%} of moving",
                "not all the same",
                Verdict.NOTE if share == 1 else Verdict.GOOD,
            )
        )
        speed = float((np.abs(facts.measured) / limits).max(axis=1).mean())
        rows.append(
            _row("the base moved", f"{speed:.0%} of its limit", f"at least {MIN_MOTION:.0%}", speed >= MIN_MOTION)
        )
    held = facts.held_share
    rows.append(_row("held by safety", f"{held:.0%}", f"at most {MAX_HELD_SHARE:.0%}", held <= MAX_HELD_SHARE))
    return rows


def _commonest(shares: NDArray[np.float32]) -> tuple[str, float]:
    """The commonest direction, by the signs of the axes, and its share of the rows (T, 3)."""
    signs = np.where(np.abs(shares) >= ZERO, np.sign(shares), 0).astype(np.int64)
    kinds, counts = np.unique(signs, axis=0, return_counts=True)
    words = (("forward", "back"), ("left", "right"), ("turn left", "turn right"))
    best = kinds[int(counts.argmax())]
    named = [pair[0] if sign > 0 else pair[1] for pair, sign in zip(words, best, strict=True) if sign]
    return " + ".join(named), float(counts.max() / counts.sum())


def _row(name: str, found: str, limit: str, good: bool) -> Row:
    return Row(name, found, limit, Verdict.GOOD if good else Verdict.BAD)
