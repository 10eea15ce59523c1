"""What torch's pickles call, and what we make of it: descriptions of storages and tensors, checked, never torch's own.

Read from torch's ``serialization.py``, ``_utils.py``, ``_tensor.py`` and ``storage.py``, versions 0.4 to 2.13.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mobile_vla.checkpoint.formats.inert import Global, RefusedError
from mobile_vla.checkpoint.formats.pickles import Table
from mobile_vla.checkpoint.layout import DTYPE_BYTES


@dataclass(frozen=True, slots=True)
class StorageRef:
    """Bytes that a file keeps under ``key``. ``numel`` counts elements of ``dtype``, or bytes where that is None."""

    key: str
    dtype: str | None
    numel: int
    location: str

    @property
    def size(self) -> int:
        """Its bytes, as the pickle claims them."""
        return self.numel * (DTYPE_BYTES[self.dtype] if self.dtype else 1)


@dataclass(frozen=True, slots=True)
class TensorRef:
    """A tensor on a storage; ``offset`` and ``strides`` count elements of ``dtype``, a key of ``DTYPE_BYTES``."""

    storage: StorageRef
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes of its elements, were they written one after the other."""
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a storage, as a persistent id names it: ``start`` and ``length`` in the storage's own unit."""

    storage: StorageRef
    torch_dtype: str
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Undescribed:
    """A tensor that is not one dense piece of a storage; ``why`` ends a sentence that begins with its name."""

    why: str


@dataclass(frozen=True, slots=True, eq=False)
class Tagged:
    """A tensor that carries attributes, which may hold tensors too."""

    tensor: TensorRef | Undescribed
    state: object


AnyTensor = TensorRef | Undescribed | Tagged
Rebuild = Callable[[tuple[object, ...]], AnyTensor]

TORCH_DTYPES: Mapping[str, str | None] = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float8_e8m0fnu": "F8_E8M0",
    "uint16": "U16",
    "int16": "I16",
    "float16": "F16",
    "bfloat16": "BF16",
    "uint32": "U32",
    "int32": "I32",
    "float32": "F32",
    "uint64": "U64",
    "int64": "I64",
    "float64": "F64",
    "complex64": "C64",
    **dict.fromkeys(("complex32", "complex128", "float8_e4m3fnuz", "float8_e5m2fnuz", "float4_e2m1fn_x2")),
    **dict.fromkeys(("qint8", "qint32", "quint8", "quint4x2", "quint2x4")),
    **dict.fromkeys(("bits8", "bits16", "bits1x8", "bits2x4", "bits4x2")),
    **dict.fromkeys(f"{sign}int{bits}" for sign in ("", "u") for bits in range(1, 8)),
}
"""torch's names of dtypes, and safetensors' where it has one."""

# Name of the class: torch's dtype, bytes of an element
_STORAGES: Mapping[str, tuple[str, int]] = {
    "BFloat16Storage": ("bfloat16", 2),
    "BoolStorage": ("bool", 1),
    "ByteStorage": ("uint8", 1),
    "CharStorage": ("int8", 1),
    "ComplexDoubleStorage": ("complex128", 16),
    "ComplexFloatStorage": ("complex64", 8),
    "DoubleStorage": ("float64", 8),
    "FloatStorage": ("float32", 4),
    "HalfStorage": ("float16", 2),
    "IntStorage": ("int32", 4),
    "LongStorage": ("int64", 8),
    "QInt32Storage": ("qint32", 4),
    "QInt8Storage": ("qint8", 1),
    "QUInt2x4Storage": ("quint2x4", 1),
    "QUInt4x2Storage": ("quint4x2", 1),
    "QUInt8Storage": ("quint8", 1),
    "ShortStorage": ("int16", 2),
}
_UNTYPED = ("UntypedStorage", "_UntypedStorage")
_STORAGE_MODULES = ("torch", "torch.cuda", "torch.storage")

_KEY = re.compile(r"[0-9A-Za-z_-]{1,128}")
_LONGEST_LOCATION = 64
_MOST_DIMENSIONS = 64  # torch's own limit
_HUGE = 2**63


