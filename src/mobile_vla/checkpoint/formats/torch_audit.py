"""What is wrong with the parts of a torch zip file that hold no tensor's bytes, down to the last bit."""

import struct
from collections.abc import Iterator
from itertools import pairwise

from mobile_vla.checkpoint.formats.torch_records import (
    HEADER_BYTES,
    Known,
    Record,
    data_start,
    descriptor_bytes,
    is_damaged,
    zip64_bytes,
)
from mobile_vla.checkpoint.formats.zip_parts import HAS_DESCRIPTOR, MAX32, ZIP64, Entry, Header, blocks, is_filling
from mobile_vla.checkpoint.layout import Checksum, Problem

_UTF8 = 1 << 11
_SHOWN = 8


def misplaced(known: Known) -> Iterator[Problem]:
    """What the file lacks or has too much of, as a whole."""
    directory = known.directory
    harmless = known.contents is not None and not known.lost
    shift = directory.shift or 0
    if not directory.entries:
        yield Problem("its directory is lost: the file was cut off, or never finished", harmless=harmless)
    elif not directory.whole:
        yield Problem("parts of its directory are damaged or lost", harmless=harmless)
    if shift < 0:
        yield Problem(f"{-shift} bytes are missing before its directory", harmless=harmless)
    elif shift > 0:
        yield Problem(f"{shift} bytes too many stand before its directory", harmless=harmless)
    gaps = list(known.gaps())
    if gaps and gaps[-1] == (directory.tail, known.source.size) and directory.whole:
        # said of the directory already
        gaps.pop()
    for start, stop in gaps[:_SHOWN]:
        yield Problem(f"bytes {start} to {stop} belong to no record", harmless=True)
    if len(gaps) > _SHOWN:
        yield Problem(f"{len(gaps) - _SHOWN} more stretches of the file belong to no record", harmless=True)
    records = known.records
    for before, after in pairwise(records):
        if after.at < before.end:
            yield Problem(f"{_called(after)} begins before the one before it ends", harmless=True)
    if records and directory.entries and directory.whole and records[-1].end > directory.start:
        yield Problem(f"{_called(records[-1])} reaches into the directory")


def disagreements(known: Known, record: Record) -> Iterator[Problem]:
    """What header, entry and descriptor of a record say otherwise than each other, or than torch writes."""
    header, entry, descriptor = record.header, record.entry, record.descriptor
    wrong: list[str] = []
    if header is None:
        wrong.append("its local header is damaged or lost")
    elif bad := list(_header_faults(known, record, header)):
        wrong.append(f"its local header is damaged ({', '.join(bad)})")
    if entry is not None and (bad := list(_entry_faults(known, record, entry))):
        wrong.append(f"its directory entry is damaged ({', '.join(bad)})")
    elif entry is None and known.directory.whole:
        wrong.append("it is not in the directory")
    flags = (header.flags if header else 0) | (entry.flags if entry else 0)
    expected = {descriptor_bytes(at, record.size) for at in _written_at(known, record)}
    if record.size and (flags & HAS_DESCRIPTOR or known.by_torch):
        if descriptor is None:
            wrong.append("the descriptor behind its data is damaged or lost")
        elif known.by_torch and descriptor.end - descriptor.at not in expected:
            wrong.append("the descriptor behind its data is of the wrong kind")
    if record.name and len(record.witnesses) == 2 and not record.sure:
        wrong.append(f"it stands as {' and as '.join(repr(name) for name in record.witnesses)}")
    if not record.name:
        wrong.append("which one it is cannot be told")
    if wrong:
        yield Problem(f"{_called(record)}: {'; '.join(wrong)}", harmless=bool(record.name and record.checksums))


