"""Safetensors files: a length, a JSON header, then the tensors' bytes without gaps.

Written here, a file proves itself (``safetensors_header``). One that is damaged is placed by what a manifest knows of
it, or by what its header does.
"""

import hashlib
import math
import os
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from mobile_vla.checkpoint.atomic import PIECE, other_bytes, replacing, to_the_disk
from mobile_vla.checkpoint.formats import safetensors_header
from mobile_vla.checkpoint.formats.safetensors_header import Header, Span
from mobile_vla.checkpoint.layout import DTYPE_BYTES, Checksum, Format, Layout, Problem, Run, Tensor
from mobile_vla.core import CheckpointError

_SEARCHED_BYTES = 16 * 2**20
"""Where the length of a header is damaged, its pieces are looked for in so many bytes."""
_NO_CHECKSUMS = "safetensors stores no checksums: changed bytes in this file cannot be told from right ones"
_TRIED_POSITIONS = 1 << 21
_TRIED_TENSORS = 64


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
    if len(entries) != len(tensors) or safetensors_header.METADATA in entries:
        raise CheckpointError(
            f"{path} cannot hold two tensors of one name, nor one named {safetensors_header.METADATA}"
        )
    extra = dict(metadata or {})
    header_size = len(safetensors_header.build(entries, extra))
    if header_size > safetensors_header.MAX_BYTES:
        raise CheckpointError(
            f"{path} would need a header of {header_size} bytes; the format allows {safetensors_header.MAX_BYTES}"
        )
    digests, crc = {}, 0
    with ThreadPoolExecutor(2) as beside, replacing(path) as file:
        file.write(bytes(header_size))
        for tensor in ordered:
            digests[tensor.name], crc = _write_tensor(file, tensor, path, beside, crc)
        header = safetensors_header.build(entries, extra, digests)
        file.seek(0)
        file.write(header)
        whole = _read_back(file, path, header, header_size + at, crc, beside)
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
            head = file.read(safetensors_header.LENGTH_BYTES)
            length = int.from_bytes(head, "little")
            head += file.read(length if length <= min(safetensors_header.MAX_BYTES, size) else 0)
            header = safetensors_header.parse(head, size)
            if known is None or known.tensors is None:
                return _by_itself(path, file, size, head, header)
            if header.proven and hashlib.sha256(head).hexdigest() != known.header_sha256:
                layout = _by_itself(path, file, size, head, header)
                note = "its file proves itself, and is not the one that the manifest describes"
                runs = tuple(replace(run, checksum=None) for run in layout.runs)
                tensors = tuple(
                    replace(tensor, run=replace(tensor.run, checksum=None), note=note, doubtful=True)
                    for tensor in layout.tensors
                    if tensor.run is not None
                )
                return replace(layout, tensors=tensors, runs=runs, problems=(Problem(note), *layout.problems))
            return _by_manifest(path, file, size, head, known)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error


def _by_itself(path: Path, file: BinaryIO, size: int, head: bytes, header: Header) -> Layout:
    base, problems = 0, []
    if header.damage:
        file.seek(0)
        head = file.read(max(_SEARCHED_BYTES, len(head)))
        base = safetensors_header.locate(head)
        head = head[base:]
        header = safetensors_header.parse(head, size)
        problems = [Problem(f"{base} bytes stand before its header", harmless=True)] if base else []
    if header.proven and not _wrong(header):
        layout = _by_manifest(path, file, size, head[: header.starts[0]], _record(header, head, base), base)
        layout = replace(layout, metadata=header.metadata)
    else:
        layout = _by_header(path, file, size, replace(header, starts=tuple(base + start for start in header.starts)))
    return replace(layout, problems=(*problems, *layout.problems))


def _wrong(header: Header) -> bool:
    """A header may carry the right hash and be nonsense, if someone wants it to."""
    found = [safetensors_header.spans(name, entry) for name, entry in header.entries.items()]
    places = [(span[2], span[3], "") for span in found if not isinstance(span, str)]
    return len(places) < len(found) or bool(_gaps(places, max((end for _, end, _ in places), default=0)))