class Storages:
    """The storages that a pickle's persistent ids name, in order of first appearance."""

    def __init__(self) -> None:
        self._seen: dict[str, StorageRef] = {}

    def all(self) -> tuple[StorageRef, ...]:
        """Every storage met so far, once."""
        return tuple(self._seen.values())

    def load(self, persistent_id: object) -> Window | Global:
        """From ``('storage', class, key, location, numel)`` to a window, the older sixth member being None or a view.

        Also ``('module', class, file, source)`` of the format before 1.6, which is the class's name here.
        RefusedError for any other form, and for a key whose dtype or size differs from what was said of it before.
        """
        match persistent_id:
            case ("module", Global() as made, _, _):
                return made
            case ("storage", Global() as kind, str() as key, str() as location, int() as numel, *view) if len(view) < 2:
                pass
            case _:
                raise RefusedError("it refers to something outside itself that is no tensor's storage")
        if not _KEY.fullmatch(key):
            raise RefusedError(
                "it names a storage by something that could be a path", f"storage key {ascii(key)[:200]}"
            )
        if len(location) > _LONGEST_LOCATION or not location.isprintable():
            raise RefusedError("it puts a storage on no device", f"location {ascii(location)[:200]}")
        storage, torch_dtype = _storage(kind, key, location, _count(numel, "elements of a storage"))
        known = self._seen.setdefault(key, storage)
        if known != storage and (known.size or storage.size):
            raise RefusedError("it gives one storage two dtypes or sizes", f"storage key '{key}'")
        match view:
            case [] | [None]:
                return Window(storage, torch_dtype, 0, storage.numel)
            case [(str(), int() as start, int() as length)] if 0 <= start <= start + length <= storage.numel:
                return Window(storage, torch_dtype, start, length)
        raise RefusedError("it views a storage beyond its end", f"storage key '{key}'")


def _storage(kind: Global, key: str, location: str, numel: int) -> tuple[StorageRef, str]:
    if kind.module in _STORAGE_MODULES and kind.name in _UNTYPED:
        return StorageRef(key, None, numel, location), "uint8"
    if kind.module not in _STORAGE_MODULES or kind.name not in _STORAGES:
        raise RefusedError(f"it takes {kind.full} for a class of storages", kind.full)
    torch_dtype, item = _STORAGES[kind.name]
    _count(numel * item, "bytes of a storage")
    dtype = TORCH_DTYPES[torch_dtype]
    # A dtype without a name in safetensors: its bytes can still be told and checked
    return StorageRef(key, dtype, numel if dtype else numel * item, location), torch_dtype


def _count(value: object, what: str) -> int:
    if type(value) is not int or not 0 <= value < _HUGE:
        raise RefusedError(f"it gives {_brief(value)} as {what}")
    return value


def _brief(value: object) -> str:
    return str(value)[:40] if type(value) is int else f"a {type(value).__name__}"


def _counts(value: object, what: str) -> tuple[int, ...]:
    if not isinstance(value, tuple | list) or len(value) > _MOST_DIMENSIONS:
        raise RefusedError(f"it gives {_brief(value)} as the {what} of a tensor, or too many of them")
    return tuple(_count(each, what) for each in value)


