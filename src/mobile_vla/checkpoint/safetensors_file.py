"""Safetensors files: a length, a JSON header, then the tensors' bytes without gaps.

The format itself has no checksums. Files that are written here carry a SHA-256 of every tensor, and one of the header's
entries, in the header's ``__metadata__``, which other readers leave alone; so that each file can be verified by itself.
The format: https://github.com/huggingface/safetensors (README, "Format").
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mobile_vla.checkpoint.atomic import PIECE, other_bytes, replacing, to_the_disk
from mobile_vla.checkpoint.layout import DTYPE_BYTES, Checksum, Format, Layout, Problem, Run, Tensor
from mobile_vla.core import CheckpointError, DamagedCheckpointError

MAX_HEADER_BYTES = 100_000_000
"""The limit that the format's own library sets."""

_CHECKSUMS, _ENTRIES_DIGEST, _METADATA = "mobile_vla.sha256", "mobile_vla.header_sha256", "__metadata__"
_BLANK = "0" * 64
_NO_CHECKSUMS = "safetensors stores no checksums: changed bytes in this file cannot be told from right ones"
_TRIED_POSITIONS = 1 << 20


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """One tensor of a file: ``offset`` counts bytes from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class FileRecord:
    """What is known of a file from elsewhere; ``header_size`` and ``tensors`` for safetensors files."""

    size: int
    sha256: str
    header_size: int = 0
    header_sha256: str = ""
    tensors: Mapping[str, TensorRecord] | None = None


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A tensor to write: ``pieces`` gives its bytes at each call, contiguous, last axis fastest, little-endian."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    pieces: Callable[[], Iterable[bytes | memoryview]]

    @property
    def size(self) -> int:
        """Bytes of its elements."""
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]


def write(path: Path, tensors: Sequence[Outgoing], metadata: Mapping[str, str] | None = None) -> FileRecord:
    """Write and read back a file that is whole or not there; memory stays at one piece.

    CheckpointError when the disk is full or broken, or a tensor gives another number of bytes than its shape says.
    """
    # wide elements first, so that every tensor starts at a multiple of its element's size
    ordered = sorted(tensors, key=lambda tensor: -DTYPE_BYTES[tensor.dtype])
    places, at = {}, 0
    for tensor in ordered:
        places[tensor.name] = (at, at + tensor.size)
        at += tensor.size
    entries = {
        tensor.name: {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": list(places[tensor.name])}
        for tensor in tensors
    }
    if len(entries) != len(tensors) or _METADATA in entries:
        raise CheckpointError(f"{path} cannot hold two tensors of one name, nor one named {_METADATA}")
    extra = dict(metadata or {})
    header_size = len(_header(entries, extra, dict.fromkeys(entries, _BLANK)))
    if header_size - 8 > MAX_HEADER_BYTES:
        raise CheckpointError(
            f"{path} would need a header of {header_size} bytes; the format allows {MAX_HEADER_BYTES}"
        )
    digests = {}
    with replacing(path) as file:
        file.write(bytes(header_size))
        for tensor in ordered:
            digests[tensor.name] = _write_tensor(file, tensor, path)
        header = _header(entries, extra, {name: digests[name] for name in entries})
        file.seek(0)
        file.write(header)
        whole = _read_back(file, path, header, [(tensor.size, digests[tensor.name]) for tensor in ordered])
    records = {
        tensor.name: TensorRecord(
            tensor.dtype, tensor.shape, header_size + places[tensor.name][0], tensor.size, digests[tensor.name]
        )
        for tensor in tensors
    }
    return FileRecord(header_size + at, whole, header_size, hashlib.sha256(header).hexdigest(), records)


def survey(path: Path, known: FileRecord | None = None) -> Layout:
    """Which tensors the file holds, whole or damaged; ``known`` is what a manifest says of it.

    CheckpointError when the file cannot be read. Damage goes into the layout.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(8)
            length = int.from_bytes(head, "little")
            header = file.read(length) if len(head) == 8 and length <= min(MAX_HEADER_BYTES, size) else b""
            if known is not None and known.tensors is not None:
                return _by_manifest(path, file, size, head + header, known)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    return _by_header(path, size, head, header, length)


