"""The one way from a camera frame to a network's input. Nowhere else is a frame cropped, resized or normalised."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

HEIGHT, WIDTH = 96, 192
"""Rows and columns of the compact policy's picture."""
ASPECT = 2
"""Of the crop, width by height, whatever the network's picture: a square crop of a wide camera would lose the sides."""
_MEAN, _STD = 0.45, 0.25


def fit(pixels: NDArray[np.uint8], size: tuple[int, int] = (HEIGHT, WIDTH)) -> NDArray[np.uint8]:
    """RGB uint8 (H, W, 3) of any size to ``size`` (rows, columns): the largest centred 2:1 crop, then area resampling.

    A square size squeezes the crop: a pretrained network then sees the whole field of view, a little narrow.
    """
    height, width = pixels.shape[:2]
    crop_height, crop_width = min(height, width // ASPECT), min(width, height * ASPECT)
    if (crop_height, crop_width) == (height, width) == size:
        return pixels
    top, left = (height - crop_height) // 2, (width - crop_width) // 2
    crop = np.ascontiguousarray(pixels[top : top + crop_height, left : left + crop_width])
    if not crop.flags.writeable:  # torch has no tensors that cannot be written, and warns
        crop = crop.copy()
    planes = torch.from_numpy(crop).permute(2, 0, 1)[None].float()
    small = F.interpolate(planes, size=size, mode="bilinear", antialias=True, align_corners=False)
    return np.asarray(small[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy(), dtype=np.uint8)


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