def _dense(window: object, offset: object, shape: object, strides: object, torch_dtype: str) -> TensorRef | Undescribed:
    """A tensor on a part of a storage; RefusedError where it would reach beyond it."""
    if not isinstance(window, Window):
        raise RefusedError(f"it lays a tensor on {_brief(window)} instead of a storage")
    start = _count(offset, "offset")
    sizes, steps = _counts(shape, "size"), _counts(strides, "strides")
    if len(sizes) != len(steps):
        raise RefusedError(f"it gives a tensor {len(sizes)} sizes and {len(steps)} strides")
    dtype = TORCH_DTYPES[torch_dtype]
    if dtype is None:
        return Undescribed(f"has the dtype {torch_dtype}, which safetensors does not know")
    item = DTYPE_BYTES[dtype]
    unit = DTYPE_BYTES[window.storage.dtype] if window.storage.dtype else 1
    if item % unit or window.start * unit % item:
        raise RefusedError(f"it lays elements of {torch_dtype} on a storage of {window.torch_dtype}")
    _count(math.prod(sizes) * item, "bytes of a tensor")
    if 0 in sizes:
        return TensorRef(window.storage, dtype, 0, sizes, steps)
    end = start + 1 + sum((size - 1) * step for size, step in zip(sizes, steps, strict=True))
    if end * item > window.length * unit:
        raise RefusedError(f"it lays a tensor up to element {end} on a storage of {window.length * unit // item}")
    return TensorRef(window.storage, dtype, window.start * unit // item + start, sizes, steps)


def _with_metadata(tensor: TensorRef | Undescribed, metadata: object) -> TensorRef | Undescribed:
    if metadata is not None and not isinstance(metadata, dict):
        raise RefusedError(f"it gives {_brief(metadata)} as the metadata of a tensor")
    if metadata and any(flag is not False for flag in metadata.values()):
        return Undescribed("is a conjugated or negated view of its storage")
    return tensor


def _rebuild_tensor(args: tuple[object, ...]) -> TensorRef | Undescribed:
    match args:
        case (Window() as window, offset, shape, strides):
            return _dense(window, offset, shape, strides, window.torch_dtype)
    raise _wrong(args)


def _rebuild_tensor_v2(args: tuple[object, ...]) -> TensorRef | Undescribed:
    match args:
        case (Window() as window, offset, shape, strides, bool(), _, *rest) if len(rest) < 2:
            tensor = _dense(window, offset, shape, strides, window.torch_dtype)
            return _with_metadata(tensor, rest[0] if rest else None)
    raise _wrong(args)


def _rebuild_tensor_v3(args: tuple[object, ...]) -> TensorRef | Undescribed:
    match args:
        case (Window() as window, offset, shape, strides, bool(), _, dtype, *rest) if len(rest) < 2:
            tensor = _dense(window, offset, shape, strides, _dtype(dtype))
            return _with_metadata(tensor, rest[0] if rest else None)
    raise _wrong(args)


def _dtype(value: object) -> str:
    match value:
        case Global(module="torch", name=name) if name in TORCH_DTYPES:
            return name
    raise RefusedError(f"it takes {value.full if isinstance(value, Global) else _brief(value)} for a dtype")


def _rebuild_parameter(args: tuple[object, ...]) -> AnyTensor:
    match args:
        case (TensorRef() | Undescribed() | Tagged() as tensor, bool(), _):
            return tensor
    raise _wrong(args)


def _parameter(args: tuple[object, ...]) -> AnyTensor:
    match args:
        case (TensorRef() | Undescribed() | Tagged() as tensor, *rest) if rest in ([], [True], [False]):
            return tensor
    raise _wrong(args)


def _rebuild_parameter_with_state(args: tuple[object, ...]) -> AnyTensor:
    match args:
        case (TensorRef() | Undescribed() | Tagged() as tensor, bool(), _, state):
            return _tagged(tensor, state)
    raise _wrong(args)


def _tagged(tensor: AnyTensor, state: object) -> AnyTensor:
    if state is None or state == {}:
        return tensor
    if isinstance(tensor, Tagged):
        return Tagged(tensor.tensor, [tensor.state, state])
    return Tagged(tensor, state)


def _rebuild_from_type(args: tuple[object, ...]) -> AnyTensor:
    """A tensor of a class below torch's: its class is a name, the function that rebuilds it one of ours or nothing."""
    match args:
        case (Global() as function, Global(), tuple() as inner, state) if function.full in _REBUILD:
            return _tagged(_REBUILD[function.full](inner), state)
        case (Global() as function, *_):
            raise RefusedError(f"it has {function.full} rebuild a tensor", function.full)
    raise _wrong(args)


def _moved(args: tuple[object, ...]) -> AnyTensor:
    """A tensor of a device without storages, kept as its copy on the CPU."""
    match args:
        case (TensorRef() as tensor, dtype, str(), bool()) if TORCH_DTYPES[_dtype(dtype)] == tensor.dtype:
            return tensor
        case (TensorRef() | Undescribed() | Tagged(), dtype, str(), bool()):
            return Undescribed(f"is kept in another dtype than its own, {_dtype(dtype)}")
    raise _wrong(args)


def _undescribed(why: str, count: int) -> Rebuild:
    def rebuild(args: tuple[object, ...]) -> Undescribed:
        if len(args) != count:
            raise _wrong(args)
        return Undescribed(why)

    return rebuild


def _wrong(args: tuple[object, ...]) -> RefusedError:
    return RefusedError(f"it rebuilds a tensor of arguments that make none ({', '.join(map(_brief, args[:8]))})")


_LAZY = _undescribed("has no values yet, it is a lazy parameter", 1)
_FROM_NUMPY = _undescribed("was on a device without storages and is kept as a numpy array in the pickle", 4)

_REBUILD: Mapping[str, Rebuild] = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor_v2,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor_v3,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter_with_state,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _moved,
    "torch._utils._rebuild_device_tensor_from_numpy": _FROM_NUMPY,
    "torch._utils._rebuild_xla_tensor": _FROM_NUMPY,
    "torch._utils._rebuild_meta_tensor_no_storage": _undescribed("is on the meta device: it has a shape, no values", 4),
    "torch._utils._rebuild_nested_tensor": _undescribed("is nested, several tensors in one", 4),
    "torch._utils._rebuild_qtensor": _undescribed(
        "is quantised: its bytes mean nothing without scale and zero point", 7
    ),
    "torch._utils._rebuild_sparse_tensor": _undescribed("is sparse, indices and values apart", 2),
    "torch._utils._rebuild_wrapper_subclass": _undescribed("is a wrapper around others, without bytes of its own", 8),
    "torch.nn.parameter.Parameter": _parameter,
    "torch.nn.parameter.UninitializedBuffer": _LAZY,
    "torch.nn.parameter.UninitializedParameter": _LAZY,
}


