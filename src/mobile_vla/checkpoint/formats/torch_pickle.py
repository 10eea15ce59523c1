"""From the pickle in a torch file to its tensors by name: storage, dtype, shape and strides. Needs no torch."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from mobile_vla.checkpoint.formats.inert import Global, Opaque, RefusedError
from mobile_vla.checkpoint.formats.pickles import interpret
from mobile_vla.checkpoint.formats.torch_globals import (
    TABLE,
    StorageRef,
    Storages,
    Tagged,
    TensorRef,
    Undescribed,
    Window,
)
from mobile_vla.checkpoint.layout import Scalar
from mobile_vla.core.errors import UnsafeCheckpointError

__all__ = ["Contents", "StorageRef", "TensorRef", "read_torch_pickle"]


@dataclass(frozen=True)
class Contents:
    """What a torch pickle holds. The dotted names of ``tensors`` are unique, printable and of bounded length.

    ``tensors`` pairs a path with each tensor in order of appearance, one that is met on two paths twice; the path of a
    tensor that is the whole file is empty. ``storages`` stand in order of first appearance, also those of no tensor.
    ``scalars`` maps dotted paths to values, the outer ones first, a thousand at most. ``skipped`` says in sentences
    which tensors cannot be described and why. ``opaque`` names the classes that stayed inert records. ``consumed``
    counts the pickle's bytes.
    """

    tensors: tuple[tuple[tuple[str, ...], TensorRef], ...]
    storages: tuple[StorageRef, ...]
    scalars: Mapping[str, Scalar]
    skipped: tuple[str, ...]
    opaque: tuple[str, ...]
    consumed: int


def read_torch_pickle(data: bytes, source: Path, opaque: Collection[str] = ()) -> Contents:
    """Read the pickle of a torch file, the object pickle of one before 1.6 included; ``source`` stands in errors.

    ``opaque`` is as in ``pickles.interpret``. Tensors inside inert records (a pickled module, say) are found under the
    names of their attributes, as the file has them: ``net._modules.head._parameters.weight``. Whether a class would
    call them otherwise cannot be known without running it.
    Sizes of storages are what the pickle claims; a caller compares them with the bytes that are there.
    Raises UnsafeCheckpointError, DamagedCheckpointError, and CheckpointError for an ``opaque`` that is no pattern.
    """
    storages = Storages()
    pickled = interpret(data, source, TABLE, storages.load, opaque)
    walk = _Walk(sum(storage.size for storage in storages.all()))
    try:
        walk.through(pickled.value)
    except RefusedError as refusal:
        raise UnsafeCheckpointError(source, refusal.culprit or "pickle", refusal.reason) from None
    return Contents(
        tuple(walk.tensors),
        storages.all(),
        walk.scalars(),
        tuple(walk.skipped()),
        pickled.opaque_globals_met,
        pickled.consumed_bytes,
    )


_MOST_STEPS = 8_000_000
_STEPS_TO_ENTER = 8
_MOST_DEPTH = 200
_MOST_TENSORS = 200_000
_LONGEST_NAME = 2000
_MOST_SENTENCES = 1000
_MOST_SCALARS = 1000
_SCALAR_DEPTH = 8
_LONGEST_SCALAR = 1000
_LONGEST_LIST_OF_SCALARS = 64
# A view may repeat its storage (expand, unfold), so that a file of bytes could ask for terabytes when written out
_REPEATS, _REPEATS_BYTES = 16, 256 << 20

_ARRAYS = (
    "numpy._core.numeric._frombuffer",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
)


_SCALARS = (str, int, float, bool, type(None))
_CONTAINERS = (dict, list, tuple, set, frozenset, Opaque, Tagged)
_SURROGATE = re.compile("[\ud800-\udfff]")

_Child = tuple[str, object, str]
"""A part of a name, what is there, and why it has no name (empty where it has one)."""


@dataclass(frozen=True, slots=True)
class _Step:
    """A place on the way: the part of its name and the place above it. ``nameless`` says why it has no name."""

    above: "_Step | None"
    part: str
    depth: int
    nameless: str

    def below(self, part: str, nameless: str) -> "_Step":
        return _Step(self, part, self.depth + 1, self.nameless or nameless)

    def path(self) -> tuple[str, ...]:
        parts = []
        step = self
        while step.above:
            parts.append(step.part)
            step = step.above
        return tuple(reversed(parts))


class _Walk:
    """All that is reachable from a value, on every path to it, by a loop and with limits.

    What holds itself is entered once on a path; what is shared a billion times over exceeds the limits.
    """

    def __init__(self, storage_bytes: int) -> None:
        self.tensors: list[tuple[tuple[str, ...], TensorRef]] = []
        self._names: set[str] = set()
        self._scalars: list[dict[str, Scalar]] = [{} for _ in range(_SCALAR_DEPTH + 1)]
        self._sentences: list[str] = []
        self._unsaid = 0
        self._bytes_left = _REPEATS * storage_bytes + _REPEATS_BYTES
        self._steps_left = _MOST_STEPS

    def through(self, value: object) -> None:
        """Walk from the top. RefusedError where the limits are exceeded or a tensor's name is none."""
        self._meet(_Step(None, "", 0, ""), value)
        ways = [(_Step(None, "", 0, ""), id(value), self._inside(value))]
        inside = {id(value)}
        while ways:
            step, key, way = ways[-1]
            for part, child, nameless in way:
                below = step.below(part, nameless)
                self._meet(below, child)
                if isinstance(child, _CONTAINERS) and id(child) not in inside:
                    if below.depth > _MOST_DEPTH:
                        raise RefusedError(f"it nests containers more than {_MOST_DEPTH} deep", "nesting")
                    self._spend(_STEPS_TO_ENTER)
                    inside.add(id(child))
                    ways.append((below, id(child), self._inside(child)))
                    break
            else:
                ways.pop()
                inside.discard(key)

    def scalars(self) -> dict[str, Scalar]:
        """The outermost ones first."""
        return dict(islice(chain.from_iterable(each.items() for each in self._scalars), _MOST_SCALARS))

    def skipped(self) -> list[str]:
        """A sentence for each tensor that is not in ``tensors``."""
        return [*self._sentences, f"{self._unsaid} more of this kind"] if self._unsaid else self._sentences

    def _inside(self, value: object) -> Iterator[_Child]:
        """What is directly in a container, with names. The scalars of a long list are passed over."""
        if isinstance(value, dict):
            self._spend(len(value))
            return self._entries(value)
        if isinstance(value, list | tuple):
            self._spend(len(value))
            return self._elements(value)
        if isinstance(value, set | frozenset):
            self._spend(len(value))
            return (("member", member, "is in a set, whose members have no names") for member in value)
        if isinstance(value, Opaque):
            parts = (value.pairs, value.items, *_attributes(value.state), value.args)
            if value.origin in _ARRAYS:
                return self._nameless(parts, "is inside a numpy array")
            if value.origin == "collections.OrderedDict":
                about = self._nameless(_attributes(value.state), "is an attribute of a dictionary, not in it")
                return chain(self._inside(value.pairs), about)
            return chain.from_iterable(map(self._inside, parts))
        if isinstance(value, Tagged):
            return chain.from_iterable(map(self._inside, _attributes(value.state)))
        return iter(())

    def _nameless(self, parts: tuple[object, ...], why: str) -> Iterator[_Child]:
        return ((name, child, why) for part in parts for name, child, _ in self._inside(part))

    def _entries(self, value: dict[object, object]) -> Iterator[_Child]:
        for key, child in value.items():
            if isinstance(key, str):
                yield key, child, ""
            else:
                if not isinstance(key, _SCALARS):
                    yield "key", key, "is in the key of a dictionary, where nothing has a name"
                yield _key_text(key), child, ""

    def _elements(self, value: list[object] | tuple[object, ...]) -> Iterator[_Child]:
        short = len(value) <= _LONGEST_LIST_OF_SCALARS
        return ((str(index), child, "") for index, child in enumerate(value) if short or type(child) not in _SCALARS)

    def _spend(self, steps: int) -> None:
        self._steps_left -= steps
        if self._steps_left < 0:
            raise RefusedError("it holds the same things on too many paths", "billion laughs")

    def _meet(self, step: _Step, value: object) -> None:
        match value:
            case TensorRef():
                self._add(step, value)
            case Tagged(tensor=TensorRef() as tensor):
                self._add(step, tensor)
            case Undescribed(why=why) | Tagged(tensor=Undescribed(why=why)):
                self._skip(step, why)
            case Window():
                self._skip(step, "is a bare storage, without a shape")
            case Opaque(origin=origin) if origin in _ARRAYS:
                self._skip(step, "is a numpy array inside the pickle, not a tensor")
            case None | str() | int() | float():
                self._note(step, value)

    def _add(self, step: _Step, tensor: TensorRef) -> None:
        if step.nameless:
            self._skip(step, step.nameless)
            return
        path = step.path()
        self._spend(len(path))
        if sum(map(len, path)) > _LONGEST_NAME or not all(map(str.isprintable, path)):
            raise RefusedError("it gives a tensor a name that is endless or no printable text", _shown(path))
        name = ".".join(path)
        if name in self._names:
            self._skip(step, "is the name of a tensor already")
            return
        self._names.add(name)
        self._bytes_left -= tensor.size
        if self._bytes_left < 0:
            raise RefusedError("its tensors repeat their storages until they are out of all proportion", name)
        if len(self.tensors) == _MOST_TENSORS:
            raise RefusedError(f"it has more than {_MOST_TENSORS} tensors", "too many tensors")
        self.tensors.append((path, tensor))

    def _skip(self, step: _Step, why: str) -> None:
        if len(self._sentences) == _MOST_SENTENCES:
            self._unsaid += 1
            return
        self._sentences.append(f"{_shown(step.path())} {why}")

    def _note(self, step: _Step, value: Scalar) -> None:
        if not 0 < step.depth <= _SCALAR_DEPTH or step.nameless or len(self._scalars[step.depth]) == _MOST_SCALARS:
            return
        path = step.path()
        if sum(map(len, path)) > _LONGEST_NAME or not all(map(str.isprintable, path)):
            return
        if isinstance(value, str) and (len(value) > _LONGEST_SCALAR or _SURROGATE.search(value)):
            return
        self._scalars[step.depth].setdefault(".".join(path), value)


def _attributes(state: object) -> tuple[object, ...]:
    """An instance's state: its attributes, or those and its slots; anything else is a thing of its own."""
    match state:
        case None:
            return ()
        case dict():
            return (state,)
        case (dict() | None as attributes, dict() as slots):
            return (attributes or {}, slots)
    return ({"state": state},)


def _key_text(key: object) -> str:
    match key:
        case bytes():
            return key.decode("utf-8", "backslashreplace")
        case Global():
            return key.full
        case tuple() if len(key) <= 8 and all(isinstance(each, _SCALARS) for each in key):
            return f"({', '.join(map(str, key))})"
        case None | int() | float():
            return str(key)
    return type(key).__name__.lower()


def _shown(path: tuple[str, ...]) -> str:
    name = ".".join(part[:60] for part in path)[:200] or "the tensor that is the whole file"
    return name if name.isprintable() else ascii(name)
