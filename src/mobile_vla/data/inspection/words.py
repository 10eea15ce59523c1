"""Do the words, the labels beside them and the motion tell the same story?"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from mobile_vla.core import Goal
from mobile_vla.data.inspection.findings import Finding, Grade
from mobile_vla.data.inspection.trace import Trace
from mobile_vla.data.schema import EXTRA_GOAL_COLOUR, EXTRA_GOAL_KIND, EXTRA_GOAL_MODE, EXTRA_GOAL_SIDE

MIN_ASIDE_M = 0.05
MIN_TURN_RAD = 0.2
MIN_EPISODES = 10
"""Before the share of those that agree means anything."""
EXCHANGED, DOUBTFUL = 0.2, 0.8
NAMED_AT_MOST = 10


def of_words(traces: Sequence[Trace]) -> Iterator[Finding]:
    """Instructions that the rules refuse, and labels that differ from what the rules read."""
    refused: dict[str, list[Trace]] = defaultdict(list)
    for trace in traces:
        if trace.reading.refusal is not None:
            refused[trace.record.instruction].append(trace)
        elif trace.reading.goal is not None:
            yield from _of_labels(trace, trace.reading.goal)
    for instruction, those in refused.items():
        more = f", and {len(those) - 1} more episodes" if len(those) > 1 else ""
        what = f"{instruction!r} is no instruction that could be given to drive: {those[0].reading.refusal}{more}"
        remedy = "correct the words, or add them to the grammar (docs/instructions.md)"
        yield Finding(Grade.WARNING, "words", what, remedy, those[0].index, None, float(len(those)))


def _of_labels(trace: Trace, goal: Goal) -> Iterator[Finding]:
    target = goal.target
    read = {
        EXTRA_GOAL_MODE: goal.mode,
        EXTRA_GOAL_KIND: target and target.kind,
        EXTRA_GOAL_COLOUR: target and target.colour,
        EXTRA_GOAL_SIDE: goal.side,
    }
    for name, value in read.items():
        noted = trace.record.extras.get(name)
        if noted is None or noted == value:
            continue
        grade = Grade.NOTE if value is None else Grade.WARNING
        said = "the rules find none" if value is None else f"the rules read {str(value)!r}"
        what = f"{name} is {noted!r}, and {said} in {trace.record.instruction!r}"
        yield Finding(grade, "labels", what, "correct the label or the words", trace.index)


def of_sides(traces: Sequence[Trace]) -> tuple[list[Finding], dict[str, str]]:
    """Left and right in the words against the motion that was measured; also how sure the answer is."""
    drives = [trace for trace in traces if not trace.survey]
    passing = [
        (trace, trace.motion.aside_m * (1 if trace.side == "left" else -1))
        for trace in drives
        if trace.side is not None and abs(trace.motion.aside_m) >= MIN_ASIDE_M
    ]
    turning = [
        (trace, trace.motion.turned_rad * trace.turn)
        for trace in drives
        if trace.turn and abs(trace.motion.turned_rad) >= MIN_TURN_RAD
    ]
    findings: list[Finding] = []
    remarks = {}
    for name, axis, cases in (("sides", "linear_y", passing), ("turns", "angular_z", turning)):
        agree = [value > 0 for _, value in cases]
        if not agree:
            remarks[name] = "no drives whose words name left or right, to compare with the motion"
            continue
        against = [trace.index for trace, value in cases if value <= 0]
        share = float(np.mean(agree))
        remarks[name] = f"{sum(agree)} of {len(agree)} episodes go to the side that their words name"
        if not against:
            continue
        some = ", ".join(map(str, against[:NAMED_AT_MOST])) + (", ..." if len(against) > NAMED_AT_MOST else "")
        what = f"{len(against)} of {len(agree)} episodes go to the other side than their words name: episodes {some}"
        if len(agree) >= MIN_EPISODES and share <= EXCHANGED:
            remedy = f"left and right are probably exchanged: check the sign of {axis}, and which words are left"
            findings.append(Finding(Grade.ERROR, name, what, remedy, against[0], None, share))
        elif len(agree) >= MIN_EPISODES and share < DOUBTFUL:
            remedy = "the words would teach little: look at these episodes, and at who drove them"
            findings.append(Finding(Grade.WARNING, name, what, remedy, against[0], None, share))
        else:
            remedy = "look at them if a person or an expert drove; a policy makes such mistakes"
            findings.append(Finding(Grade.NOTE, name, what, remedy, against[0], None, share))
    return findings, remarks