def _size(args: tuple[object, ...]) -> tuple[int, ...]:
    match args:
        case (sizes,):
            return _counts(sizes, "size")
    raise _wrong(args)


def _text(args: tuple[object, ...]) -> str:
    """A device, "cuda" or ("cuda", 0); a version; a layout: each is its text here."""
    match args:
        case (str() as text,):
            return text
        case (str() as text, int() as index):
            return f"{text[:_LONGEST_LOCATION]}:{index}"
    raise _wrong(args)


TABLE: Table = {
    **_REBUILD,
    **dict.fromkeys((f"torch.{name}" for name in TORCH_DTYPES), None),
    **dict.fromkeys((f"{module}.{name}" for module in _STORAGE_MODULES for name in (*_STORAGES, *_UNTYPED)), None),
    **dict.fromkeys(("torch.Tensor", "torch._tensor.Tensor", "torch.tensor.Tensor", "torch.nn.parameter.Buffer")),
    **dict.fromkeys(("torch.per_tensor_affine", "torch.per_tensor_symmetric", "torch.per_channel_affine")),
    **dict.fromkeys(("torch.per_channel_symmetric", "torch.per_channel_affine_float_qparams")),
    **dict.fromkeys(("torch.contiguous_format", "torch.channels_last", "torch.channels_last_3d")),
    "torch.preserve_format": None,
    "torch._tensor._rebuild_from_type": _rebuild_from_type,
    "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
    "torch.tensor._rebuild_from_type": _rebuild_from_type,
    "torch.tensor._rebuild_from_type_v2": _rebuild_from_type,
    "torch.Size": _size,
    "torch.device": _text,
    "torch.serialization._get_layout": _text,
    "torch.torch_version.TorchVersion": _text,
}
"""Every global of torch's that a file may name: what makes a value of it, or None where it is a mere name."""
