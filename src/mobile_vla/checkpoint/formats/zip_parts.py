"""The parts of a zip file, each read where it stands: local headers, descriptors, directory entries, end records.

Nothing here trusts one part because of another. The format: PKWARE's APPNOTE.TXT 6.3.10, sections 4.3 and 4.5.3.
"""

import os
import re
import struct
import zlib
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

from mobile_vla.core import CheckpointError, UnsafeCheckpointError

PIECE = 16 * 2**20
"""Most bytes read at once."""
HEADER, ENTRY, DESCRIPTOR = b"PK\x03\x04", b"PK\x01\x02", b"PK\x07\x08"
END, END64, LOCATOR = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
END_BYTES, END64_BYTES, LOCATOR_BYTES = 22, 56, 20
MAX16, MAX32 = 0xFFFF, 0xFFFFFFFF
HAS_DESCRIPTOR = 1 << 3
"""The flag of an entry whose checksum and sizes follow its data."""
ZIP64, FILLING = 1, 0x4246
"""Numbers of the extra blocks with 64-bit sizes and offset, and of torch's own ("FB") that holds filling."""

_HEADER = struct.Struct("<4s5H3I2H")
_ENTRY = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")
_NARROW, _WIDE = struct.Struct("<4s3I"), struct.Struct("<4sI2Q")
_MOST_READINGS = 16
_SIGNATURES = re.compile(rb"PK(?:\x01\x02|\x03\x04|\x05\x06|\x06\x06|\x06\x07|\x07\x08)")


class Source:
    """A file's bytes by their places, in pieces; a context manager. CheckpointError where it cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
        self.size = os.fstat(self._handle).st_size
        self._hashed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        os.close(self._handle)

    def read(self, offset: int, count: int) -> bytes:
        """Up to ``count`` bytes from ``offset``; fewer only where the file ends, none before its start."""
        if offset < 0 or offset >= self.size:
            return b""
        parts = []
        try:
            while count > 0 and (part := os.pread(self._handle, min(count, PIECE), offset)):
                parts.append(part)
                offset, count = offset + len(part), count - len(part)
        except OSError as error:
            raise CheckpointError(f"{self.path} cannot be read at byte {offset}: {error.strerror}") from error
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def crc32(self, offset: int, size: int) -> int:
        """Of ``size`` bytes, or of as many as there are.

        UnsafeCheckpointError for a file made to be read over and over: damage never asks for that.
        """
        crc = 0
        self._hashed += min(size, self.size)
        if self._hashed > _MOST_READINGS * self.size + 4 * PIECE:
            reason = "to check it would mean to read all of it again and again"
            raise UnsafeCheckpointError(self.path, "parts that overlap by the thousand", reason)
        while size > 0 and (piece := self.read(offset, min(size, PIECE))):
            crc = zlib.crc32(piece, crc)
            offset, size = offset + len(piece), size - len(piece)
        return crc


@dataclass(frozen=True, slots=True)
class Header:
    """A local header at byte ``at``; ``packed`` and ``size`` as they stand there, zip64 sizes where it has them."""

    at: int
    version: int
    flags: int
    method: int
    stamp: int
    crc: int
    packed: int
    size: int
    raw_name: bytes
    extra: bytes

    @property
    def name(self) -> str:
        """As text."""
        return text(self.raw_name)

    @property
    def start(self) -> int:
        """The first byte of the data."""
        return self.at + _HEADER.size + len(self.raw_name) + len(self.extra)


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the directory, itself at byte ``at`` up to ``end``; zip64 values stand in ``size``, ``offset``."""

    at: int
    end: int
    made_by: int
    version: int
    flags: int
    method: int
    stamp: int
    crc: int
    packed: int
    size: int
    disk: int
    internal: int
    external: int
    offset: int
    raw_name: bytes
    extra: bytes
    comment: bytes

    @property
    def name(self) -> str:
        """As text."""
        return text(self.raw_name)

    @property
    def wide(self) -> bool:
        """Its descriptor has 64-bit sizes."""
        return self.size >= MAX32 or self.offset >= MAX32

    @property
    def descriptor_bytes(self) -> int:
        """What follows its data."""
        return (_WIDE if self.wide else _NARROW).size if self.flags & HAS_DESCRIPTOR else 0


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A checksum and size that follow an entry's data, at byte ``at`` up to ``end``."""

    at: int
    end: int
    crc: int
    size: int


@dataclass(frozen=True, slots=True)
class End:
    """The end record at byte ``at``."""

    at: int
    disk: int
    first_disk: int
    here: int
    count: int
    directory_size: int
    directory_offset: int
    comment_size: int


@dataclass(frozen=True, slots=True)
class End64:
    """The zip64 end record at byte ``at``."""

    at: int
    record_size: int
    made_by: int
    version: int
    disk: int
    first_disk: int
    here: int
    count: int
    directory_size: int
    directory_offset: int


@dataclass(frozen=True, slots=True)
class Locator:
    """Says where the zip64 end record is."""

    at: int
    disk: int
    end64_offset: int
    disks: int


def text(raw: bytes) -> str:
    """A name for people: what is no UTF-8 is shown by its codes."""
    return raw.decode("utf-8", "backslashreplace")


