"""From a torch file of the format before 1.6 to a layout.

Five pickles (a magic number, a version, facts about the machine, the object, the list of storage keys), then for each
key the number of its elements in eight bytes and the elements. There are no checksums: everything after the pickles is
found by arithmetic, and the numbers of elements are all there is to confirm it.
"""

import pickle
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from mobile_vla.checkpoint.formats.pickles import DEFAULT_LIMITS, interpret
from mobile_vla.checkpoint.formats.torch_pickle import Contents, StorageRef, TensorRef, read_torch_pickle
from mobile_vla.checkpoint.formats.torch_zip import described
from mobile_vla.checkpoint.formats.zip_parts import PIECE, Source
from mobile_vla.checkpoint.layout import DTYPE_BYTES, Format, Layout, Problem, Run, Tensor
from mobile_vla.core import CheckpointError, DamagedCheckpointError, UnsafeCheckpointError

_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001
_MACHINE = {
    "protocol_version": _VERSION,
    "little_endian": True,
    "type_sizes": {"short": 2, "int": 4, "long": 4},
}
_EXPECTED = {"magic number": _MAGIC, "version": _VERSION, "facts about its machine": _MACHINE}
_MAGIC_BYTES = b"\x8a\x0a" + _MAGIC.to_bytes(10, "little")
_COUNT_BYTES = 8
_WHOLE_NUMBERS = ("I64", "U64", "I32", "U32", "I16", "U16", "I8", "U8", "BOOL", None)
_WINDOWS = (1 << 20, 1 << 24, DEFAULT_LIMITS.pickle_bytes)
_SMALL_PICKLE = 1 << 12
_BEGINNINGS = 8
_UNKNOWABLE = "torch's format before 1.6 stores no checksums: changed bytes in it cannot be told from right ones"
_BIG_ENDIAN = "its tensors are stored in big-endian order, which is not read: save it anew as little-endian"


@dataclass(frozen=True, slots=True)
class _Head:
    """The pickles of a file that begins at byte ``start``; the storages begin at ``end``, in the order of ``keys``."""

    start: int
    contents: Contents
    keys: Sequence[str]
    end: int
    little_endian: bool
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a storage's elements are, None where nobody knows; ``note`` says what does not fit, empty if all does."""

    offset: int | None
    note: str = ""


def survey(path: Path, opaque: Collection[str] = ()) -> Layout:
    """Which tensors the file holds and where, whole or damaged; ``opaque`` as in ``read_torch_pickle``.

    No run has a checksum. CheckpointError when the file cannot be read or is not of this format; UnsafeCheckpointError
    for a hostile pickle.
    """
    with Source(path) as source:
        _refuse_tar(source)
        head = _head(source, opaque)
        if isinstance(head, Problem):
            return Layout(path, Format.TORCH_LEGACY, (), (), (head,), (_UNKNOWABLE,))
        problems = list(head.problems)
        if not head.little_endian:
            problems.append(Problem(_BIG_ENDIAN))
        storages = {storage.key: storage for storage in head.contents.storages}
        places = _places(source, head.end, [storages[key] for key in head.keys], problems)
    runs: dict[str, Run] = {}
    for key, place in places.items():
        if place.offset is not None and (left := source.size - place.offset) >= 0:
            runs[key] = Run(f"data/{key}", path, place.offset, min(left, storages[key].size))
    tensors = tuple(_tensors(path, head, places, runs))
    pickles = Run("pickles", path, head.start, min(head.end, source.size) - head.start)
    return Layout(
        path,
        Format.TORCH_LEGACY,
        tensors,
        (pickles, *runs.values()),
        tuple(problems),
        (_UNKNOWABLE, *head.contents.skipped),
        head.contents.scalars,
    )


def _refuse_tar(source: Source) -> None:
    if source.read(257, 5) == b"ustar" or source.read(0, 9) in (b"sys_info\0", b"storages\0"):
        raise CheckpointError(
            f"{source.path} is a tar archive, torch's format before 0.1.10, which is not read: where you trust it, "
            "open it with an old torch and save it anew"
        )


# pickles


