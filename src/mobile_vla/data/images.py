"""JPEG in and out. The one place that knows how a camera image is coded; it neither resizes nor reorders."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import simplejpeg
from numpy.typing import NDArray

JPEG_QUALITY = 92
JPEG_SUBSAMPLING = "444"  # colour names the target, and a far cup is three pixels wide: keep colour at full resolution

IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""What the ``datasets`` library calls an Image."""


def encode(pixels: NDArray[np.uint8]) -> bytes:
    """RGB uint8 (H, W, 3) to a JPEG file."""
    jpeg: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(pixels), quality=JPEG_QUALITY, colorspace="RGB", colorsubsampling=JPEG_SUBSAMPLING
    )
    return jpeg


def decode(jpegs: Sequence[bytes | memoryview], shape: tuple[int, int, int], first_frame: int = 0) -> NDArray[np.uint8]:
    """JPEG files to RGB uint8 (T, H, W, 3); ValueError for a bad one, named by its place from ``first_frame``."""
    pixels = np.empty((len(jpegs), *shape), dtype=np.uint8)
    for place, jpeg in enumerate(jpegs):
        try:
            height, width, _, _ = simplejpeg.decode_jpeg_header(jpeg)
            if (height, width) != shape[:2]:
                raise ValueError(f"it is {height}x{width}, not {shape[0]}x{shape[1]}")
            simplejpeg.decode_jpeg(jpeg, colorspace="RGB", buffer=pixels[place])
        except ValueError as error:
            raise ValueError(f"the image of frame {first_frame + place} is damaged ({error})") from error
    return pixels


def to_column(jpegs: Sequence[bytes]) -> pa.StructArray:
    """JPEG files as a parquet column."""
    paths = pa.nulls(len(jpegs), pa.string())
    return pa.StructArray.from_arrays([pa.array(jpegs, pa.binary()), paths], fields=list(IMAGE_TYPE))


def from_column(column: pa.ChunkedArray) -> list[memoryview]:
    """JPEG files of a parquet column, without copying them."""
    jpegs: list[memoryview] = []
    for chunk in column.chunks:
        files = chunk.field("bytes")
        if files.null_count:
            raise ValueError("an image is missing")
        _, offsets, data = files.buffers()
        if data is None:
            continue
        bounds = np.frombuffer(offsets, dtype=np.int32)[files.offset : files.offset + len(files) + 1].tolist()
        view = memoryview(data).cast("B")
        jpegs += [view[start:end] for start, end in pairwise(bounds)]
    return jpegs