def header_at(source: Source, at: int) -> Header | None:
    """The local header at ``at``, None where there is none."""
    data = source.read(at, 1024)
    if len(data) < _HEADER.size or not data.startswith(HEADER):
        return None
    _, version, flags, method, time, date, crc, packed, size, name_size, extra_size = _HEADER.unpack_from(data)
    if len(data) < _HEADER.size + name_size + extra_size:
        data = source.read(at, _HEADER.size + name_size + extra_size)
    name = data[_HEADER.size : _HEADER.size + name_size]
    extra = data[_HEADER.size + name_size : _HEADER.size + name_size + extra_size]
    if len(name) < name_size or len(extra) < extra_size or not name:
        return None
    wide = MAX32 in (packed, size)
    size, packed = _zip64(extra, [(size, wide and size == MAX32), (packed, wide and packed == MAX32)])
    return Header(at, version, flags, method, time | date << 16, crc, packed, size, name, extra)


def entry_in(data: bytes, place: int, base: int) -> Entry | None:
    """The directory entry at ``data[place]``; ``base`` is where in the file ``data`` begins."""
    if len(data) < place + _ENTRY.size or not data.startswith(ENTRY, place):
        return None
    (_, made_by, version, flags, method, time, date, crc, packed, size, name_size, extra_size, comment_size, *rest) = (
        _ENTRY.unpack_from(data, place)
    )
    disk, internal, external, offset = rest
    name_at = place + _ENTRY.size
    extra_at = name_at + name_size
    comment_at = extra_at + extra_size
    end = comment_at + comment_size
    if end > len(data) or not name_size:
        return None
    extra = data[extra_at:comment_at]
    size, packed, offset = _zip64(extra, [(value, value == MAX32) for value in (size, packed, offset)])
    return Entry(
        at=base + place,
        end=base + end,
        made_by=made_by,
        version=version,
        flags=flags,
        method=method,
        stamp=time | date << 16,
        crc=crc,
        packed=packed,
        size=size,
        disk=disk,
        internal=internal,
        external=external,
        offset=offset,
        raw_name=data[name_at:extra_at],
        extra=extra,
        comment=data[comment_at:end],
    )


def descriptors_at(source: Source, at: int) -> list[Descriptor]:
    """What the bytes at ``at`` may be, with 32-bit or with 64-bit sizes; none where packed and true size differ."""
    data = source.read(at, _WIDE.size)
    if len(data) < _NARROW.size or not data.startswith(DESCRIPTOR):
        return []
    found = []
    _, crc, packed, size = _NARROW.unpack_from(data)
    if packed == size:
        found.append(Descriptor(at, at + _NARROW.size, crc, size))
    if len(data) == _WIDE.size:
        _, crc, packed, size = _WIDE.unpack(data)
        if packed == size:
            found.append(Descriptor(at, at + _WIDE.size, crc, size))
    return found


def descriptor_of(source: Source, start: int, size: int) -> Descriptor | None:
    """The descriptor behind the data from ``start`` on, if it gives that ``size``."""
    return next((each for each in descriptors_at(source, start + size) if each.size == size), None)


def end_in(data: bytes, place: int, base: int) -> End | None:
    """The end record at ``data[place]``."""
    if len(data) < place + END_BYTES or not data.startswith(END, place):
        return None
    return End(base + place, *_END.unpack_from(data, place)[1:])


def end64_at(source: Source, at: int) -> End64 | None:
    """The zip64 end record at ``at``."""
    data = source.read(at, END64_BYTES)
    return End64(at, *_END64.unpack(data)[1:]) if len(data) == END64_BYTES and data.startswith(END64) else None


def locator_at(source: Source, at: int) -> Locator | None:
    """The locator at ``at``."""
    data = source.read(at, LOCATOR_BYTES)
    return Locator(at, *_LOCATOR.unpack(data)[1:]) if len(data) == LOCATOR_BYTES and data.startswith(LOCATOR) else None


def signatures(source: Source, start: int, stop: int) -> Generator[tuple[int, bytes], int | None, None]:
    """Where signatures of any part stand in a stretch of the file: (byte, signature), in order.

    A caller may send() a later byte to go on from; what lies before it is not read.
    """
    at = start
    while at < stop:
        data = source.read(at, min(PIECE, stop - at))
        if len(data) < 4:
            return
        jump = None
        for match in _SIGNATURES.finditer(data):
            if jump is not None and at + match.start() < jump:
                continue
            jump = yield at + match.start(), match.group()
            if jump is not None and jump >= at + len(data):
                break
        # a signature may lie across two pieces
        at = max(jump or 0, at + len(data) - 3 if at + len(data) < stop else stop)


def blocks(extra: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """The numbered blocks of an extra field, and what is left behind the last one that fits."""
    found, place = [], 0
    while len(extra) >= place + 4:
        kind, size = struct.unpack_from("<2H", extra, place)
        if len(extra) < place + 4 + size:
            break
        found.append((kind, extra[place + 4 : place + 4 + size]))
        place += 4 + size
    return found, extra[place:]


def is_filling(extra: bytes, alignment: int) -> bool:
    """An extra field is what torch fills a local header with, up to a multiple of ``alignment``."""
    found, rest = blocks(extra)
    kind, filling = found[-1] if found else (0, b"")
    return not rest and kind == FILLING and len(filling) < alignment and not filling.strip(b"Z")


def _zip64(extra: bytes, values: list[tuple[int, bool]]) -> list[int]:
    """``values`` with those that are marked taken from the zip64 block, where it holds enough of them."""
    if not any(marked for _, marked in values):
        return [value for value, _ in values]
    block = next((data for kind, data in blocks(extra)[0] if kind == ZIP64), b"")
    longs = [number for (number,) in struct.iter_unpack("<Q", block[: len(block) // 8 * 8])]
    return [longs.pop(0) if marked and longs else value for value, marked in values]
