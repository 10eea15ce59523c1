"""The one way from a camera frame to the network's input. Nowhere else is a frame cropped, resized or normalised."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

HEIGHT, WIDTH = 96, 192
_MEAN, _STD = 0.45, 0.25


def fit(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB uint8 (H, W, 3) of any size to (HEIGHT, WIDTH, 3): the largest centred 2:1 crop, then area resampling."""
    height, width = pixels.shape[:2]
    if (height, width) == (HEIGHT, WIDTH):
        return pixels
    crop_height = min(height, width * HEIGHT // WIDTH)
    crop_width = min(width, height * WIDTH // HEIGHT)
    top, left = (height - crop_height) // 2, (width - crop_width) // 2
    crop = torch.from_numpy(np.ascontiguousarray(pixels[top : top + crop_height, left : left + crop_width]))
    planes = crop.permute(2, 0, 1)[None].float()
    small = F.interpolate(planes, size=(HEIGHT, WIDTH), mode="bilinear", antialias=True, align_corners=False)
    return np.asarray(small[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy(), dtype=np.uint8)


def to_tensor(pixels: Tensor) -> Tensor:
    """uint8 (N, HEIGHT, WIDTH, 3) to float (N, 3, HEIGHT, WIDTH), channels last, about zero mean and unit variance."""
    return pixels.permute(0, 3, 1, 2).float().mul_(1.0 / (255.0 * _STD)).sub_(_MEAN / _STD)
