"""How much there is of each kind, and what there is too much or nothing of."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from mobile_vla.core import ActionContract
from mobile_vla.data.inspection.findings import Finding, Grade, Thresholds
from mobile_vla.data.inspection.trace import Trace
from mobile_vla.data.schema import EXTRA_OUTCOME, EXTRA_SCENARIO, STATUSES

Counts = dict[str, int]

UNLABELLED = "no label"
MAX_AT_LIMIT = 0.3


def balance(traces: Sequence[Trace], contract: ActionContract) -> dict[str, Any]:
    """Counts of episodes and of frames, for a report.

    The names that begin with ``frames`` count frames of drives (a survey's poses are no drives), the others episodes.
    """
    drives = [trace for trace in traces if not trace.survey]
    motions = [trace.motion for trace in drives]
    frames = sum(trace.record.length for trace in drives)
    still = sum(motion.still for motion in motions)
    statuses = sum((trace.motion.statuses for trace in traces), np.zeros(len(STATUSES) + 1, dtype=np.int64))
    return {
        "modes": _count(trace.mode or "not understood" for trace in traces),
        "sides": _count(trace.side for trace in traces),
        "kinds": _count(_target(trace, "kind") for trace in traces),
        "colours": _count(_target(trace, "colour") for trace in traces),
        "languages": _count(trace.language for trace in traces),
        "drivers": _count(trace.driver for trace in traces),
        "scenarios": _count(trace.record.extras.get(EXTRA_SCENARIO) for trace in traces),
        "outcomes": _count(trace.record.extras.get(EXTRA_OUTCOME) for trace in traces),
        "frames_by_status": dict(zip([*map(str, STATUSES), UNLABELLED], statuses.tolist(), strict=True)),
        "frames_still": {"still": still, "moving": frames - still},
        "frames_sideways": _pair(motions, "left", "right"),
        "frames_turning": _pair(motions, "turning_left", "turning_right"),
        "frames_used": _per_axis([motion.used for motion in motions], contract),
        "frames_at_limit": _per_axis([motion.at_limit for motion in motions], contract),
    }


def of_balance(
    traces: Sequence[Trace], contract: ActionContract, counts: dict[str, Any], limits: Thresholds
) -> Iterator[Finding]:
    """What is out of balance; a share counts from ``min_episodes`` on."""
    drives = [trace for trace in traces if not trace.survey]
    if len(drives) >= limits.min_episodes:
        yield from _of_stillness(counts, limits)
        yield from _of_axes(drives, contract, counts, limits)
        yield from _lopsided("that pass", counts["sides"], limits, "record more with the other side in the words")
        turns = {side: sum(trace.turn == sign for trace in drives) for side, sign in (("left", 1), ("right", -1))}
        yield from _lopsided("that turn", turns, limits, "record more turns to the other side")
        for name, what in (("frames_sideways", "sideways"), ("frames_turning", "turning")):
            yield from _lopsided_motion(drives, name, what, limits)
    if len(traces) >= limits.min_for_absence:
        yield from _of_statuses(counts["frames_by_status"])
    goals = {trace.reading.goal for trace in traces}
    if len(traces) >= limits.min_episodes and len(goals) == 1 and None not in goals:
        what = f"all {len(traces)} episodes have the same goal, as in {traces[0].record.instruction!r}"
        yield Finding(Grade.NOTE, "balance", what, "words cannot be learnt from one goal: record others too")


def _of_stillness(counts: dict[str, Any], limits: Thresholds) -> Iterator[Finding]:
    still, moving = counts["frames_still"]["still"], counts["frames_still"]["moving"]
    share = still / max(1, still + moving)
    if share > limits.max_still:
        what = f"the base is told to stand still in {share:.0%} of all frames"
        remedy = "a policy learns to stand: cut the waiting at the beginning and end of episodes"
        yield Finding(Grade.WARNING, "balance", what, remedy, value=share)


def _of_axes(
    drives: Sequence[Trace], contract: ActionContract, counts: dict[str, Any], limits: Thresholds
) -> Iterator[Finding]:
    for axis, used in counts["frames_used"].items():
        at_limit = counts["frames_at_limit"][axis]
        if used == 0 and len(drives) >= limits.min_for_absence:
            what = f"{axis} is never used"
            yield Finding(Grade.NOTE, "balance", what, "nothing to do for a base that cannot move along it", value=0.0)
        elif used and at_limit / used > MAX_AT_LIMIT:
            share = at_limit / used
            what = (
                f"{axis} is at its limit of {contract.limits[contract.axes.index(axis)]:g} in {share:.0%} of its uses"
            )
            remedy = "look whether faster motions were clipped: a contract with a wider limit keeps them apart"
            yield Finding(Grade.NOTE, "balance", what, remedy, value=share)


def _lopsided(whose: str, sides: Counts, limits: Thresholds, remedy: str) -> Iterator[Finding]:
    left, right = sides.get("left", 0), sides.get("right", 0)
    share = left / max(1, left + right)
    if left + right >= limits.min_episodes and min(share, 1 - share) < limits.min_side:
        what = f"of the episodes {whose} on a side, {left} are left and {right} right"
        yield Finding(Grade.WARNING, "balance", what, remedy, value=share)


def _lopsided_motion(drives: Sequence[Trace], name: str, what: str, limits: Thresholds) -> Iterator[Finding]:
    """By episodes, since frames of one episode go to the same side."""
    fields = ("left", "right") if name == "frames_sideways" else ("turning_left", "turning_right")
    more = [getattr(trace.motion, fields[0]) - getattr(trace.motion, fields[1]) for trace in drives]
    left, right = sum(each > 0 for each in more), sum(each < 0 for each in more)
    share = left / max(1, left + right)
    if left + right >= limits.min_episodes and min(share, 1 - share) < limits.min_side:
        words = f"{left} episodes go mostly left and {right} mostly right ({what})"
        remedy = "record the other side too, or let training mirror the data; check the sign if you did not expect it"
        yield Finding(Grade.WARNING, "balance", words, remedy, value=share)


def _of_statuses(frames: Counts) -> Iterator[Finding]:
    labelled = sum(count for name, count in frames.items() if name != UNLABELLED)
    for name, count in frames.items():
        if labelled and not count and name != UNLABELLED:
            what = f"no frame is labelled as {name}"
            yield Finding(Grade.NOTE, "balance", what, "a policy trained on this alone never reports it", value=0.0)


def _count(values: Iterable[Any]) -> Counts:
    return dict(Counter(str(value) for value in values if value is not None).most_common())


def _target(trace: Trace, part: str) -> Any:
    goal = trace.reading.goal
    return None if goal is None or goal.target is None else getattr(goal.target, part)


def _pair(motions: Sequence[Any], left: str, right: str) -> Counts:
    return {
        "left": sum(getattr(motion, left) for motion in motions),
        "right": sum(getattr(motion, right) for motion in motions),
    }


def _per_axis(rows: Sequence[Any], contract: ActionContract) -> Counts:
    total = sum(rows, np.zeros(len(contract.axes), dtype=np.int64))
    return dict(zip(contract.axes, total.tolist(), strict=True))
