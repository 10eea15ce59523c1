"""Damaged checkpoints: each kept as pieces of the pristine files, so that what survives, and where, is known."""

import codecs
import gzip
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np

from damage_known import knowable, means_the_same
from damage_pristine import Pristine, pristine_checkpoints
from damage_structure import Kind, Region

SECTOR, BLOCK = 512, 4096


@dataclass(frozen=True, slots=True)
class Keep:
    """Bytes ``start`` to ``end`` of the pristine ``file``."""

    file: str
    start: int
    end: int


Pieces = tuple[Keep | bytes, ...]


@dataclass(frozen=True)
class Case:
    """One damaged checkpoint. ``name`` finds it again, ``damage`` is its kind, ``files`` all that lies in its folder.

    ``knowable``: something stored tells that it is damaged.
    """

    name: str
    pristine: Pristine
    damage: str
    target: str
    files: Mapping[str, Pieces]
    knowable: bool

    def content(self, file: str) -> bytes:
        return b"".join(
            piece if isinstance(piece, bytes) else self.pristine.files[piece.file][piece.start : piece.end]
            for piece in self.files[file]
        )

    def spots(self, file: str, start: int, end: int) -> list[tuple[str, int]]:
        """Where bytes ``start`` to ``end`` of the pristine ``file`` survive in one piece: file, and offset there."""
        found = []
        for name, pieces in self.files.items():
            at = 0
            for piece in pieces:
                if isinstance(piece, bytes):
                    at += len(piece)
                    continue
                if piece.file == file and piece.start <= start and end <= piece.end:
                    found.append((name, at + start - piece.start))
                at += _length(piece)
        return found

    def length(self, file: str) -> int:
        return sum(map(_length, self.files.get(file, ())))


def corpus(seed: int = 0) -> Iterator[Case]:
    """All cases, the same for the same ``seed``; none that changes nothing."""
    for pristine in pristine_checkpoints(seed):
        yield from cases_of(pristine, seed)


def cases_of(pristine: Pristine, seed: int = 0) -> Iterator[Case]:
    """The cases of one pristine checkpoint."""
    seen = set()
    for damage, detail, files, target in _damages(pristine, seed):
        case = Case(f"{pristine.name} / {damage} / {detail}", pristine, damage, target, files, True)
        contents = {file: case.content(file) for file in files}
        if means_the_same(pristine, contents):
            continue
        if case.name in seen:
            raise AssertionError(f"two cases are called {case.name}")
        seen.add(case.name)
        yield Case(case.name, pristine, damage, target, files, knowable(pristine, damage, contents))


# pieces ---------------------------------------------------------------------------------------------------------------


def put(file: str, data: bytes, start: int, end: int, new: bytes) -> Pieces:
    """``file`` with ``new`` in the place of bytes ``start`` to ``end``; what by chance stays as it was is kept."""
    middle: list[Keep | bytes] = [new]
    if len(new) == end - start:
        same = np.frombuffer(data[start:end], np.uint8) == np.frombuffer(new, np.uint8)
        edges = [0, *(np.flatnonzero(np.diff(same)) + 1).tolist(), len(new)]
        middle = [Keep(file, start + a, start + b) if same[a] else new[a:b] for a, b in pairwise(edges) if b > a]
    return _joined([Keep(file, 0, start), *middle, Keep(file, end, len(data))])


def _joined(pieces: Sequence[Keep | bytes]) -> Pieces:
    """Without empty pieces; neighbours that were neighbours become one."""
    joined: list[Keep | bytes] = []
    for piece in pieces:
        if isinstance(piece, bytes):
            if piece:
                joined.append(piece)
        elif piece.end > piece.start:
            last = joined[-1] if joined else None
            if isinstance(last, Keep) and last.file == piece.file and last.end == piece.start:
                joined[-1] = Keep(piece.file, last.start, piece.end)
            else:
                joined.append(piece)
    return tuple(joined)


def _first(pieces: Pieces, size: int) -> Pieces:
    """The first ``size`` bytes."""
    kept: list[Keep | bytes] = []
    for piece in pieces:
        if isinstance(piece, bytes):
            kept.append(piece[:size])
        else:
            kept.append(Keep(piece.file, piece.start, min(piece.end, piece.start + size)))
        size -= _length(kept[-1])
    return _joined(kept)


