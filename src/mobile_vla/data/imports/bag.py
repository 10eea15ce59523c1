"""ROS 2 bags and MCAP: frames at the contract's rate by their capture stamps, the command in force as their action."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mobile_vla.core import AXES, NS_PER_S, DatasetError
from mobile_vla.data.imports.bag_file import SUFFIXES, BagFile, Raw, bags_of, numbers_of, pixels_of, text_of
from mobile_vla.data.imports.contents import Contents, SourceEpisode, fingerprint
from mobile_vla.data.imports.mapping import Axes, ImportMapping
from mobile_vla.data.imports.motion import places_of, require_chunk_rate, require_finite, within

CLOCKS_APART_NS = 10 * NS_PER_S
"""Stamps and times of recording that differ by more are of two clocks."""
SLOWEST_SHARE = 0.9
"""A camera may be slower than the contract's frame rate by this; what a loaded machine loses now and then."""
NO_STATE = "no measured velocity"
NO_INSTRUCTION = "no instruction"

_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True, eq=False)
class _Track:
    """Messages of one topic. ``times_ns`` int64 (T,), not falling; ``values`` float64 (T, 6)."""

    times_ns: NDArray[np.int64]
    values: NDArray[np.float64]

    def at(self, wanted_ns: NDArray[np.int64], timeout_s: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """The newest values (Q, 6) up to each time, and where there are none that are young enough."""
        places = np.searchsorted(self.times_ns, wanted_ns, side="right") - 1
        known = places >= 0
        if not len(self.times_ns):
            return np.zeros((len(wanted_ns), 6)), ~known
        ages = (wanted_ns - self.times_ns[np.maximum(places, 0)]) / NS_PER_S
        return self.values[np.maximum(places, 0)], ~known | (ages > timeout_s)


@dataclass(frozen=True, slots=True, eq=False)
class _Tape:
    """What an episode is cut from. ``captures_ns`` and ``received_ns`` int64 (F,) of the pictures, as recorded.

    ``said``: instructions with the time from which they hold. ``end_ns``: nothing is known of the time after it.
    """

    captures_ns: NDArray[np.int64]
    received_ns: NDArray[np.int64]
    tracks: dict[str, _Track]
    said: list[tuple[int, str]]
    end_ns: int


class BagSource:
    """One bag, or all bags below a folder. DatasetError when there is none that can be read."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise DatasetError(f"there is no bag at {path}: give another place")
        self.path, self._bags = path, bags_of(path)
        with BagFile(self._bags[0]) as bag:
            parts = bag.parts()
        notes: tuple[str, ...] = (
            "a Twist and a String have no stamp: the time at which the bag received them is theirs",
        )
        if len(self._bags) > 1:
            notes += (f"topics are those of {self._bags[0].name}; every bag must have those that are mapped",)
        self.contents = Contents("bag", path, len(self._bags), parts, notes=notes)

    def episodes(self, mapping: ImportMapping) -> Iterator[SourceEpisode]:
        """Of one bag after the other, cut where the instruction changes."""
        require_chunk_rate(mapping.contract)
        for path in self._bags:
            name = path.name if path == self.path else str(path.relative_to(self.path))
            with BagFile(path) as bag:
                tape = _tape(bag, mapping, name)
            yield from _cut(path, name, tape, mapping)


def _tape(bag: BagFile, mapping: ImportMapping, name: str) -> _Tape:
    """Everything but the pictures, in one go through the bag."""
    topics = list(dict.fromkeys([mapping.camera, *places_of(mapping.actions, mapping.states)]))
    told = mapping.words.value if mapping.words.origin == "topic" else None
    captures: list[int] = []
    received: list[int] = []
    tracks: dict[str, list[tuple[int, list[float]]]] = {topic: [] for topic in topics if topic != mapping.camera}
    said: list[tuple[int, str]] = []
    apart: list[int] = []
    unstamped = told is not None
    for raw in bag.messages([*topics, told] if told else topics):
        time_ns = _time_ns(raw, mapping, name)
        if raw.header_ns is None:
            unstamped = True
        if raw.topic == mapping.camera:
            captures.append(time_ns)
            received.append(raw.received_ns)
            apart.append(abs(raw.received_ns - time_ns))
        elif raw.topic == told:
            said.append((raw.received_ns, _read(raw, name, text_of)))
        else:
            tracks[raw.topic].append((time_ns, _read(raw, name, numbers_of)))
    if len(captures) < 2:
        raise DatasetError(f"{name} has {len(captures)} pictures on {mapping.camera}: leave this bag out")
    if unstamped and np.median(apart) > CLOCKS_APART_NS:
        raise DatasetError(
            f"{name}: the stamps of {mapping.camera} are {np.median(apart) / NS_PER_S:.0f} s from the time at which "
            "they were recorded, and other topics have no stamps: write `stamps: received` in the mapping"
        )
    return _Tape(
        np.array(captures, dtype=np.int64),
        np.array(received, dtype=np.int64),
        {topic: _track(entries) for topic, entries in tracks.items()},
        said,
        max([max(captures), *(entries[-1][0] for entries in tracks.values() if entries)]),
    )


def _time_ns(raw: Raw, mapping: ImportMapping, name: str) -> int:
    if raw.header_ns is None or mapping.stamps == "received":
        return raw.received_ns
    if raw.header_ns == 0:
        raise DatasetError(
            f"{name}: {raw.topic} has messages without a stamp: write `stamps: received` in the mapping, "
            "which takes the time at which the bag received them"
        )
    return raw.header_ns


def _track(entries: list[tuple[int, list[float]]]) -> _Track:
    ordered = sorted(entries, key=lambda entry: entry[0])
    times = np.array([time_ns for time_ns, _ in ordered], dtype=np.int64)
    return _Track(times, np.array([values for _, values in ordered], dtype=np.float64).reshape(-1, 6))


def _cut(path: Path, name: str, tape: _Tape, mapping: ImportMapping) -> Iterator[SourceEpisode]:
    """An episode for each stretch of one instruction; what was seen without one is left out."""
    rate_hz = mapping.contract.frame_rate_hz
    period_ns = float(np.median(np.diff(np.sort(tape.captures_ns))))
    camera_hz = NS_PER_S / max(period_ns, 1.0)
    if camera_hz < rate_hz * SLOWEST_SHARE:
        raise DatasetError(
            f"{name}: {mapping.camera} has {camera_hz:.3g} frames a second and contract.frame_rate_hz is {rate_hz:g}: "
            "write a lower frame_rate_hz in the mapping (nothing is made up between frames)"
        )
    frames = on_grid(tape.captures_ns, rate_hz, 0.5 * period_ns)
    idle = 0
    made = []
    for number, (text, start_ns, end_ns) in enumerate(_stretches(path, name, tape, mapping)):
        ours = frames[(tape.captures_ns[frames] >= start_ns) & (tape.captures_ns[frames] < end_ns)]
        if not text:
            idle += len(ours)
        elif len(ours):
            made.append(
                _episode(path, f"{name} part {number}", tape, ours, text, min(end_ns, tape.end_ns + 1), mapping)
            )
    if not made:
        raise DatasetError(
            f"{name} has no frame under an instruction: {mapping.words.value} said nothing before the last frame; "
            "give the words as `instruction: {text: ...}`, or leave this bag out"
        )
    for place, episode in enumerate(made):
        if not place and idle:
            episode = replace(episode, left_out={**episode.left_out, NO_INSTRUCTION: idle})
        yield episode


def _stretches(path: Path, name: str, tape: _Tape, mapping: ImportMapping) -> list[tuple[str, int, int]]:
    """(instruction, from, to before): the same words said again change nothing, empty ones end an episode."""
    end_of_time, words = np.iinfo(np.int64).max, mapping.words
    if words.origin == "text":
        return [(words.value, 0, end_of_time)]
    if words.origin == "file_name":
        return [(words.instruction(path.stem, name), 0, end_of_time)]
    changes = [(0, "")]
    for time_ns, text in tape.said:
        if text.strip() != changes[-1][1]:
            changes.append((time_ns, text.strip()))
    bounds = [*(time_ns for time_ns, _ in changes), end_of_time]
    return [
        (words.instruction(text, name) if text else "", start_ns, end_ns)
        for (_, text), (start_ns, end_ns) in zip(changes, pairwise(bounds), strict=True)
    ]


def _episode(
    path: Path, name: str, tape: _Tape, frames: NDArray[np.int64], text: str, end_ns: int, mapping: ImportMapping
) -> SourceEpisode:
    contract = mapping.contract
    captures = tape.captures_ns[frames]
    period_ns = round(NS_PER_S / contract.frame_rate_hz)
    if mapping.states is None:
        states, unknown = _commands(tape, captures - period_ns, mapping), np.zeros(len(frames), dtype=np.bool_)
        states = within(name, states, mapping, frames)[0]
    else:
        states, unknown = _asked(tape, mapping.states, captures, mapping.state_timeout_s)
    frames, captures, states = frames[~unknown], captures[~unknown], states[~unknown]
    if not len(frames):
        raise DatasetError(
            f"{name} has no frame with a velocity measured up to {mapping.state_timeout_s:g} s before it: correct "
            "state or state_timeout_s in the mapping, or leave this bag out"
        )
    require_finite(name, "state", states, frames)
    actions, clipped = within(name, _commands(tape, captures, mapping), mapping, frames)
    chosen = [(int(tape.received_ns[frame]), int(tape.captures_ns[frame])) for frame in frames]
    return SourceEpisode(
        name=name,
        key=f"bag {path.name} {fingerprint(*_files(path))} from {captures[0]}",
        instruction=text,
        capture_ns=captures,
        sequence=frames,
        actions=actions.astype(np.float32),
        chunks=_chunks(name, tape, captures, frames, end_ns, mapping),
        states=states.astype(np.float32),
        extras={"import.capture": f"{mapping.stamps} stamps of {mapping.camera}"},
        pictures=lambda: _pictures(path, name, chosen, mapping),
        clipped=clipped,
        left_out={NO_STATE: int(unknown.sum())} if unknown.any() else {},
    )


def on_grid(captures_ns: NDArray[np.int64], rate_hz: float, slack_ns: float) -> NDArray[np.int64]:
    """Places of the frames that come nearest to ``rate_hz``, on a grid that begins anew after each gap.

    A frame up to ``slack_ns`` before its place on the grid is taken, else jitter would skip every other one. Frames
    whose stamp does not grow are left out.
    """
    period_ns = NS_PER_S / rate_hz
    found: list[int] = []
    last = due = -np.inf
    for place, stamp in enumerate(captures_ns.tolist()):
        if stamp <= last or stamp < due - slack_ns:
            continue
        due = (stamp if stamp > due + period_ns else due) + period_ns
        last = stamp
        found.append(place)
    return np.array(found, dtype=np.int64)


def _asked(
    tape: _Tape, axes: Axes, wanted_ns: NDArray[np.int64], timeout_s: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(Q, 3) of the newest messages up to each time, and where one of the axes has none young enough."""
    result, unknown = np.zeros((len(wanted_ns), len(AXES))), np.zeros(len(wanted_ns), dtype=np.bool_)
    for place, axis in enumerate(axes):
        if axis is not None:
            values, missing = tape.tracks[axis.place].at(wanted_ns, timeout_s)
            result[:, place] = np.where(missing, 0.0, values[:, axis.index] * axis.factor)
            unknown |= missing
    return result, unknown


def _commands(tape: _Tape, wanted_ns: NDArray[np.int64], mapping: ImportMapping) -> NDArray[np.float64]:
    """The command in force at each time; zero where none came for ``command_timeout_s``: the base stood by then."""
    return _asked(tape, mapping.actions, wanted_ns, mapping.command_timeout_s)[0]


def _chunks(
    name: str, tape: _Tape, captures: NDArray[np.int64], frames: NDArray[np.int64], end_ns: int, mapping: ImportMapping
) -> NDArray[np.float32]:
    contract = mapping.contract
    shape = (len(captures), contract.horizon, len(AXES))
    if mapping.chunk == "none":
        return np.full(shape, np.nan, dtype=np.float32)
    ahead = np.round(np.arange(contract.horizon) * (NS_PER_S / contract.rate_hz)).astype(np.int64)
    times = (captures[:, None] + ahead).reshape(-1)
    known = times < end_ns
    rows = np.full((len(times), len(AXES)), np.nan)
    rows[known] = within(
        name, _commands(tape, times[known], mapping), mapping, np.repeat(frames, contract.horizon)[known]
    )[0]
    return rows.reshape(shape).astype(np.float32)


def _pictures(
    path: Path, name: str, chosen: list[tuple[int, int]], mapping: ImportMapping
) -> Iterator[NDArray[np.uint8]]:
    """Those with the chosen (received, capture) times, which come in the order of the bag."""
    waiting = iter(chosen)
    due = next(waiting, None)
    with BagFile(path) as bag:
        for raw in bag.messages([mapping.camera], chosen[0][0], chosen[-1][0] + 1):
            if due is None:
                return
            if (raw.received_ns, _time_ns(raw, mapping, name)) == due:
                yield _read(raw, name, lambda each: pixels_of(each, mapping.channel_order))
                due = next(waiting, None)


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(each for each in path.iterdir() if each.suffix in SUFFIXES)


def _read(raw: Raw, name: str, reader: Callable[[Raw], _Read]) -> _Read:
    """DatasetError naming topic and time for a message that cannot be read."""
    try:
        return reader(raw)
    except ValueError as error:
        raise DatasetError(
            f"{name}: the message on {raw.topic} at {raw.received_ns} ns cannot be read: {error}"
        ) from error