def _head(source: Source, opaque: Collection[str]) -> _Head | Problem:
    """The pickles that describe most of the storages: those at the start, unless a whole file follows a cut one."""
    damage: DamagedCheckpointError | None = None
    heads: list[_Head] = []
    for start in islice(dict.fromkeys([0, *_beginnings(source)]), _BEGINNINGS):
        problems: list[Problem] = []
        after = _preamble(source, start, problems)
        if after is None:
            continue
        if start:
            problems.insert(0, Problem(f"{start} bytes that are nobody's stand before it", harmless=True))
        try:
            heads.append(_read_head(source, start, after, opaque, problems))
        except DamagedCheckpointError as error:
            damage = damage or error
    if not heads and damage is None:
        heads += _without_preamble(source, opaque)
    if heads:
        return min(heads, key=lambda head: _oddity(source, head))
    if damage is not None:
        return Problem(f"names, types and shapes of its tensors are lost: {damage.damage}")
    raise CheckpointError(f"{source.path} is no torch file of the format before 1.6: nothing in it begins like one")


def _read_head(
    source: Source, start: int, after: tuple[int, bool], opaque: Collection[str], problems: list[Problem]
) -> _Head:
    at, little_endian = after
    contents = _object(source, at, opaque)
    keys, end = _keys(source, at, contents, problems)
    return _Head(start, contents, keys, end, little_endian, tuple(problems))


def _without_preamble(source: Source, opaque: Collection[str]) -> Iterator[_Head]:
    """Should all of the first three pickles be overwritten: what stands where they end, if it is what it should be."""
    at = sum(len(pickle.dumps(expected, 2)) for expected in _EXPECTED.values())
    problems: list[Problem] = []
    with suppress(DamagedCheckpointError, UnsafeCheckpointError):
        head = _read_head(source, 0, (at, True), opaque, problems)
        if head.contents.storages and not problems:
            what = f"what stands at its start is damaged: {', '.join(_EXPECTED)}"
            yield replace(head, problems=(Problem(what, harmless=True),))


def _oddity(source: Source, head: _Head) -> tuple[int, bool]:
    """How many storages are not preceded by their number of elements; whether the last does not end with the file."""
    odd, at = 0, head.end
    storages = {storage.key: storage for storage in head.contents.storages}
    for key in head.keys:
        odd += _count(source, at) != storages[key].numel
        at += _COUNT_BYTES + storages[key].size
    return odd, at != source.size


def _beginnings(source: Source) -> Iterator[int]:
    """Where magic numbers stand."""
    at = 0
    while data := source.read(at, PIECE):
        place = data.find(_MAGIC_BYTES)
        while place >= 2:
            yield at + place - 2
            place = data.find(_MAGIC_BYTES, place + 1)
        # one may lie across two pieces
        at += max(1, len(data) - len(_MAGIC_BYTES) - 2) if at + len(data) < source.size else len(data)


def _preamble(source: Source, start: int, problems: list[Problem]) -> tuple[int, bool] | None:
    """Read the first three pickles: where the object begins, and whether the machine was little-endian."""
    protocol = _protocol(source, start)
    at, little_endian = start, True
    wrong: list[str] = []
    for what, expected in _EXPECTED.items():
        value, consumed = _plain(source, at, _SMALL_PICKLE)
        if value == {**_MACHINE, "little_endian": False}:
            little_endian = False
        elif value != expected:
            wrong.append(what)
            consumed = len(pickle.dumps(expected, protocol))
        at += consumed
    if len(wrong) == len(_EXPECTED):
        return None
    if wrong:
        problems.append(Problem(f"what stands at its start is damaged: {', '.join(wrong)}", harmless=True))
    return at, little_endian


def _protocol(source: Source, at: int) -> int:
    head = source.read(at, 2)
    return head[1] if head[:1] == b"\x80" and 2 <= head[-1] <= pickle.HIGHEST_PROTOCOL else 2


def _plain(source: Source, at: int, limit: int) -> tuple[object, int]:
    """A pickle of plain data and its length; None and 0 where there is none, for damage can make any opcode."""
    try:
        pickled = interpret(source.read(at, limit), source.path, {})
    except (DamagedCheckpointError, UnsafeCheckpointError):
        return None, 0
    return pickled.value, pickled.consumed_bytes


def _object(source: Source, at: int, opaque: Collection[str]) -> Contents:
    window, *larger = _WINDOWS
    while True:
        try:
            return read_torch_pickle(source.read(at, window), source.path, opaque)
        except DamagedCheckpointError:
            if at + window >= source.size or not larger:
                raise
            window, *larger = larger


def _keys(source: Source, at: int, contents: Contents, problems: list[Problem]) -> tuple[list[str], int]:
    """The keys in the order of their bytes, and where those begin; as torch sorts them, should the list be lost."""
    known = sorted(storage.key for storage in contents.storages)
    rebuilt = pickle.dumps(known, _protocol(source, at))
    at += contents.consumed
    keys, consumed = _plain(source, at, 2 * len(rebuilt) + _SMALL_PICKLE)
    if isinstance(keys, list) and all(isinstance(key, str) for key in keys) and sorted(keys) == known:
        return keys, at + consumed
    problems.append(
        Problem("the list of its storages is damaged or cut off: torch's own order is taken", harmless=True)
    )
    return known, at + len(rebuilt)


