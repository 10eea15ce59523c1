"""The header of a safetensors file: written with checksums, read strictly, and read in pieces where it is damaged.

The format itself has no checksums. Headers that are written here carry, in the ``__metadata__`` that other readers
leave alone, dtype, shape and SHA-256 of every tensor a second time, and one hash over all of it; so a file can be
verified by itself, and one damaged entry costs the others nothing.
The format: https://github.com/huggingface/safetensors (README, "Format").
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mobile_vla.checkpoint.layout import DTYPE_BYTES

MAX_BYTES = 100_000_000
"""The limit that the format's own library sets."""
LENGTH_BYTES = 8
METADATA = "__metadata__"

_LINES, _DIGEST = "mobile_vla.tensors", "mobile_vla.header_sha256"
_BLANK = "0" * 64
_MOST_LOST = 1 << 16
"""Bytes of a header that may be destroyed between two entries that are still read."""
_NAME = rb'"((?:[^"\\\x00-\x1f]|\\u[0-9a-f]{4}|\\["\\/bfnrt])*)"'
_ENTRY = re.compile(
    _NAME + rb'\s*:\s*(\{\s*"dtype"\s*:\s*"[A-Z0-9_]+"\s*,\s*"shape"\s*:\s*\[[\d,\s]*\]\s*,\s*'
    rb'"data_offsets"\s*:\s*\[\s*\d+\s*,\s*\d+\s*\]\s*\})'
)
_CLOSING = re.compile(rb"\s*\} *")
_LINE = re.compile(rb'\\"((?:[^"\\\x00-\x1f])*)\\":\[\\"([A-Z0-9_]+)\\",\[([\d,]*)\],\\"([0-9a-f]{64})\\"\]')

Entries = Mapping[str, Any]
"""Names to what the format says of a tensor: ``dtype``, ``shape``, ``data_offsets``."""
Span = tuple[str, tuple[int, ...], int, int]
"""Dtype, shape, first and last offset."""


@dataclass(frozen=True, slots=True)
class Line:
    """What our metadata says of a tensor."""

    dtype: str
    shape: tuple[int, ...]
    sha256: str


@dataclass(frozen=True)
class Header:
    """``starts`` are where the tensors' bytes may begin in the file, one place unless the header is damaged.

    ``proven``: it is one of ours, to the last byte. ``lines`` are those of our metadata, which prove a tensor whose
    entry says the same. ``damage`` is what is wrong, in sentences; with it, the entries are those that could be read.
    """

    entries: Entries
    starts: tuple[int, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)
    lines: Mapping[str, Line] = field(default_factory=dict)
    proven: bool = False
    damage: tuple[str, ...] = ()


