"""The one way from a camera frame to a network's input. Nowhere else is a frame cropped, resized or normalised."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.dlpack import from_dlpack

HEIGHT, WIDTH = 96, 192
"""Rows and columns of the compact policy's picture."""
ASPECT = 2
"""Of the crop, width by height, whatever the network's picture: a square crop of a wide camera would lose the sides."""
_MEAN, _STD = 0.45, 0.25


def fit(pixels: NDArray[np.uint8], size: tuple[int, int] = (HEIGHT, WIDTH)) -> NDArray[np.uint8]:
    """RGB uint8 (H, W, 3) of any size to ``size`` (rows, columns): the largest centred 2:1 crop, then area resampling.

    A frame that is of this size and shape already is given back itself. A square size squeezes the crop: a pretrained
    network then sees the whole field of view, a little narrow. One pass over the bytes: no float picture is made, and
    a frame that loses rows alone (4:3 and 16:9 cameras) is read where it lies. Each value is within one grey level of
    the exact one.
    """
    height, width = pixels.shape[:2]
    top, left, rows, columns = _crop(height, width)
    if (rows, columns) == (height, width) == size:
        return pixels
    crop = np.ascontiguousarray(pixels[top : top + rows, left : left + columns])
    small = _area(_read_only(crop)[None], size)
    return np.asarray(small[0].numpy(), dtype=np.uint8)


def fit_on(pixels: Tensor, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Tensor:
    """``fit`` on the device where the frames are: uint8 (N, H, W, 3) to uint8 (N, rows, columns, 3), one grey level
    apart from it at most. In float32, because CUDA resamples no bytes. Not for the CPU, where ``fit`` is much faster.
    """
    height, width = pixels.shape[1:3]
    top, left, rows, columns = _crop(height, width)
    if (rows, columns) == (height, width) == size:
        return pixels
    small = _area(pixels[:, top : top + rows, left : left + columns].float(), size)
    return small.round().clamp(0, 255).to(torch.uint8)


def to_tensor(pixels: Tensor) -> Tensor:
    """uint8 (N, HEIGHT, WIDTH, 3) to float (N, 3, HEIGHT, WIDTH), channels last, about zero mean and unit variance."""
    return pixels.permute(0, 3, 1, 2).float().mul_(1.0 / (255.0 * _STD)).sub_(_MEAN / _STD)


def normalise(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 (N, H, W, 3) to float (N, 3, H, W) by the means and deviations (RGB, of values in 0..1) of a network."""
    # plain numbers, no tensors of them: on a GPU each would be a copy that the control loop waits for
    planes = [
        pixels[..., place].float() * (1.0 / (255.0 * each)) - middle / each
        for place, (middle, each) in enumerate(zip(mean, std, strict=True))
    ]
    return torch.stack(planes, dim=1)


def _crop(height: int, width: int) -> tuple[int, int, int, int]:
    """Top, left, rows and columns of the largest centred crop."""
    rows, columns = min(height, width // ASPECT), min(width, height * ASPECT)
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def _area(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, H, W, 3) to (N, *size, 3) of the same dtype, weighing what each new pixel covers by a triangle.

    The three values of a pixel stay side by side (channels last): on a CPU, torch then reads bytes with vector
    instructions. Two calls, rows first, are faster on warm pages and slower on a frame that a decoder has just written.
    """
    planes = pixels.permute(0, 3, 1, 2)
    small = F.interpolate(planes, size=size, mode="bilinear", antialias=True, align_corners=False)
    return small.permute(0, 2, 3, 1)


def _read_only(pixels: NDArray[np.uint8]) -> Tensor:
    """Over the same memory, which may forbid writing: ``torch.from_numpy`` warns of that. Never to be written to."""
    try:
        return from_dlpack(pixels)
    except BufferError:  # older ones hand over only what may be written
        return torch.from_numpy(pixels.copy())