# storages


def _places(source: Source, start: int, storages: Sequence[StorageRef], problems: list[Problem]) -> dict[str, _Place]:
    """Where each storage's elements are, by arithmetic from the front and, should bytes be missing, from the back."""
    offsets = []
    at = start
    for storage in storages:
        offsets.append(at)
        at += _COUNT_BYTES + storage.size
    moved = source.size - at
    counts = list(zip(offsets, storages, strict=True))
    in_place = [_count(source, offset) == storage.numel for offset, storage in counts]
    at_end = [_count(source, offset + moved) == storage.numel for offset, storage in counts]
    # from ``turn`` on all lie where the end of the file puts them; nothing before ``front`` has moved
    # (a count of 0 fits any zeros)
    front = max((place + 1 for place, fits in enumerate(in_place) if fits and storages[place].numel), default=0)
    turn = len(storages)
    while moved and turn > front and at_end[turn - 1]:
        turn -= 1
    overlaps = bool(turn < len(storages) and front and offsets[turn] + moved <= offsets[front - 1])
    counted = sum(storage.numel > 0 for storage in storages[turn:])
    whole_numbers = front and storages[front - 1].dtype in _WHOLE_NUMBERS
    if overlaps or counted < (2 if whole_numbers else 1):
        # a file cut off behind a storage like its last one, or within numbers that look like counts
        turn = len(storages)
    inside = turn < len(storages)
    _say_size(moved, inside, problems)
    places: dict[str, _Place] = {}
    for place, (offset, storage) in enumerate(counts):
        note = ""
        data: int | None = offset + _COUNT_BYTES
        if inside and place == front - 1 and front == turn:
            data, note = None, f"{abs(moved)} bytes were {'added' if moved > 0 else 'lost'} inside of it"
        elif inside and place >= turn - 1:
            data = offset + _COUNT_BYTES + moved
            note = "" if place >= turn else "bytes were lost or added right before it"
        elif inside and place == front - 1:
            note = "bytes were lost or added right behind it"
        elif inside and place >= front:
            data, note = None, "bytes were lost or added around it"
        elif moved and place >= front and offset + _COUNT_BYTES <= source.size:
            data, note = None, "bytes were lost or added somewhere before it"
        elif not in_place[place] and offset + _COUNT_BYTES <= source.size:
            note = "the number of its elements is damaged; placed by the sizes of those before it"
            problems.append(Problem(f"the number of elements before data/{storage.key} is damaged", harmless=True))
        if data is not None and data + storage.size > source.size:
            note = f"the file ends {data + storage.size - source.size} bytes too early for it"
        places[storage.key] = _Place(data, note)
    return places


def _say_size(moved: int, inside: bool, problems: list[Problem]) -> None:
    if inside:
        what = "too many are in" if moved > 0 else "are missing from"
        problems.append(Problem(f"{abs(moved)} bytes {what} its middle"))
    elif moved < 0:
        problems.append(Problem(f"the file is cut off: {-moved} bytes are missing at its end"))
    elif moved > 0:
        problems.append(Problem(f"{moved} bytes that are nobody's follow its last storage", harmless=True))


def _count(source: Source, at: int) -> int | None:
    data = source.read(at, _COUNT_BYTES)
    return int.from_bytes(data, "little") if len(data) == _COUNT_BYTES else None


# tensors


def _tensors(path: Path, head: _Head, places: Mapping[str, _Place], runs: Mapping[str, Run]) -> Iterator[Tensor]:
    for name, tensor in head.contents.tensors:
        key = tensor.storage.key
        run, note = runs.get(key), places[key].note
        if 0 in tensor.shape:
            run, note = run or Run(f"data/{key}", path, head.start, 0), ""
        elif run is not None and _last_byte(tensor) > run.size:
            run = None
        elif not head.little_endian:
            run, note = None, _BIG_ENDIAN
        yield described(name, tensor, run, note)


def _last_byte(tensor: TensorRef) -> int:
    """Of its storage: how far a tensor with at least one element reaches."""
    reach = sum((extent - 1) * stride for extent, stride in zip(tensor.shape, tensor.strides, strict=True))
    return (tensor.offset + reach + 1) * DTYPE_BYTES[tensor.dtype]