def _record(header: Header, head: bytes, base: int) -> FileRecord:
    """A header that proves itself says as much as a manifest; ``base`` bytes stand before it."""
    tensors, end, start = {}, 0, header.starts[0]
    for name, entry in header.entries.items():
        line = header.lines[name]
        begin, stop = entry["data_offsets"]
        tensors[name] = TensorRecord(line.dtype, line.shape, base + start + begin, stop - begin, line.sha256)
        end = max(end, stop)
    return FileRecord(base + start + end, "", start, hashlib.sha256(head[:start]).hexdigest(), tensors)


def _by_header(path: Path, file: BinaryIO, size: int, header: Header) -> Layout:
    """By a header that proves nothing: a foreign one, or a damaged one."""
    problems = [Problem(what) for what in header.damage]
    found = {name: safetensors_header.spans(name, entry) for name, entry in header.entries.items()}
    spans = {name: span for name, span in found.items() if not isinstance(span, str)}
    start = _start(file, size, header, spans)
    taken = {(begin, stop) for *_, begin, stop in spans.values()}
    once = {}
    for name, place in safetensors_header.places(header.lines).items() if header.lines.keys() - spans.keys() else ():
        once_said = header.lines[name]
        if (
            name not in spans
            and place not in taken
            and _fits(file, start + place[0], place[1] - place[0], once_said.sha256)
        ):
            once[name] = (once_said.dtype, once_said.shape, *place)
    spans |= once
    problems += [
        Problem(span, () if name in spans else (name,)) for name, span in found.items() if isinstance(span, str)
    ]
    tensors: list[Tensor] = []
    for name, (dtype, shape, begin, stop) in spans.items():
        if start + stop > size and stop > begin:
            missing = f"its bytes {start + begin} to {start + stop} lie behind the end of the file"
            tensors.append(Tensor((name,), dtype, shape, None, note=missing))
            continue
        run = Run(name, path, start + begin, stop - begin)
        line, differs = header.lines.get(name), False
        if name in once:
            note = "its bytes fit a checksum; its name, dtype and shape stand in the damaged header but once"
            tensors.append(Tensor((name,), dtype, shape, run, note=note))
            continue
        if line is not None and (line.dtype, line.shape) == (dtype, shape):
            if _fits(file, run.offset, run.size, line.sha256):
                run = replace(run, checksum=Checksum("sha256", line.sha256))
            else:  # a checksum in a damaged header may be what is damaged
                differs = True
        note = "its damaged header gives another checksum" if differs else ""
        tensors.append(Tensor((name,), dtype, shape, run, note=note, doubtful=differs))
    problems += _gaps([(begin, stop, name) for name, (_, _, begin, stop) in spans.items()], size - start)
    runs = [Run("header", path, 0, min(start, size))]
    runs += [tensor.run for tensor in tensors if tensor.run is not None]
    unknowable = () if header.lines else (_NO_CHECKSUMS,)
    return Layout(
        path, Format.SAFETENSORS, tuple(tensors), tuple(runs), tuple(problems), unknowable, dict(header.metadata)
    )


def _start(file: BinaryIO, size: int, header: Header, spans: Mapping[str, Span]) -> int:
    """Where the tensors' bytes begin: as a checksum proves, as the file's size says, or else as the header does."""
    if len(header.starts) < 2:
        return next(iter(header.starts), 0)
    places = {name: (begin, stop) for name, (*_, begin, stop) in spans.items()} | {
        name: place for name, place in safetensors_header.places(header.lines).items() if name not in spans
    }
    end = max((stop for _, stop in places.values()), default=0)
    starts = (size - end, *header.starts)
    lined = [(*place, header.lines[name].sha256) for name, place in places.items() if name in header.lines]
    for begin, stop, sha256 in sorted(lined, key=lambda each: each[1] - each[0])[:_TRIED_TENSORS]:
        for start in starts if stop > begin else ():
            if _fits(file, start + begin, stop - begin, sha256):
                return start
    return next((each for each in header.starts if size - each == end), header.starts[0])


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


