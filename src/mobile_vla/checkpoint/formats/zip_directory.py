"""The directory at the end of a zip file, whole or in parts, and whether the end records agree with it."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mobile_vla.checkpoint.formats.zip_parts import (
    END,
    END64_BYTES,
    END_BYTES,
    ENTRY,
    LOCATOR_BYTES,
    MAX16,
    MAX32,
    PIECE,
    End,
    End64,
    Entry,
    Locator,
    Source,
    end64_at,
    end_in,
    entry_in,
    locator_at,
    signatures,
)
from mobile_vla.checkpoint.layout import Problem
from mobile_vla.core import UnsafeCheckpointError

MAX_ENTRIES = 300_000
"""More records than any model has tensors; each costs us about half a kilobyte."""
MAX_DIRECTORY_BYTES = 128 * 2**20

_COMMENT_BYTES = MAX16
_TRIED_ENDS = 16


@dataclass(frozen=True)
class Directory:
    """Entries from byte ``start`` to ``end``, and the end records up to ``tail``.

    ``whole``: they follow one another without a gap up to the end records, which agree with them. ``shift`` is how far
    the directory stands from where the end records say: negative where bytes are lost, None where nothing tells.
    """

    start: int
    end: int
    tail: int
    entries: tuple[Entry, ...]
    whole: bool
    shift: int | None
    comment_bytes: int = 0
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class _Ends:
    """The end records, those that are there; ``at`` is where the first of them begins."""

    at: int
    tail: int
    end: End | None
    end64: End64 | None
    locator: Locator | None


def read_directory(source: Source) -> Directory:
    """What is left of the directory. UnsafeCheckpointError for one of an absurd size."""
    groups = [_ends(source, end) for end in _end_records(source)]
    for ends in groups:
        for start in _said_starts(ends):
            entries = _chain(source, start, ends.at)
            if entries is not None:
                return _whole(source, start, tuple(entries), ends)
    return _parts(source, groups[0] if groups else None)


def entry_at(source: Source, at: int) -> Entry | None:
    """The entry at a byte of the file, if it can be one that torch wrote and no accident of a tensor's bytes."""
    entry = entry_in(source.read(at, 1024), 0, at) or entry_in(source.read(at, 4 * MAX16), 0, at)
    if entry is None or entry.packed != entry.size or entry.disk or entry.comment or not entry.name.isprintable():
        return None
    return entry


def _end_records(source: Source) -> Iterator[End]:
    """Those near the end of the file, last first, the ones whose comment ends with the file before all others."""
    base = max(0, source.size - END_BYTES - _COMMENT_BYTES)
    data = source.read(base, source.size - base)
    found: list[End] = []
    place = data.rfind(END)
    while place >= 0 and len(found) < _TRIED_ENDS:
        end = end_in(data, place, base)
        if end is not None:
            found.append(end)
        place = data.rfind(END, 0, place)
    yield from sorted(found, key=lambda end: end.at + END_BYTES + end.comment_size != source.size)


def _ends(source: Source, end: End) -> _Ends:
    tail = min(end.at + END_BYTES + end.comment_size, source.size)
    locator = locator_at(source, end.at - LOCATOR_BYTES)
    end64 = end64_at(source, end.at - LOCATOR_BYTES - END64_BYTES)
    if locator is None and end64 is None:
        return _Ends(end.at, tail, end, None, None)
    return _Ends(end.at - LOCATOR_BYTES - END64_BYTES, tail, end, end64, locator)


def _said_starts(ends: _Ends) -> list[int]:
    """Where the directory may begin, by its size, or by its offset should the size be damaged."""
    starts: list[int] = []
    for record in (ends.end64, ends.end):
        if record is not None:
            starts += [ends.at - record.directory_size, record.directory_offset]
    return list(dict.fromkeys(start for start in starts if 0 <= start <= ends.at))


def _chain(source: Source, start: int, stop: int) -> list[Entry] | None:
    """The entries from ``start`` to exactly ``stop``, None if they do not lie so."""
    if source.read(start, 4) != ENTRY:
        # an archive without entries is none of torch's
        return None
    entries: list[Entry] = []
    at = start
    while at < stop:
        data = source.read(at, min(PIECE, stop - at))
        place = 0
        while (entry := entry_in(data, place, at)) is not None:
            entries.append(entry)
            place = entry.end - at
            _limit(source, len(entries), entry.end - start)
        if place == 0:
            return None
        at += place
    return entries


