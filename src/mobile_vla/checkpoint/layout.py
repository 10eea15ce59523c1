"""The nouns of a checkpoint file: which bytes are which tensor, what proves them, and what is wrong.

Every format is read into a ``Layout``; verifying, salvaging, converting and finding work on layouts alone.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mobile_vla.core.backports import StrEnum

Scalar = str | int | float | bool | None

DTYPE_BYTES: Mapping[str, int] = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "F8_E8M0": 1,
    "U16": 2,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "U32": 4,
    "I32": 4,
    "F32": 4,
    "U64": 8,
    "I64": 8,
    "F64": 8,
    "C64": 8,
}
"""Bytes of one element, under the names that safetensors uses."""


class Format(StrEnum):
    """How a file's bytes are ordered."""

    OURS = "mobile-vla checkpoint"
    SAFETENSORS = "safetensors"
    SAFETENSORS_SHARDS = "safetensors in shards"
    TORCH_ZIP = "torch zip"
    TORCH_LEGACY = "torch before 1.6"
    TORCH_SHARDS = "torch files in shards"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Checksum:
    """What the bytes of a run must hash to: ``value`` in lower-case hexadecimal (a CRC-32 has eight digits)."""

    algorithm: Literal["crc32", "sha256"]
    value: str


@dataclass(frozen=True, slots=True)
class Run:
    """``size`` consecutive bytes of ``file`` from ``offset``; ``checksum`` is None where the format stores none.

    ``label`` is what the file calls them: "archive/data/3", "header", "weights.safetensors".
    """

    label: str
    file: Path
    offset: int
    size: int
    checksum: Checksum | None = None


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named tensor and where its bytes are: ``start`` bytes into ``run``; ``run`` is None where they are missing.

    ``strides`` count elements; None means contiguous, the last axis fastest. ``path`` is the way from the top of the
    file's nested containers, ``name`` the same with dots. ``note`` says what a reader should know: why it is missing,
    or that a template named it. ``doubtful``: the note gives a reason to doubt bytes that no checksum proves.
    """

    path: tuple[str, ...]
    dtype: str
    shape: tuple[int, ...]
    run: Run | None
    start: int = 0
    strides: tuple[int, ...] | None = None
    note: str = ""
    doubtful: bool = False

    @property
    def name(self) -> str:
        """The path with dots."""
        return ".".join(self.path)

    @property
    def size(self) -> int:
        """Bytes of its elements."""
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with the structure of a file, in one sentence, and which tensors it costs, where that is known.

    ``harmless`` damage lies where no tensor's bytes, name, shape or dtype depend on it (padding, say): the file is
    still called damaged.
    """

    what: str
    tensors: tuple[str, ...] = ()
    harmless: bool = False


@dataclass(frozen=True)
class Layout:
    """What a file or folder holds. ``runs`` are all bytes that can be checked, tensors' and others (headers, pickles).

    ``unknowable`` says in sentences what this format cannot prove. ``metadata`` holds scalars stored beside the
    tensors, dotted names to values ("epoch", "global_step").
    """

    path: Path
    format: Format
    tensors: tuple[Tensor, ...]
    runs: tuple[Run, ...] = ()
    problems: tuple[Problem, ...] = ()
    unknowable: tuple[str, ...] = ()
    metadata: Mapping[str, Scalar] = field(default_factory=dict)
