"""What a pickle may leave behind besides plain data: names that stay names, records that stay records, plain values.

Nothing here imports, calls or looks up anything by a name from a file.
"""

import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

ELEMENT_BYTES = 32
"""What one element of a container counts for in a ``Budget``."""

_KEY_DEPTH, _KEY_BYTES = 32, 128
_ALIKE_KEYS = 10_000


class RefusedError(Exception):
    """A file asks for what no tensor needs. ``culprit`` is None where the opcode at hand is the one to name."""

    def __init__(self, reason: str, culprit: str | None = None) -> None:
        super().__init__(reason)
        self.reason, self.culprit = reason, culprit


@dataclass(frozen=True, slots=True)
class Global:
    """The name of something in a module, never the thing itself."""

    module: str
    name: str

    @property
    def full(self) -> str:
        """Module and name with a dot, "collections.OrderedDict"."""
        return f"{self.module}.{self.name}"


# repr is off: a record may hold itself, or the same list a billion times over
@dataclass(slots=True, eq=False, repr=False)
class Opaque:
    """What a file says of an instance of the class ``origin``; the class itself is never looked at.

    ``args`` would go to its constructor, ``state`` is what BUILD would set, ``items`` would be appended, ``pairs`` set.
    """

    origin: str
    args: tuple[object, ...] = ()
    state: object = None
    items: list[object] = field(default_factory=list)
    pairs: dict[object, object] = field(default_factory=dict)


def children(value: object) -> Iterator[object]:
    """The values directly inside a container; nothing for any other value."""
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        yield from value
    elif isinstance(value, Opaque):
        yield from value.args
        yield value.state
        yield from value.items
        yield from value.pairs.values()


class Budget:
    """What a file may still ask for in work and memory, so that a small file cannot ask for much.

    ``built_bytes`` is a rough measure of containers, of what is copied and of what is hashed; ``odd_keys`` may be
    dictionary keys or set members that are no text.
    """

    def __init__(self, built_bytes: int, odd_keys: int) -> None:
        self._bytes, self._odd_keys, self._alike_keys = built_bytes, odd_keys, _ALIKE_KEYS

    def spend(self, count: int) -> None:
        """Take ``count`` bytes; RefusedError when they are used up."""
        self._bytes -= count
        if self._bytes < 0:
            raise RefusedError("it builds or copies more than any checkpoint needs", "too much memory")

    def spend_on(self, args: tuple[object, ...]) -> None:
        """Take what copying the arguments and their direct elements costs."""
        self.spend(ELEMENT_BYTES * len(args))
        for value in args:
            if isinstance(value, str | bytes | bytearray):
                self.spend(len(value))
            elif isinstance(value, list | tuple | dict | set | frozenset):
                self.spend(ELEMENT_BYTES * len(value))

    def check_key(self, key: object) -> None:
        """RefusedError for a key that cannot be hashed, or not in bounded time.

        Python hashes nested tuples by recursion in C, without a limit. Text hashes differently in every process, but
        anyone can choose numbers and tuples that hash alike, and a dictionary of those is as slow as a list: 50,000
        took 24 s. So they are counted.
        """
        if type(key) is str:
            return
        self._odd_keys -= 1
        if isinstance(key, tuple | frozenset) or (isinstance(key, int) and abs(key) >= sys.hash_info.modulus):
            self._alike_keys -= 1
        if self._odd_keys < 0 or self._alike_keys < 0:
            raise RefusedError("it has too many dictionary keys that are no text", "keys")
        waiting = [(key, 0)]
        while waiting:
            value, depth = waiting.pop()
            self.spend(_KEY_BYTES)
            if isinstance(value, list | dict | set | bytearray):
                raise RefusedError(f"it uses a {type(value).__name__} as a dictionary key or set member", "keys")
            if isinstance(value, tuple | frozenset):
                if depth == _KEY_DEPTH:
                    raise RefusedError("it nests tuples in a dictionary key beyond reason", "keys")
                self.spend(ELEMENT_BYTES * len(value))
                waiting.extend((member, depth + 1) for member in value)

    def put(self, target: dict[object, object], key: object, value: object) -> None:
        """Set an entry that is not there yet; RefusedError for a second one of a key, which would hide the first."""
        self.check_key(key)
        if key in target:
            name = f"two entries named {_brief(key)}"
            raise RefusedError("it gives a dictionary the same key twice, so that one value hides another", name)
        target[key] = value