def _length(piece: Keep | bytes) -> int:
    return len(piece) if isinstance(piece, bytes) else piece.end - piece.start


def _whole(pristine: Pristine) -> dict[str, Pieces]:
    return {file: (Keep(file, 0, len(data)),) for file, data in pristine.files.items()}


# damage ---------------------------------------------------------------------------------------------------------------

Damage = tuple[str, str, Pieces]
"""Its kind, where exactly, and what the file then is."""


@dataclass(frozen=True)
class _File:
    """A file to damage: ``share`` is how much of what could be tried is."""

    name: str
    data: bytes
    regions: tuple[Region, ...]
    share: float
    chance: random.Random

    def some(self, values: Sequence[int] | Sequence[Region], most: int) -> list:
        count = min(len(values), max(1, round(most * self.share)))
        return sorted(self.chance.sample(values, count), key=lambda value: getattr(value, "start", value))

    def parts(self) -> dict[str, list[Region]]:
        by_part = sorted(self.regions, key=lambda region: region.part)
        return {part: list(group) for part, group in groupby(by_part, key=lambda region: region.part)}

    @property
    def edges(self) -> list[int]:
        return sorted({edge for region in self.regions for edge in (region.start, region.end)})

    def around(self, edges: Sequence[int]) -> list[int]:
        near = {edge + step for edge in edges for step in (-1, 0, 1)}
        return sorted(edge for edge in near if 0 < edge < len(self.data))

    def inside(self) -> int:
        return self.chance.randrange(1, len(self.data))

    def put(self, start: int, end: int, new: bytes) -> Pieces:
        return put(self.name, self.data, start, end, new)

    def keep(self, start: int, end: int) -> Keep:
        return Keep(self.name, start, end)


def _damages(pristine: Pristine, seed: int) -> Iterator[tuple[str, str, Mapping[str, Pieces], str]]:
    for file, share in _TRIED.get(pristine.name, {}).items():
        chance = random.Random(f"{seed}/{pristine.name}/{file}")
        subject = _File(file, pristine.files[file], pristine.regions[file], share, chance)
        place = "" if len(pristine.files) == 1 else f"{file}: "
        text = pristine.kinds[file] in (Kind.INDEX, Kind.CONFIG, Kind.MANIFEST, Kind.PROVEN_BY_MANIFEST)
        for maker in _TEXT_DAMAGES if text else _DAMAGES:
            for damage, detail, pieces in maker(subject):
                yield damage, place + detail, {**_whole(pristine), file: pieces}, pristine.target
    for damage, detail, files, target in _partial_downloads(pristine, random.Random(f"{seed}/{pristine.name}/partial")):
        yield damage, detail, files, target
    if len(pristine.files) > 1:
        for damage, detail, files in _sets(pristine, seed):
            yield damage, detail, files, pristine.target


def _cut(file: _File) -> Iterator[Damage]:
    for end in file.some(file.around(file.edges), 240):
        yield "cut off", f"at {end}", (file.keep(0, end),)
    for end in file.some(range(1, len(file.data)), 12):
        yield "cut off", f"anywhere, at {end}", (file.keep(0, end),)