def read_header(path: Path, header: bytes) -> tuple[dict[str, Any], dict[str, str]]:
    """Entries and metadata of a JSON header (without its length). DamagedCheckpointError says what is wrong with it."""
    try:
        values = json.loads(header, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise DamagedCheckpointError(path, f"its header is no JSON object ({error})") from error
    if not isinstance(values, dict):
        raise DamagedCheckpointError(path, "its header is no JSON object")
    metadata = values.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise DamagedCheckpointError(path, f"{_METADATA} in its header does not hold words alone")
    return values, metadata


def _by_header(path: Path, size: int, head: bytes, header: bytes, length: int) -> Layout:
    if len(header) != length or len(head) < 8:
        what = f"its header should have {length} bytes, which the file of {size} bytes does not hold"
        return Layout(
            path, Format.SAFETENSORS, (), problems=(Problem(f"{what}: names and places of tensors are lost"),)
        )
    try:
        entries, metadata = read_header(path, header)
    except DamagedCheckpointError as error:
        problem = Problem(f"{error.damage}: names and places of tensors are lost")
        return Layout(path, Format.SAFETENSORS, (), problems=(problem,))
    checksums, problems = _own_checksums(entries, metadata, head + header)
    start = 8 + length
    tensors: list[Tensor] = []
    spans = []
    for name, entry in entries.items():
        found = _entry(name, entry)
        if isinstance(found, str):
            problems.append(Problem(found, (name,)))
            continue
        dtype, shape, begin, end = found
        spans.append((begin, end, name))
        if start + end > size:
            missing = f"its bytes {start + begin} to {start + end} lie behind the end of the file"
            tensors.append(Tensor((name,), dtype, shape, None, note=missing))
            continue
        checksum = Checksum("sha256", checksums[name]) if name in checksums else None
        tensors.append(Tensor((name,), dtype, shape, Run(name, path, start + begin, end - begin, checksum)))
    problems += _gaps(spans, size - start)
    runs = [tensor.run for tensor in tensors if tensor.run is not None]
    if not checksums:
        runs.insert(0, Run("header", path, 0, start))
    unknowable = () if checksums else (_NO_CHECKSUMS,)
    known = _foreign(metadata)
    return Layout(path, Format.SAFETENSORS, tuple(tensors), tuple(runs), tuple(problems), unknowable, known)


def _own_checksums(
    entries: Mapping[str, Any], metadata: Mapping[str, str], header: bytes
) -> tuple[dict[str, str], list[Problem]]:
    """The checksums that we wrote into a header, and what is wrong with them. One that fails its own is not used."""
    if _CHECKSUMS not in metadata and _ENTRIES_DIGEST not in metadata:
        return {}, []
    try:
        checksums = json.loads(metadata[_CHECKSUMS])
        fits = header == _header(entries, _foreign(metadata), checksums) and set(checksums) == set(entries)
    except (ValueError, KeyError, TypeError):
        fits = False
    if fits:
        return checksums, []
    return {}, [Problem("its header was changed after it was written: names, types and shapes may be wrong")]


def _foreign(metadata: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in metadata.items() if key not in (_CHECKSUMS, _ENTRIES_DIGEST)}


def _entry(name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int] | str:
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        numbers = (*shape, begin, end)
    except (TypeError, KeyError, ValueError):
        return f"the header's entry for {name} lacks its dtype, shape or place"
    if dtype not in DTYPE_BYTES:
        return f"the header gives {name} the unknown dtype {dtype!r}"
    if any(isinstance(number, bool) or not isinstance(number, int) or number < 0 for number in numbers):
        return f"the header gives {name} sizes that are no whole numbers of at least 0"
    if end - begin != math.prod(shape) * DTYPE_BYTES[dtype]:
        return f"the header gives {name} {end - begin} bytes, and a shape and dtype that need another number"
    return dtype, shape, begin, end


def _gaps(spans: list[tuple[int, int, str]], data_size: int) -> list[Problem]:
    problems, at = [], 0
    for begin, end, name in sorted(spans):
        if begin != at:
            kind = (
                "overlaps the one before it" if begin < at else f"leaves {begin - at} bytes before it that are nobody's"
            )
            problems.append(Problem(f"the place of {name} {kind}", (name,) if begin < at else (), harmless=begin > at))
        at = max(at, end)
    if at > data_size:
        problems.append(Problem(f"the file is cut off: {at - data_size} bytes are missing at its end"))
    elif at < data_size:
        problems.append(Problem(f"{data_size - at} bytes follow the last tensor that are nobody's", harmless=True))
    return problems


def _by_manifest(path: Path, file: BinaryIO, size: int, header: bytes, known: FileRecord) -> Layout:
    assert known.tensors is not None
    problems = []
    whole_header = len(header) == known.header_size and hashlib.sha256(header).hexdigest() == known.header_sha256
    if size != known.size:
        problems.append(Problem(f"it has {size} bytes where {known.size} were saved"))
    if not whole_header:
        problems.append(Problem("its header is damaged; the manifest says what it held", harmless=True))
    shifts = [0] if size == known.size else _shifts(file, size, known)
    tensors, runs = [], [Run("header", path, 0, known.header_size, Checksum("sha256", known.header_sha256))]
    if not whole_header:
        runs = []
    for name, record in known.tensors.items():
        places = [record.offset + shift for shift in shifts if 0 <= record.offset + shift <= size - record.size]
        fitting = places if shifts == [0] else [at for at in places if _fits(file, at, record)]
        place = next(iter(fitting), record.offset)
        if place + record.size > size:
            missing = f"its {record.size} bytes from {record.offset} on are not in the file"
            tensors.append(Tensor((name,), record.dtype, record.shape, None, note=missing))
            continue
        note = f"found {place - record.offset:+d} bytes from its place" if place != record.offset else ""
        run = Run(name, path, place, record.size, Checksum("sha256", record.sha256))
        tensors.append(Tensor((name,), record.dtype, record.shape, run, note=note))
        runs.append(run)
    return Layout(path, Format.SAFETENSORS, tuple(tensors), tuple(runs), tuple(problems))


def _shifts(file: BinaryIO, size: int, known: FileRecord) -> list[int]:
    """By how many bytes what is left may have moved: not at all, by all that is missing, or, tried out, by a part."""
    assert known.tensors is not None
    moved = size - known.size
    shifts = [0, moved]
    small = [record for record in known.tensors.values() if 16 <= record.size <= 1 << 16]
    if any(_fits(file, record.offset + moved, record) for record in small if record.offset + moved >= 0):
        return shifts
    for record in sorted(small, key=lambda record: record.size)[:3]:
        first = max(0, record.offset + moved)
        last = min(record.offset, size - record.size, first + _TRIED_POSITIONS)
        file.seek(first)
        window = file.read(max(0, last - first) + record.size)
        for at in range(len(window) - record.size + 1):
            if hashlib.sha256(window[at : at + record.size]).hexdigest() == record.sha256:
                return [*shifts, first + at - record.offset]
    return shifts


def _fits(file: BinaryIO, offset: int, record: TensorRecord) -> bool:
    file.seek(offset)
    digest, left = hashlib.sha256(), record.size
    while left and (piece := file.read(min(PIECE, left))):
        digest.update(piece)
        left -= len(piece)
    return left == 0 and digest.hexdigest() == record.sha256


def _write_tensor(file: BinaryIO, tensor: Outgoing, path: Path) -> str:
    digest, written = hashlib.sha256(), 0
    for piece in tensor.pieces():
        digest.update(piece)
        file.write(piece)
        written += memoryview(piece).nbytes
    if written != tensor.size:
        raise CheckpointError(f"{path}: {tensor.name} gave {written} bytes where its shape needs {tensor.size}")
    return digest.hexdigest()


def _read_back(file: BinaryIO, path: Path, header: bytes, tensors: Sequence[tuple[int, str]]) -> str:
    """SHA-256 of the whole file as the disk gives it back; CheckpointError when it is not what was written."""
    to_the_disk(file)
    file.seek(0)
    if file.read(len(header)) != header:
        raise other_bytes(path)
    whole = hashlib.sha256(header)
    for size, sha256 in tensors:
        digest, left = hashlib.sha256(), size
        while left and (piece := file.read(min(PIECE, left))):
            digest.update(piece)
            whole.update(piece)
            left -= len(piece)
        if left or digest.hexdigest() != sha256:
            raise other_bytes(path)
    return whole.hexdigest()


def _header(entries: Mapping[str, Any], metadata: Mapping[str, str], checksums: Mapping[str, str]) -> bytes:
    extra = dict(metadata) | {
        _CHECKSUMS: json.dumps(dict(checksums), separators=(",", ":"), ensure_ascii=False),
        _ENTRIES_DIGEST: _entries_digest(entries, metadata, checksums),
    }
    text = json.dumps({_METADATA: extra, **entries}, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _entries_digest(entries: Mapping[str, Any], metadata: Mapping[str, str], checksums: Mapping[str, str]) -> str:
    values = [entries, dict(metadata), dict(checksums)]
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("one name stands twice")
    return values