def _brief(key: object) -> str:
    if isinstance(key, str):
        return repr(key if len(key) <= 60 else key[:60] + "...")
    return repr(key) if isinstance(key, bool | float) else f"a {type(key).__name__}"


Plain = Callable[[tuple[object, ...], Budget], object]


def _members(args: tuple[object, ...], budget: Budget) -> list[object]:
    """The elements of the one list or tuple that a set, list or the like is made of, all fit to be hashed."""
    match args:
        case ():
            return []
        case (list() | tuple() as elements,):
            for element in elements:
                budget.check_key(element)
            return list(elements)
    raise RefusedError("it makes a set of something other than a list")


def _ordered_dict(args: tuple[object, ...], budget: Budget) -> Opaque:
    record = Opaque("collections.OrderedDict")
    match args:
        case () | (None,):
            return record
        case (dict() as entries,):
            pairs: list[object] = [*entries.items()]
        case (list() as pairs,):
            pass
        case _:
            raise RefusedError("it makes a dictionary of something other than pairs")
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise RefusedError("it makes a dictionary of something other than pairs")
        budget.put(record.pairs, pair[0], pair[1])
    return record


def _counter(args: tuple[object, ...], budget: Budget) -> Opaque:
    record = _ordered_dict(args, budget)
    record.origin = "collections.Counter"
    return record


def _default_dict(args: tuple[object, ...], budget: Budget) -> Opaque:
    if len(args) > 1 or not all(each is None or isinstance(each, Global) for each in args):
        raise RefusedError("it makes a defaultdict whose factory is no name")
    return Opaque("collections.defaultdict")


def _deque(args: tuple[object, ...], budget: Budget) -> Opaque:
    match args:
        case ():
            return Opaque("collections.deque")
        case (list() | tuple() as elements,) | (list() | tuple() as elements, int() | None):
            return Opaque("collections.deque", items=list(elements))
    raise RefusedError("it makes a deque of something other than a list")


def _bytes(args: tuple[object, ...], budget: Budget) -> bytes:
    match args:
        case ():
            return b""
        case (bytes() | bytearray() as value,):
            return bytes(value)
        case (str() as text, "latin1" | "latin-1" | "iso-8859-1"):
            return _latin1(text)
    raise RefusedError("it makes bytes of something other than Latin-1 text")


