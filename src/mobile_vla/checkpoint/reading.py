"""The bytes of a tensor as its layout says, in pieces, whatever its strides."""

import math
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from numpy.lib.stride_tricks import as_strided

from mobile_vla.checkpoint.atomic import PIECE
from mobile_vla.checkpoint.formats.safetensors_file import Outgoing
from mobile_vla.checkpoint.layout import DTYPE_BYTES, Run, Tensor
from mobile_vla.core import DamagedCheckpointError


def outgoing(tensor: Tensor, name: str | None = None) -> Outgoing:
    """The tensor, ready to be written to a safetensors file, by default under its own name."""
    run = tensor.run
    if run is None:
        raise ValueError(f"{tensor.name} has no bytes")
    pieces: Callable[[], Iterator[bytes | memoryview]]
    if tensor.strides is None or _is_contiguous(tensor.shape, tensor.strides):
        if tensor.start + tensor.size > run.size:
            raise DamagedCheckpointError(run.file, f"{tensor.name} reaches beyond the end of {run.label}")
        pieces = lambda: _contiguous(run, tensor.start, tensor.size)  # noqa: E731
    else:
        pieces = lambda: _strided(run, tensor)  # noqa: E731
    return Outgoing(tensor.name if name is None else name, tensor.dtype, tensor.shape, pieces)


def _contiguous(run: Run, start: int, size: int) -> Iterator[memoryview]:
    """Views of one buffer, each good until the next is asked for.

    DamagedCheckpointError when the file is not what it was when it was verified.
    """
    crc, left = 0, size
    buffer = memoryview(bytearray(min(PIECE, size)))
    with run.file.open("rb", buffering=0) as file:
        file.seek(run.offset + start)
        while left:
            got = file.readinto(buffer[: min(PIECE, left)])
            if not got:
                raise DamagedCheckpointError(run.file, f"it became shorter while {run.label} was read")
            crc = zlib.crc32(buffer[:got], crc)
            left -= got
            yield buffer[:got]
    whole = start == 0 and size == run.size and run.checksum is not None and run.checksum.algorithm == "crc32"
    if whole and run.checksum is not None and f"{crc:08x}" != run.checksum.value:
        raise DamagedCheckpointError(run.file, f"it changed while {run.label} was read")


def _strided(run: Run, tensor: Tensor) -> Iterator[bytes]:
    """A view of a storage (transposed, sliced, expanded), gathered in blocks of its first axis."""
    assert tensor.strides is not None
    if 0 in tensor.shape:
        return
    width = DTYPE_BYTES[tensor.dtype]
    extent = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True)) + 1
    if min(tensor.strides) < 0 or tensor.start + extent * width > run.size:
        raise DamagedCheckpointError(run.file, f"{tensor.name} reaches beyond the end of {run.label}")
    storage = np.memmap(run.file, np.uint8, "r", run.offset + tensor.start, (extent * width,))
    values = storage.view(f"V{width}")
    view = as_strided(values, tensor.shape, [stride * width for stride in tensor.strides], writeable=False)
    rows = max(1, PIECE // max(1, math.prod(tensor.shape[1:]) * width))
    for first in range(0, tensor.shape[0], rows):
        yield np.ascontiguousarray(view[first : first + rows]).tobytes()


def _is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != expected:
            return 0 in shape
        expected *= size
    return True