def _half_written(file: _File) -> Iterator[Damage]:
    for end in file.some(range(1, len(file.data)), 8):
        block = -(-end // BLOCK) * BLOCK
        yield "half written", f"{end} bytes, zeros to {block}", _joined((file.keep(0, end), bytes(block - end)))
    for end in file.some(range(1, len(file.data)), 6):
        yield (
            "half written",
            f"{end} bytes, zeros to the full length",
            file.put(end, len(file.data), bytes(len(file.data) - end)),
        )


def _head_lost(file: _File) -> Iterator[Damage]:
    for start in file.some(file.around(file.edges), 40):
        yield "head lost", f"to {start}", (file.keep(start, len(file.data)),)
    for start in (1, SECTOR, BLOCK, file.inside()):
        if start < len(file.data):
            yield "head lost", f"first {start} bytes", (file.keep(start, len(file.data)),)
    for size in (SECTOR, BLOCK):
        if size < len(file.data):
            yield "head lost", f"first {size} bytes zero", file.put(0, size, bytes(size))


def _both_ends(file: _File) -> Iterator[Damage]:
    for start in file.some(range(1, len(file.data) // 2), 8):
        end = file.chance.randrange(len(file.data) // 2, len(file.data))
        yield "head and tail lost", f"{start} to {end} left", (file.keep(start, end),)


def _flips(file: _File) -> Iterator[Damage]:
    for part, regions in file.parts().items():
        places = [at for region in regions for at in range(region.start, min(region.end, region.start + 4096))]
        for at in file.some(places, 24):
            bit = file.chance.randrange(8)
            yield (
                "bit flipped",
                f"{part}, bit {bit} of byte {at}",
                file.put(at, at + 1, bytes([file.data[at] ^ 1 << bit])),
            )


def _zeroed(file: _File) -> Iterator[Damage]:
    for size in (SECTOR, BLOCK):
        for number in file.some(range(-(-len(file.data) // size)), 6):
            start, end = number * size, min((number + 1) * size, len(file.data))
            yield "zeroed", f"block {number} of {size}", file.put(start, end, bytes(end - start))
    for start in file.some(range(1, len(file.data)), 6):
        end = min(len(file.data), start + file.chance.choice((3, 60, 700)))
        yield "zeroed", f"{start} to {end}", file.put(start, end, bytes(end - start))
    for part, regions in file.parts().items():
        for region in file.some([region for region in regions if region.end > region.start], 4):
            what = f"{part} of {region.label}, {region.start} to {region.end}"
            yield "zeroed", what, file.put(region.start, region.end, bytes(region.end - region.start))


def _overwritten(file: _File) -> Iterator[Damage]:
    for start in file.some(range(1, len(file.data)), 6):
        size = min(len(file.data) - start, file.chance.choice((1, 40, SECTOR)))
        yield (
            "overwritten",
            f"{size} random bytes at {start}",
            file.put(start, start + size, file.chance.randbytes(size)),
        )
    for start in file.some(range(1, len(file.data)), 3):
        text = b"2026-11-22 16:00:00 kernel: I/O error, dev sda, sector 2048\n" * 4
        text = text[: len(file.data) - start]
        yield "overwritten", f"a log's text at {start}", file.put(start, start + len(text), text)
    for size in (64, SECTOR):
        blocks = len(file.data) // size
        for number in file.some(range(blocks), 4):
            other = file.chance.randrange(blocks)
            source = file.keep(other * size, (other + 1) * size)
            start, end = number * size, (number + 1) * size
            pieces = (file.keep(0, start), source, file.keep(end, len(file.data)))
            yield "misdirected write", f"block {other} of {size} over block {number}", _joined(pieces)


def _inserted(file: _File) -> Iterator[Damage]:
    for count, new in ((1, b"\x00"), (7, b"\xff" * 7), (64, bytes(64)), (SECTOR, file.chance.randbytes(SECTOR))):
        for at in file.some(range(len(file.data)), 2):
            yield "inserted", f"{count} bytes at {at}", file.put(at, at, new)
    for at in file.some(file.edges[1:-1], 4):
        yield "inserted", f"16 bytes at the edge {at}", file.put(at, at, file.chance.randbytes(16))


def _removed(file: _File) -> Iterator[Damage]:
    for count in (1, 7, 64, SECTOR):
        for at in file.some(range(1, len(file.data) - 1), 2):
            end = min(len(file.data) - 1, at + count)
            yield "removed", f"{at} to {end}", file.put(at, end, b"")
    for region in file.some([region for region in file.regions if 0 < region.start < region.end < len(file.data)], 4):
        yield (
            "removed",
            f"{region.part} of {region.label}, {region.start} to {region.end}",
            file.put(region.start, region.end, b""),
        )


def _two_damages(file: _File) -> Iterator[Damage]:
    """A piece in the middle and the tail: what the one spares the other may take."""
    inner = [region for region in file.regions if region.end > region.start and region.end < len(file.data) * 2 // 3]
    for region in file.some(inner, 10):
        end = file.chance.randrange(max(region.end, len(file.data) * 2 // 3), len(file.data))
        zeroed = file.put(region.start, region.end, bytes(region.end - region.start))
        yield "zeroed and cut off", f"{region.part} of {region.label} zero, cut off at {end}", _first(zeroed, end)


def _added(file: _File) -> Iterator[Damage]:
    whole = file.keep(0, len(file.data))
    for what, tail in (
        ("a zero", b"\0"),
        ("100 zeros", bytes(100)),
        ("zeros to the block's end", bytes(-len(file.data) % BLOCK)),
        ("random bytes", file.chance.randbytes(333)),
        ("a line break", b"\n"),
        ("a web server's answer", b"HTTP/1.1 206 Partial Content\r\n\r\n"),
    ):
        yield "trailing garbage", what, _joined((whole, tail))
    yield "leading garbage", "300 random bytes", (file.chance.randbytes(300), whole)
    yield "leading garbage", "a web server's answer", (b"HTTP/1.1 200 OK\r\nContent-Length: 6097\r\n\r\n", whole)
    yield "twice", "one copy after the other", (whole, whole)
    half = file.inside()
    yield "twice", f"{half} bytes, then all of it", (file.keep(0, half), whole)


def _mangled(file: _File) -> Iterator[Damage]:
    if len(file.data) > 1 << 16:
        return
    pieces: list[Keep | bytes] = []
    at = 0
    for part in file.data.split(b"\n")[:-1]:
        pieces += [file.keep(at, at + len(part)), b"\r", file.keep(at + len(part), at + len(part) + 1)]
        at += len(part) + 1
    yield "line ends changed", "LF to CR LF", _joined([*pieces, file.keep(at, len(file.data))])
    unix: list[Keep | bytes] = []
    at = 0
    for part in file.data.split(b"\r\n"):
        unix.append(file.keep(at, at + len(part)))
        unix.append(file.keep(at + len(part) + 1, at + len(part) + 2))
        at += len(part) + 2
    if len(unix) > 2:
        yield "line ends changed", "CR LF to LF", _joined(unix[:-1])
    yield "read as text", "UTF-8 with replacements", _joined(_as_utf8(file))


def _as_utf8(file: _File) -> Iterator[Keep | bytes]:
    bad: list[tuple[int, int]] = []

    def note(error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeDecodeError)
        bad.append((error.start, error.end))
        return "\ufffd", error.end

    codecs.register_error("damage", note)
    file.data.decode("utf-8", "damage")
    at = 0
    for start, end in bad:
        yield file.keep(at, start)
        yield "\ufffd".encode()
        at = end
    yield file.keep(at, len(file.data))


def _wrapped(file: _File) -> Iterator[Damage]:
    yield "wrapped", "gzip", (gzip.compress(file.data, mtime=0),)


def _replaced(file: _File) -> Iterator[Damage]:
    size = len(file.data)
    for what, content in _INSTEAD.items():
        yield "something else", what, (content,)
    yield "something else", "nothing", ()
    yield "something else", "zeros", (bytes(size),)
    yield "something else", "random bytes", (file.chance.randbytes(size),)


_INSTEAD = {
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 7112345678\n",
    "a web page": b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>Please log in.</body></html>\n",
    "an answer in JSON": b'{"error":"Repository not found","status":404}',
    "an answer in XML": b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>NoSuchKey</Code></Error>',
    "an answer in words": b"Access Denied\n",
    "entry not found": b"Entry not found",
}

_DAMAGES: tuple[Callable[[_File], Iterator[Damage]], ...] = (
    _cut,
    _half_written,
    _head_lost,
    _both_ends,
    _flips,
    _zeroed,
    _overwritten,
    _inserted,
    _removed,
    _two_damages,
    _added,
    _mangled,
    _wrapped,
    _replaced,
)
_TEXT_DAMAGES = (_cut, _flips, _zeroed, _overwritten, _inserted, _removed, _mangled, _replaced)

_SHARD = "-00002-of-00003."
_TRIED: Mapping[str, Mapping[str, float]] = {
    "torch zip, plain": {"model.pt": 1.0},
    "torch zip, nested": {"model.pt": 0.15},
    "torch zip, mixed": {"model.pt": 0.25},
    "torch zip, large": {"model.pt": 0.08},
    "torch legacy, plain": {"model.pth": 0.5},
    "torch legacy, nested": {"model.pth": 0.15},
    "torch legacy, mixed": {"model.pth": 0.25},
    "torch legacy, large": {"model.pth": 0.08},
    "safetensors, plain": {"model.safetensors": 0.5},
    "safetensors, mixed": {"model.safetensors": 0.25},
    "safetensors, large": {"model.safetensors": 0.08},
    "safetensors of ours, alone": {"weights.safetensors": 0.3},
    "our folder": {
        "weights.safetensors": 0.25,
        "training.safetensors": 0.08,
        "manifest.json": 0.15,
        "config.json": 0.1,
    },
    "safetensors in shards": {f"model{_SHARD}safetensors": 0.2, "model.safetensors.index.json": 0.3},
    "torch files in shards": {f"pytorch_model{_SHARD}bin": 0.2, "pytorch_model.bin.index.json": 0.3},
    "LeRobot folder": {"model.safetensors": 0.2, "config.json": 0.15},
}


def _partial_downloads(
    pristine: Pristine, chance: random.Random
) -> Iterator[tuple[str, str, Mapping[str, Pieces], str]]:
    """The file under the name that a download in progress has, or with the downloader's notes beside it."""
    file = max(pristine.files, key=lambda name: len(pristine.files[name]))
    data = pristine.files[file]
    for suffix in (".part", ".crdownload", ".incomplete"):
        end = chance.randrange(len(data) // 4, len(data))
        files = _whole(pristine)
        del files[file]
        files[file + suffix] = (Keep(file, 0, end),)
        target = file + suffix if pristine.target == file else pristine.target
        yield "partial download", f"{file}{suffix} of {end} bytes", files, target
    end = chance.randrange(len(data) // 4, len(data))
    zeros = put(file, data, end, len(data), bytes(len(data) - end))
    notes = chance.randbytes(40)
    yield (
        "partial download",
        f"{file} kept free from {end} on, {file}.aria2 beside it",
        {
            **_whole(pristine),
            file: zeros,
            file + ".aria2": (notes,),
        },
        pristine.target,
    )


def _sets(pristine: Pristine, seed: int) -> Iterator[tuple[str, str, Mapping[str, Pieces]]]:
    whole = _whole(pristine)
    for file in whole:
        yield f"missing {_role(pristine, file)}", file, {name: whole[name] for name in whole if name != file}
    shards = [file for file in whole if "-of-" in file]
    for one, other in zip(shards, shards[1:] + shards[:1], strict=True):
        yield "duplicated shard", f"{one} under the name of {other}", {**whole, other: whole[one]}
        yield "swapped shards", f"{one} and {other}", {**whole, one: whole[other], other: whole[one]}
        yield "another checkpoint's shard", f"of the same architecture, {one}", {**whole, one: (pristine.sibling[one],)}
    if shards:
        pointers = dict.fromkeys(shards, (_INSTEAD["a Git LFS pointer"],))
        yield "something else", "every shard a Git LFS pointer", {**whole, **pointers}
        strange = next(each for each in pristine_checkpoints(seed) if each.name == _STRANGE[pristine.kinds[shards[0]]])
        yield (
            "another checkpoint's shard",
            f"of another architecture, {shards[1]}",
            {
                **whole,
                shards[1]: (strange.files[strange.target],),
            },
        )
    if pristine.name == "our folder":
        for file in ("weights.safetensors", "training.safetensors", "manifest.json"):
            yield "another checkpoint's file", file, {**whole, file: (pristine.sibling[file],)}


_STRANGE = {Kind.SAFETENSORS: "safetensors, mixed", Kind.ZIP: "torch zip, mixed"}


def _role(pristine: Pristine, file: str) -> str:
    if "-of-" in file:
        return "shard"
    return {Kind.INDEX: "index", Kind.MANIFEST: "manifest"}.get(
        pristine.kinds[file], "config" if file.endswith(".json") else "weights"
    )