def _latin1(text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise RefusedError("it makes bytes of something other than Latin-1 text") from None


def _complex(args: tuple[object, ...], budget: Budget) -> complex:
    match args:
        case (int() | float() as real, int() | float() as imaginary):
            return complex(_float(real), _float(imaginary))
    raise RefusedError("it makes a complex number of something other than two numbers")


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        raise RefusedError("it makes a complex number of something too large") from None


_NUMPY_SCALARS = {
    "b1": "?",
    "i1": "b",
    "u1": "B",
    "i2": "h",
    "u2": "H",
    "i4": "i",
    "u4": "I",
    "i8": "q",
    "u8": "Q",
    "f2": "e",
    "f4": "f",
    "f8": "d",
}


def _numpy_scalar(args: tuple[object, ...], budget: Budget) -> object:
    """A number of a plain dtype as Python's own; anything else stays a record."""
    match args:
        case (Opaque(origin="numpy.dtype", args=(str() as code, *_), state=state), bytes() as data):
            kind = _NUMPY_SCALARS.get(code)
            order = state[1] if isinstance(state, tuple) and len(state) > 1 else "|"
            if kind and order in ("<", ">", "|") and len(data) == struct.calcsize("=" + kind):
                return struct.unpack((">" if order == ">" else "<") + kind, data)[0]
    return Opaque("numpy.scalar", args)


def _reconstructor(args: tuple[object, ...], budget: Budget) -> Opaque:
    """An object as protocols 0 and 1 write it: class, the built-in class below it, that one's content."""
    match args:
        case (Global() as made, Global(module="builtins" | "__builtin__", name=base), content):
            record = Opaque(made.full)
            if base == "dict" and isinstance(content, dict):
                budget.spend(ELEMENT_BYTES * len(content))
                record.pairs = dict(content)
            elif base == "list" and isinstance(content, list):
                record.items = list(content)
            elif content is not None:
                record.args = (content,)
            return record
    raise RefusedError("it rebuilds an object of something other than a class and its base")


def _new_object(args: tuple[object, ...], budget: Budget) -> Opaque:
    match args:
        case (Global() as made, *rest):
            return Opaque(made.full, tuple(rest))
    raise RefusedError("it makes an object of something other than a class")


PLAIN: Mapping[str, Plain] = {
    "_codecs.encode": _bytes,
    "builtins.bytearray": lambda args, budget: bytearray(_bytes(args, budget)),
    "builtins.bytes": _bytes,
    "builtins.complex": _complex,
    "builtins.frozenset": lambda args, budget: frozenset(_members(args, budget)),
    "builtins.set": lambda args, budget: set(_members(args, budget)),
    "collections.Counter": _counter,
    "collections.OrderedDict": _ordered_dict,
    "collections.defaultdict": _default_dict,
    "collections.deque": _deque,
    "copyreg.__newobj__": _new_object,
    "copyreg._reconstructor": _reconstructor,
    "numpy._core.multiarray.scalar": _numpy_scalar,
    "numpy.core.multiarray.scalar": _numpy_scalar,
}
"""What pickles write for plain values and the standard library's containers, and how we read it."""


def _names(module: str, names: str) -> set[str]:
    return {f"{module}.{name}" for name in names.split()}


HARMLESS: frozenset[str] = frozenset(
    _names("builtins", "bool dict float int list object str tuple range slice Ellipsis NotImplemented")
    | _names("builtins", "long unicode xrange")  # Python 2's
    | _names("argparse", "Namespace")
    | _names("types", "SimpleNamespace")
    | _names("datetime", "date datetime time timedelta timezone")
    | _names("decimal", "Decimal")
    | _names("fractions", "Fraction")
    | _names("uuid", "UUID SafeUUID")
    | _names("pathlib", "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath")
    | _names("pathlib._local", "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath")
    | _names("typing", "Any Dict List Optional Set Tuple Union")
    | _names("numpy", "dtype ndarray bool bool_ float16 float32 float64")
    | _names("numpy", "int8 int16 int32 int64 uint8 uint16 uint32 uint64")
    | _names("numpy.core.multiarray", "_reconstruct")
    | _names("numpy._core.multiarray", "_reconstruct")
    | _names("numpy.core.numeric", "_frombuffer")
    | _names("numpy._core.numeric", "_frombuffer")
    | _names("numpy.random._pickle", "__bit_generator_ctor __generator_ctor __randomstate_ctor")
    | _names("numpy.random._mt19937", "MT19937")
    | _names("numpy.random._pcg64", "PCG64 PCG64DXSM")
    | _names("numpy.random._philox", "Philox")
    | _names("numpy.random._sfc64", "SFC64")
    | _names("numpy.random.bit_generator", "SeedSequence __pyx_unpickle_SeedSequence")
    | _names("pytorch_lightning.utilities.parsing", "AttributeDict")
    | _names("lightning.pytorch.utilities.parsing", "AttributeDict")
    | _names("lightning.fabric.utilities.data", "AttributeDict")
    | _names("lightning_fabric.utilities.data", "AttributeDict")
    | _names("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint")
    | _names("pytorch_lightning.callbacks.early_stopping", "EarlyStopping")
    | _names("omegaconf.base", "ContainerMetadata Metadata SCMode")
    | _names("omegaconf.dictconfig", "DictConfig")
    | _names("omegaconf.listconfig", "ListConfig")
    | _names(
        "omegaconf.nodes",
        "AnyNode BooleanNode BytesNode EnumNode FloatNode IntegerNode PathNode StringNode ValueNode",
    )
    | _names("easydict", "EasyDict")
    | _names("addict.addict", "Dict")
    | _names("yacs.config", "CfgNode")
    | _names("mmengine.config.config", "ConfigDict")
    | _names("mmcv.utils.config", "ConfigDict")
    | _names("ml_collections.config_dict.config_dict", "ConfigDict FieldReference")
)
"""Well-known classes that stand beside weights in training files. Each becomes an ``Opaque`` record, never itself."""
