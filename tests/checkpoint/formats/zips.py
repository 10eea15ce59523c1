"""Torch zip files built part by part, as torch's writer builds them, so that any part can be made another way."""

import os
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

MAX32 = 0xFFFFFFFF


@dataclass(frozen=True)
class Part:
    """A record; ``hole`` bytes of zeros follow its data, with ``crc`` the checksum of all of it."""

    name: str
    data: bytes = b""
    hole: int = 0
    crc: int | None = None
    header_name: str | None = None
    header_flags: int = 0
    entry_flags: int = 0
    method: int = 0

    @property
    def size(self) -> int:
        return len(self.data) + self.hole


@dataclass
class Written:
    """Where things were put: record name to first byte of header, data, end of data and descriptor."""

    header: dict[str, int] = field(default_factory=dict)
    data: dict[str, int] = field(default_factory=dict)
    end: dict[str, int] = field(default_factory=dict)
    directory: int = 0


def write_zip(path: Path, parts: list[Part], alignment: int = 64) -> Written:
    """Write ``parts`` in order; holes stay holes on the disk."""
    written, entries = Written(), []
    with path.open("wb") as file:
        for part in parts:
            at, size = file.tell(), part.size
            crc = zlib.crc32(part.data) if part.crc is None else part.crc
            flags = 0x0808 if size else 0x0800
            values = ([size, 0] if size >= MAX32 else []) + ([at] if at >= MAX32 else [])
            name = (part.header_name or part.name).encode()
            least = at + 30 + len(name) + 4 + (4 + 8 * len(values) if values else 0)
            filling = -least % alignment
            extra = block(values) + struct.pack("<2sH", b"FB", filling) + b"Z" * filling
            fixed = (0, flags | part.header_flags, part.method, 0, 0, 0, 0, 0, len(name), len(extra))
            file.write(struct.pack("<4s5H3I2H", b"PK\x03\x04", *fixed) + name + extra)
            written.header[part.name], written.data[part.name] = at, file.tell()
            file.write(part.data)
            file.seek(part.hole, os.SEEK_CUR)
            if size:
                wide = bool(values)
                file.write(struct.pack("<4sI2Q" if wide else "<4s3I", b"PK\x07\x08", crc, size, size))
            written.end[part.name] = file.tell()
            entries.append(entry(part, crc, at))
        written.directory = file.tell()
        file.write(b"".join(entries) + ends(len(entries), sum(map(len, entries)), written.directory))
    return written


def block(values: list[int]) -> bytes:
    return struct.pack(f"<2H{len(values)}Q", 1, 8 * len(values), *values) if values else b""


def entry(part: Part, crc: int, at: int) -> bytes:
    size, name = part.size, part.name.encode()
    values = ([size, size] if size >= MAX32 else []) + ([at] if at >= MAX32 else [])
    flags = (0x0808 if size else 0x0800) | part.entry_flags
    short = min(size, MAX32)
    fixed = (
        0,
        0,
        flags,
        part.method,
        0,
        0,
        crc,
        short,
        short,
        len(name),
        len(block(values)),
        0,
        0,
        0,
        0,
        min(at, MAX32),
    )
    return struct.pack("<4s6H3I5H2I", b"PK\x01\x02", *fixed) + name + block(values)


def ends(count: int, size: int, offset: int) -> bytes:
    end64 = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 0x031E, 45, 0, 0, count, count, size, offset)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, offset + size, 1)
    short = (min(count, 0xFFFF), min(count, 0xFFFF), size, min(offset, MAX32), 0)
    return end64 + locator + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, *short)