def _limit(source: Source, entries: int, size: int = 0) -> None:
    if entries > MAX_ENTRIES or size > MAX_DIRECTORY_BYTES:
        raise UnsafeCheckpointError(
            source.path, f"a zip directory of more than {entries - 1} entries", "no model has so many records"
        )


def _whole(source: Source, start: int, entries: tuple[Entry, ...], ends: _Ends) -> Directory:
    shift = _shift(start, ends)
    by_torch = sum(entry.made_by == 0 for entry in entries) * 2 > len(entries)
    problems = _disagreements(start - shift, start, len(entries), ends, by_torch)
    # with entries missing, those that are left may still follow one another
    whole = not problems
    comment = ends.end.comment_size if ends.end else 0
    if ends.tail < source.size:
        problems.append(Problem(f"{source.size - ends.tail} bytes follow the end of the archive", harmless=True))
    elif ends.end and ends.end.at + END_BYTES + comment > source.size:
        problems.append(Problem("its end record announces a comment that is not there", harmless=True))
        comment = 0
    return Directory(start, ends.at, ends.tail, entries, whole, shift, comment, tuple(problems))


def _shift(start: int, ends: _Ends) -> int:
    """By what most end records say, the smaller one where they are at odds."""
    votes: list[int] = []
    for record in (ends.end64, ends.end):
        if record is not None and record.directory_offset != MAX32:
            votes.append(start - record.directory_offset)
    if ends.locator is not None:
        votes.append(ends.at - ends.locator.end64_offset)
    counts = Counter(votes)
    return min(votes, key=lambda vote: (-counts[vote], abs(vote)), default=0)


def _disagreements(offset: int, start: int, count: int, ends: _Ends, by_torch: bool) -> list[Problem]:
    """``offset`` is what the end records should say of the directory that stands at ``start``."""
    size = ends.at - start
    wrong: list[str] = []
    end, end64, locator = ends.end, ends.end64, ends.locator
    if end is not None:
        short = (0, 0, min(count, MAX16), min(count, MAX16), min(size, MAX32), min(offset, MAX32))
        said = (end.disk, end.first_disk, end.here, end.count, end.directory_size, end.directory_offset)
        if said != short:
            wrong.append("the end record")
    if end64 is not None:
        long = (END64_BYTES - 12, 0, 0, count, count, size, offset)
        said64 = (end64.record_size, end64.disk, end64.first_disk, end64.here, end64.count)
        # "made for Unix by version 3.0", from the library that torch builds on; others write what they like
        versions = end64.version == 45 and (end64.made_by == 0x031E or not by_torch)
        if (*said64, end64.directory_size, end64.directory_offset) != long or not versions:
            wrong.append("the zip64 end record")
    if (locator is None) != (end64 is None):
        wrong.append("the zip64 locator" if locator is None else "the zip64 end record")
    elif locator is not None and (locator.disk, locator.end64_offset, locator.disks) != (0, offset + size, 1):
        wrong.append("the zip64 locator")
    return [Problem(f"{each} does not fit the directory before it", harmless=True) for each in dict.fromkeys(wrong)]


def _parts(source: Source, ends: _Ends | None) -> Directory:
    """From what the last stretch of the file holds; records found before it bring more entries to light."""
    stop = ends.at if ends is not None else source.size
    entries = _entries_between(source, max(0, stop - PIECE), stop)
    tail = ends.tail if ends is not None else stop
    if not entries:
        return Directory(stop, stop, tail, (), False, None)
    start, end = entries[0].at, entries[-1].end
    shift = _shift(start, ends) if ends is not None and len(_in_a_row(entries)) == len(entries) else None
    return Directory(start, end, tail, tuple(entries), False, shift)


def _entries_between(source: Source, start: int, stop: int) -> list[Entry]:
    found: list[Entry] = []
    for at, signature in signatures(source, start, stop):
        entry = entry_at(source, at) if signature == ENTRY else None
        if entry is not None:
            found.append(entry)
            _limit(source, len(found))
    return found


def _in_a_row(entries: Iterable[Entry]) -> list[Entry]:
    row: list[Entry] = []
    for entry in entries:
        if row and entry.at != row[-1].end:
            break
        row.append(entry)
    return row
