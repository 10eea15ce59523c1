"""What can be wrong with one episode, whatever the others are: length, time, frozen pictures, sight of the target."""

from collections.abc import Iterator

import numpy as np

from mobile_vla.core import NS_PER_S, ActionContract, Mode, Status
from mobile_vla.data.inspection.findings import Finding, Grade, Thresholds
from mobile_vla.data.inspection.pictures import Changes
from mobile_vla.data.inspection.trace import Trace
from mobile_vla.data.numbers import impossible
from mobile_vla.data.reader import Episode
from mobile_vla.data.schema import CAPTURE_NS, GROUNDING_VISIBLE, STATE, STATUS, STATUSES


def of_numbers(episode: Episode, contract: ActionContract, survey: bool) -> Iterator[Finding]:
    """Numbers that the layout or the contract rule out: ``mobile-vla data validate`` finds these too."""
    index = episode.record.episode_index
    remedy = "discard the episode or convert it again: training would learn from a number that cannot be"
    for case in impossible(episode.columns, contract, survey):
        yield Finding(Grade.ERROR, "numbers", case.what, remedy, index, case.frame, case.value)


def of_time(episode: Episode, contract: ActionContract, limits: Thresholds) -> Iterator[Finding]:
    """Too short, too long, gaps, another rate. Times that do not grow are a matter of ``of_numbers``."""
    index, period_s = episode.record.episode_index, 1 / contract.frame_rate_hz
    seconds = len(episode) * period_s
    if seconds < limits.min_seconds:
        what = f"the episode is only {seconds:.2g} s long"
        yield Finding(Grade.WARNING, "length", what, "discard it if it ended by accident", index, None, seconds)
    if seconds > limits.max_seconds:
        what = f"the episode is {seconds:.0f} s long"
        remedy = "was the end of the recording forgotten? cut it, or discard it"
        yield Finding(Grade.WARNING, "length", what, remedy, index, None, seconds)
    steps_s = np.diff(episode[CAPTURE_NS]) / NS_PER_S
    if not len(steps_s) or (steps_s <= 0).any():
        return
    long = steps_s > limits.gap_periods * period_s
    if long.any():
        frame, longest_s = int(steps_s.argmax()), float(steps_s.max())
        bad = longest_s > limits.gap_warning_periods * period_s
        what = (
            f"{_many(int(long.sum()), 'gap')} in time, the longest {longest_s:.2f} s, "
            f"where frames should be {period_s:.2g} s apart"
        )
        remedy = (
            "the camera or the disk was too slow: cut the episode there, or discard it" if bad else "a frame was lost"
        )
        yield Finding(Grade.WARNING if bad else Grade.NOTE, "gap", what, remedy, index, frame, longest_s)
    rate_hz = 1 / float(np.median(steps_s))
    if len(steps_s) >= 4 and abs(rate_hz / contract.frame_rate_hz - 1) > limits.rate_error:
        what = f"frames come at {rate_hz:.3g} Hz where the contract says {contract.frame_rate_hz:g} Hz"
        remedy = "training takes the contract's rate for true: record or import it again at that rate"
        yield Finding(Grade.WARNING, "rate", what, remedy, index, None, rate_hz)


def of_frozen(episode: Episode, changes: Changes, contract: ActionContract, limits: Thresholds) -> Iterator[Finding]:
    """Pictures that stay the same, or almost the same, between two frames at which the base was measured to move.

    Almost the same counts only where there is contrast enough for a motion to show.
    """
    speed = np.abs(contract.normalise(episode[STATE])).max(axis=1)
    moves = np.minimum(speed[1:], speed[:-1]) >= limits.moving_share
    almost = (changes.difference < limits.frozen_levels) & (changes.contrast >= limits.min_contrast)
    stuck = moves & (changes.same | almost)
    if not stuck.any():
        return
    edges = np.flatnonzero(np.diff(np.concatenate([[False], stuck, [False]]).astype(np.int8)))
    starts, lengths = edges[::2], edges[1::2] - edges[::2]
    longest = int(lengths.argmax())
    frame, seconds = int(starts[longest]) + 1, float(lengths[longest]) / contract.frame_rate_hz
    alike = "the same" if changes.same[stuck].all() else "almost the same"
    what = (
        f"the base moves and the picture stays {alike}: {_many(int(stuck.sum()), 'time')}, "
        f"at most {int(lengths[longest])} in a row"
    )
    grade = Grade.ERROR if seconds >= limits.frozen_error_s else Grade.WARNING
    remedy = "the camera froze: cut those frames or discard the episode, and look at its cable and driver"
    yield Finding(grade, "frozen", what, remedy, episode.record.episode_index, frame, seconds)


def of_sight(episode: Episode, trace: Trace) -> Iterator[Finding]:
    """The named target is never in view, where somebody noted how much of it is seen."""
    seen = episode[GROUNDING_VISIBLE]
    if trace.mode != Mode.GO or not np.isfinite(seen).any() or (seen > 0).any():
        return
    arrived = episode[STATUS] == STATUSES.index(Status.ARRIVED)
    if arrived.any():
        what = "the target is never in view, and yet a frame is labelled as arrived"
        remedy = "the labels contradict each other: make them again, or discard the episode"
        frame = int(arrived.argmax())
        yield Finding(Grade.WARNING, "sight", what, remedy, trace.index, frame, float(np.nanmax(seen)))
    else:
        what = "the target is never in view"
        remedy = "look whether the words name what is there; a search without success is in order"
        yield Finding(Grade.NOTE, "sight", what, remedy, trace.index, None, float(np.nanmax(seen)))


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")