def _by_manifest(path: Path, file: BinaryIO, size: int, header: bytes, known: FileRecord, base: int = 0) -> Layout:
    assert known.tensors is not None
    problems = []
    whole_header = len(header) == known.header_size and hashlib.sha256(header).hexdigest() == known.header_sha256
    if size != known.size:
        problems.append(Problem(f"it has {size} bytes where {known.size} were saved"))
    if not whole_header:
        problems.append(Problem("its header is damaged; the manifest says what it held", harmless=True))
    shifts = [0] if size == known.size else _shifts(file, size, known)
    tensors, runs = [], [Run("header", path, base, known.header_size, Checksum("sha256", known.header_sha256))]
    if not whole_header:
        runs = []
    for name, record in known.tensors.items():
        places = [record.offset + shift for shift in shifts if 0 <= record.offset + shift <= size - record.size]
        fitting = places if shifts == [0] else [at for at in places if _fits(file, at, record.size, record.sha256)]
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
    if any(
        _fits(file, record.offset + moved, record.size, record.sha256) for record in small if record.offset + moved >= 0
    ):
        return shifts
    tries = _TRIED_POSITIONS
    for record in sorted(small, key=lambda record: record.size):
        first = max(0, record.offset + moved)
        last = min(record.offset, size - record.size, first + tries)
        tries -= max(0, last - first) * record.size // 64
        file.seek(first)
        window = file.read(max(0, last - first) + record.size)
        for at in range(len(window) - record.size + 1):
            if hashlib.sha256(window[at : at + record.size]).hexdigest() == record.sha256:
                return [*shifts, first + at - record.offset]
        if tries < 0:
            break
    return shifts


def _fits(file: BinaryIO, offset: int, size: int, sha256: str) -> bool:
    if offset < 0 or offset + size > os.fstat(file.fileno()).st_size:
        return False
    file.seek(offset)
    digest, left = hashlib.sha256(), size
    while left and (piece := file.read(min(PIECE, left))):
        digest.update(piece)
        left -= len(piece)
    return left == 0 and digest.hexdigest() == sha256


def _write_tensor(file: BinaryIO, tensor: Outgoing, path: Path, beside: Executor, crc: int) -> tuple[str, int]:
    """SHA-256 of the tensor, and the CRC-32 of all tensors so far."""
    digest, written = hashlib.sha256(), 0
    for piece in tensor.pieces():
        hashing = beside.submit(digest.update, piece)
        crc = zlib.crc32(piece, crc)
        file.write(piece)
        hashing.result()
        written += memoryview(piece).nbytes
    if written != tensor.size:
        raise CheckpointError(f"{path}: {tensor.name} gave {written} bytes where its shape needs {tensor.size}")
    return digest.hexdigest(), crc


def _read_back(file: BinaryIO, path: Path, header: bytes, size: int, crc: int, beside: Executor) -> str:
    """SHA-256 of the whole file as the disk gives it back; CheckpointError when it is not what was written.

    That is told by a CRC-32: a disk's mistakes are meant, and a second SHA-256 would take as long as all else.
    """
    to_the_disk(file)
    file.seek(0)
    if file.read(len(header)) != header:
        raise other_bytes(path)
    whole, found = hashlib.sha256(header), 0
    handle, at, buffers = file.fileno(), len(header), (bytearray(PIECE), bytearray(PIECE))
    reading = beside.submit(_read_into, handle, buffers[0], at, size)
    while piece := reading.result():
        at += len(piece)
        buffers = buffers[::-1]
        reading = beside.submit(_read_into, handle, buffers[0], at, size)
        found = zlib.crc32(piece, found)
        whole.update(piece)
    if at != size or found != crc:
        raise other_bytes(path)
    return whole.hexdigest()


def _read_into(handle: int, buffer: bytearray, at: int, end: int) -> memoryview:
    """The next bytes before ``end``, none at the end of the file."""
    view = memoryview(buffer)[: min(len(buffer), end - at)]
    return view[: os.preadv(handle, [view], at)]