def build(entries: Entries, metadata: Mapping[str, str], sha256: Mapping[str, str] | None = None) -> bytes:
    """Length and JSON, of one size whatever the hashes; without them their places are blank."""
    lines = {
        name: [entry["dtype"], entry["shape"], sha256[name] if sha256 is not None else _BLANK]
        for name, entry in entries.items()
    }
    extra = dict(metadata) | {
        _LINES: json.dumps(lines, separators=(",", ":"), ensure_ascii=False),
        _DIGEST: hashlib.sha256(json.dumps([entries, dict(metadata), lines], sort_keys=True).encode()).hexdigest(),
    }
    text = json.dumps({METADATA: extra, **entries}, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(len(text)) % 8)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def parse(head: bytes, file_size: int) -> Header:
    """From the beginning of a file, the header; bytes that follow it are used only where it is damaged."""
    length = int.from_bytes(head[:LENGTH_BYTES], "little")
    text = head[LENGTH_BYTES : LENGTH_BYTES + length]
    if len(head) < LENGTH_BYTES or len(text) != length or length > MAX_BYTES:
        what = f"its header should have {length} bytes, which the file of {file_size} bytes does not hold"
        return _pieces(head, length, what)
    try:
        values = json.loads(text, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        return _pieces(head, length, f"its header is no JSON object ({error})")
    metadata = values.pop(METADATA, {}) if isinstance(values, dict) else None
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        return _pieces(head, length, f"its header is no JSON object, or its {METADATA} not one of words")
    rest = {key: value for key, value in metadata.items() if key not in (_LINES, _DIGEST)}
    start = LENGTH_BYTES + length
    lines = dict(_lines(text))
    if not lines and not metadata.keys() & {_LINES, _DIGEST}:
        return Header(values, (start,), rest)
    try:
        proven = build(values, rest, {name: line.sha256 for name, line in _own_lines(metadata)}) == head[:start]
    except (KeyError, TypeError):
        proven = False
    if proven:
        return Header(values, (start,), rest, dict(_own_lines(metadata)), proven=True)
    return Header(values, (start,), rest, lines, damage=("its header was changed after it was written",))


def places(lines: Mapping[str, Line]) -> dict[str, tuple[int, int]]:
    """Where our writer puts tensors, from the start of their bytes: wide elements first, else as they are listed."""
    found, at = {}, 0
    for name, line in sorted(lines.items(), key=lambda item: -DTYPE_BYTES.get(item[1].dtype, 0)):
        size = math.prod(line.shape) * DTYPE_BYTES.get(line.dtype, 0)
        found[name] = (at, at + size)
        at += size
    return found


def spans(name: str, entry: Any) -> Span | str:
    """Of an entry, or what is wrong with it."""
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        numbers = (*shape, begin, end)
    except (TypeError, KeyError, ValueError):
        return f"the header's entry for {name} lacks its dtype, shape or place"
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        return f"the header gives {name} the unknown dtype {dtype!r}"
    if any(isinstance(number, bool) or not isinstance(number, int) or number < 0 for number in numbers):
        return f"the header gives {name} sizes that are no whole numbers of at least 0"
    if end - begin != math.prod(shape) * DTYPE_BYTES[dtype]:
        return f"the header gives {name} {end - begin} bytes, and a shape and dtype that need another number"
    return dtype, shape, begin, end


def locate(head: bytes) -> int:
    """Where a whole header begins in bytes that do not begin with one; 0 where none does."""
    for match in re.finditer(rb'\{"', head):
        begin = match.start() - LENGTH_BYTES
        if begin > 0:
            length = int.from_bytes(head[begin : match.start()], "little")
            if match.start() + length <= len(head) and not parse(head[begin:], len(head)).damage:
                return begin
    return 0


def _pieces(head: bytes, length: int, damage: str) -> Header:
    """The entries that are still readable in a header that is not, as a whole."""
    entries: dict[str, Any] = {}
    end = 0
    for match in _ENTRY.finditer(head):
        if entries and match.start() > end + _MOST_LOST:
            break
        try:
            name, entry = json.loads(b'"' + match[1] + b'"'), json.loads(match[2])
        except ValueError:
            continue
        if name != METADATA:
            entries.setdefault(name, entry)
            end = match.end()
    lines = dict(_lines(head[: end or _MOST_LOST]))
    if not entries and not lines:
        return Header({}, (), damage=(f"{damage}: names and places of tensors are lost",))
    after = LENGTH_BYTES + length
    if closing := _CLOSING.match(head, end):
        # headers of ours, and of the format's own library, end with spaces at a multiple of eight
        end = closing.end()
        starts = [end, *(end // 8 * 8 + extra for extra in (0, 8)), after]
        starts.sort(key=lambda start: start != after or after not in starts[:3])
    else:  # the end is damaged, or the file was cut off in its header; then no tensor's bytes are there
        starts = [after]
    what = f"{damage}; {len(entries)} of its entries are left"
    return Header(entries, tuple(starts), lines=lines, damage=(what,))


def _lines(text: bytes) -> Iterator[tuple[str, Line]]:
    """Lines of our metadata, found by their form; names with quotes or backslashes in them are not."""
    for match in _LINE.finditer(text):
        try:
            name, shape = match[1].decode(), tuple(int(size) for size in match[3].split(b",") if size)
        except (UnicodeDecodeError, ValueError):
            continue
        yield name, Line(match[2].decode(), shape, match[4].decode())


def _own_lines(metadata: Mapping[str, str]) -> Iterator[tuple[str, Line]]:
    """TypeError where they are not of our form."""
    try:
        lines = json.loads(metadata.get(_LINES, "{}"))
        for name, (dtype, shape, sha256) in lines.items():
            yield name, Line(str(dtype), tuple(shape), str(sha256))
    except (ValueError, AttributeError) as error:
        raise TypeError("no lines of ours") from error


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("one name stands twice")
    return values
