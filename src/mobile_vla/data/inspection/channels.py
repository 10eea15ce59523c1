"""Red and blue exchanged: what pictures and labels can tell about the order of the channels, and how surely.

Where objects of a known colour are marked, their pixels are looked at: strong evidence. Elsewhere only the mean colour
of the pictures is left: in one room it hardly changes, so an episode with the sign of red minus blue turned round is
conspicuous. Another lamp can do the same, which is why that is a hint. A data set that is wrong throughout, and has no
marked objects, cannot be told from a right one.
"""

from collections.abc import Sequence

import numpy as np

from mobile_vla.data.inspection.findings import Finding, Grade
from mobile_vla.data.inspection.trace import Seen

FEW_LOOKS, MIN_LOOKS = 4, 8
"""At objects of a known colour: enough for a warning about an episode, and for an error or the whole data set."""
SWAPPED, DOUBTFUL = 0.2, 0.8
MIN_EPISODES = 8
DISTINCT = 4.0
"""Robust deviations that the mean colour must lie from grey, so that its mirror image means anything."""
MIRRORED = 3.0

REMEDY = "look at a picture of it; record or import it again with the right order"


def of_channels(traces: Sequence[Seen]) -> tuple[list[Finding], str]:
    """Findings, and a sentence that says how much there was to go by."""
    looks = [(seen.index, seen.pictures.fitting, seen.pictures.swapped) for seen in traces]
    fitting, swapped = sum(fit for _, fit, _ in looks), sum(swap for _, _, swap in looks)
    if fitting + swapped >= MIN_LOOKS:
        return _by_objects(looks, fitting, swapped), (
            f"{fitting} of {fitting + swapped} looks at objects of a known colour fit RGB "
            f"({sum(fit + swap > 0 for _, fit, swap in looks)} of {len(traces)} episodes have any)"
        )
    return _by_mean(traces)


def _by_objects(looks: Sequence[tuple[int, int, int]], fitting: int, swapped: int) -> list[Finding]:
    total = fitting + swapped
    share = fitting / total
    if share <= SWAPPED:
        what = f"red and blue are exchanged: {swapped} of {total} looks at objects of a known colour fit BGR, not RGB"
        return [Finding(Grade.ERROR, "channels", what, REMEDY, value=share)]
    findings = []
    for index, fit, swap in looks:
        if fit + swap >= FEW_LOOKS and fit / (fit + swap) <= SWAPPED:
            what = f"red and blue are exchanged here: {swap} of {fit + swap} looks at objects of a known colour fit BGR"
            grade = Grade.ERROR if fit + swap >= MIN_LOOKS else Grade.WARNING
            findings.append(Finding(grade, "channels", what, REMEDY, index, None, fit / (fit + swap)))
    if share < DOUBTFUL and not findings:
        what = f"only {fitting} of {total} looks at objects of a known colour fit it"
        remedy = "either some pictures are BGR, or boxes and colours are wrong: look at some of them"
        findings.append(Finding(Grade.WARNING, "channels", what, remedy, value=share))
    return findings


def _by_mean(traces: Sequence[Seen]) -> tuple[list[Finding], str]:
    seen = [(seen.index, seen.pictures.mean_rgb) for seen in traces]
    distances = np.array([mean[0] - mean[2] for _, mean in seen])
    if len(distances) < MIN_EPISODES:
        return [], "no marked objects of a known colour, and too few episodes to compare: the order is not checked"
    sizes = np.abs(distances)
    usual = float(np.median(sizes))
    spread = max(1.4826 * float(np.median(np.abs(sizes - usual))), 0.25)
    if usual < DISTINCT * spread:
        return (
            [],
            "no marked objects of a known colour, and pictures too different or too grey: the order is not checked",
        )
    sign = 1.0 if (distances > 0).sum() * 2 >= len(distances) else -1.0
    turned = [place for place, each in enumerate(distances) if abs(each + sign * usual) <= MIRRORED * spread]
    remark = (
        "no marked objects of a known colour; episodes were compared with each other by their mean colour, "
        "which cannot tell when all of them are wrong"
    )
    many = len(turned) * 3 > len(seen)
    return [
        Finding(
            Grade.WARNING,
            "channels",
            f"red minus blue is {distances[place]:+.1f} levels on average, and {sign * usual:+.1f} in "
            + ("the others" if not many else "about as many others: one of the two kinds has red and blue exchanged"),
            "a hint, no proof: another lamp can do the same. " + REMEDY.capitalize(),
            seen[place][0],
            None,
            float(distances[place]),
        )
        for place in turned
    ], remark