def checksums(known: Known) -> tuple[list[Checksum | None], list[Problem]]:
    """The checksum that counts for each record. Where directory and descriptor differ the data is read.

    The directory's says which bytes belong to a name, and so outweighs a descriptor that fits: that may have come there
    together with the bytes. Unless the directory's own is plainly what is damaged: zeroed, or wrong in one byte, or if
    the file's serialization id, which torch derives from all checksums, bears the descriptor's out.
    """
    if known.unchecked:
        return [None] * len(known.records), []
    problems: list[Problem] = []
    said = [record.checksums for record in known.records]
    actual = {
        place: known.source.crc32(record.start, record.size)
        for place, record in enumerate(known.records)
        if len(set(said[place])) > 1
    }
    doubtful = [place for place, crc in actual.items() if crc == said[place][-1]]
    fitting = [actual.get(place, crcs[0] if crcs else 0) for place, crcs in enumerate(said)]
    sealed = bool(doubtful) and known.is_sealed(fitting)
    counting: list[Checksum | None] = []
    for place, (record, crcs) in enumerate(zip(known.records, said, strict=True)):
        first, last = (crcs[0], crcs[-1]) if crcs else (0, 0)
        counts, called = first, _called(record)
        if place in doubtful and (sealed or is_damaged(first, last)):
            counts = last
            problems.append(Problem(f"{called}: the directory holds a wrong checksum for it", harmless=True))
        elif place in doubtful:
            what = "its bytes fit the one behind them, and so come from another save or another record"
            problems.append(Problem(f"{called}: directory and descriptor hold different checksums; {what}"))
        elif place in actual:
            damage = "the descriptor behind its data holds another checksum than the directory"
            problems.append(Problem(f"{called}: {damage}", harmless=actual[place] == first))
        counting.append(Checksum("crc32", f"{counts:08x}") if crcs else None)
    return counting, problems


def _called(record: Record) -> str:
    return record.name or f"the record at byte {record.start}"


def _written_at(known: Known, record: Record) -> tuple[int, ...]:
    """Where the header was when the file was written, or may have been."""
    if record.entry is not None:
        return (record.entry.offset,)
    return record.at, record.at - (known.directory.shift or 0)


def _is_filling(known: Known, header: Header, entry: Entry | None, size: int) -> bool:
    """The extra field is what torch fills a header with, up to the alignment."""
    if entry is not None:
        return header.extra == _filling(known, entry.offset, header, size)
    # where it stood when it was written is not known for sure
    return is_filling(header.extra, known.alignment)


def _filling(known: Known, at: int, header: Header, size: int) -> bytes:
    name = len(header.raw_name)
    values = ([size, 0] if size >= MAX32 else []) + ([at] if at >= MAX32 else [])
    filling = data_start(at, name, size, known.alignment) - at - HEADER_BYTES - name - zip64_bytes(at, size) - 4
    return _zip64(values) + struct.pack("<2sH", b"FB", filling) + b"Z" * filling


def _flags(size: int) -> int:
    return _UTF8 | HAS_DESCRIPTOR if size else _UTF8


def _zip64(values: list[int]) -> bytes:
    return struct.pack(f"<2H{len(values)}Q", ZIP64, 8 * len(values), *values) if values else b""


def _header_faults(known: Known, record: Record, header: Header) -> Iterator[str]:
    entry, size = record.entry, record.size
    if header.start != record.start:
        yield "its length"
    if known.by_torch:
        expected = (0, _flags(size), 0)
        if not _is_filling(known, header, entry, size):
            yield "filling"
    else:
        expected = (
            (entry.version, entry.flags, entry.method) if entry else (header.version, header.flags, header.method)
        )
        if blocks(header.extra)[1]:
            yield "extra field"
    for what, is_, should in zip(
        ("version", "flags", "method"), (header.version, header.flags, header.method), expected, strict=True
    ):
        if is_ != should:
            yield what
    if entry is not None and header.stamp != entry.stamp:
        yield "time"
    follows = header.flags & HAS_DESCRIPTOR or known.by_torch
    crc = 0 if follows else (entry.crc if entry is not None else header.crc)
    if header.crc != crc:
        yield "checksum"
    if {header.packed, header.size} != {0 if follows else size}:
        yield "size"


def _entry_faults(known: Known, record: Record, entry: Entry) -> Iterator[str]:
    size = record.size
    if {entry.packed, entry.size} != {size}:
        yield "size"
    if not size and entry.crc:
        yield "checksum"
    if entry.offset + (known.directory.shift or 0) != record.at and known.directory.whole:
        yield "place"
    if entry.disk:
        yield "disk"
    if not known.by_torch:
        if blocks(entry.extra)[1]:
            yield "extra field"
        return
    values = ([size, size] if size >= MAX32 else []) + ([entry.offset] if entry.offset >= MAX32 else [])
    found = (entry.made_by, entry.version, entry.flags, entry.method, entry.internal, entry.external)
    expected = (0, 0, _flags(size), 0, 0, 0)
    names = ("maker", "version", "flags", "method", "internal attributes", "attributes")
    for what, is_, should in zip(names, found, expected, strict=True):
        if is_ != should:
            yield what
    if entry.extra != _zip64(values):
        yield "extra field"
    if entry.comment:
        yield "comment"
