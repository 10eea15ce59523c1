"""Procedural textures of floor, walls and cardboard: numpy alone, the same bytes on every machine.

They are near-white, so that the tint (``floor_rgb``, ``wall_rgb``, the obstacle's ``rgb``) decides the colour.
"""

import io
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TEXTURE_PX = 128

FloatImage = NDArray[np.float64]  # (TEXTURE_PX, TEXTURE_PX), brightness 0..1
ByteImage = NDArray[np.uint8]


def _grid() -> tuple[FloatImage, FloatImage]:
    """Row and column of each pixel as shares of the image."""
    share = np.arange(TEXTURE_PX) / TEXTURE_PX
    rows, columns = np.meshgrid(share, share, indexing="ij")
    return rows, columns


def _noise(seed: int, cells: int) -> FloatImage:
    """Smooth noise in 0..1 that repeats without a seam; ``cells`` random values along each side."""
    values = np.random.default_rng(seed).random((cells, cells))
    at = np.arange(TEXTURE_PX) * cells / TEXTURE_PX
    low = at.astype(int)
    high = (low + 1) % cells
    share = at - low
    rows = values[low] * (1 - share)[:, None] + values[high] * share[:, None]
    return np.asarray(rows[:, low] * (1 - share) + rows[:, high] * share)


def _plain() -> FloatImage:
    return np.full((TEXTURE_PX, TEXTURE_PX), 0.95)


def _checker() -> FloatImage:
    rows, columns = _grid()
    return np.where((np.floor(rows * 4) + np.floor(columns * 4)) % 2 == 0, 1.0, 0.78)


def _gradient() -> FloatImage:
    rows, _ = _grid()
    return 0.86 + 0.14 * np.cos(2 * np.pi * rows)


def _planks() -> FloatImage:
    rows, columns = _grid()
    plank = np.floor(rows * 6).astype(int)
    tone = np.array([0.94, 0.84, 0.99, 0.88, 0.80, 0.92])[plank]
    joint = (rows * 6) % 1.0 < 0.06
    end = np.abs((columns + plank * 0.37) % 1.0) < 0.012
    return np.where(joint | end, 0.6, tone * (0.93 + 0.07 * _noise(11, 64)))


def _carpet() -> FloatImage:
    return 0.72 + 0.28 * np.random.default_rng(12).random((TEXTURE_PX, TEXTURE_PX))


def _concrete() -> FloatImage:
    return 0.76 + 0.14 * _noise(13, 6) + 0.10 * _noise(14, 24)


def _tiles() -> FloatImage:
    rows, columns = _grid()
    joint = ((rows * 3) % 1.0 < 0.05) | ((columns * 3) % 1.0 < 0.05)
    return np.where(joint, 0.66, 0.9 + 0.1 * _noise(15, 3))


def _stripes() -> FloatImage:
    _, columns = _grid()
    return np.where(np.floor(columns * 8) % 2 == 0, 1.0, 0.84)


def _bricks() -> FloatImage:
    rows, columns = _grid()
    course = np.floor(rows * 8)
    along = (columns * 4 + 0.5 * (course % 2)) % 1.0
    joint = ((rows * 8) % 1.0 < 0.12) | (along < 0.06)
    return np.where(joint, 1.0, 0.78 + 0.1 * _noise(16, 16))


def _plaster() -> FloatImage:
    return 0.86 + 0.14 * _noise(17, 32)


def _cardboard() -> FloatImage:
    rows, columns = _grid()
    tape = np.abs(columns - 0.5) < 0.06
    flutes = 0.88 + 0.05 * np.cos(2 * np.pi * 20 * rows) + 0.05 * _noise(18, 16)
    return np.where(tape, 1.0, flutes)


_FLOORS: tuple[Callable[[], FloatImage], ...] = (_plain, _checker, _gradient, _planks, _carpet, _concrete, _tiles)
_WALLS: tuple[Callable[[], FloatImage], ...] = (_plain, _checker, _gradient, _stripes, _bricks, _plaster)

N_FLOOR_TEXTURES = len(_FLOORS)
N_WALL_TEXTURES = len(_WALLS)

FLOOR_TILE_M = 1.2
"""Side of the square of floor that one texture covers."""
WALL_TILE_M = 1.0
"""Side of the square of wall that one texture covers."""


@cache
def texture_images() -> dict[str, ByteImage]:
    """RGB images by name: ``floor0``.., ``wall0``.., ``cardboard``; uint8 (TEXTURE_PX, TEXTURE_PX, 3), read-only."""
    painters = {f"floor{i}": paint for i, paint in enumerate(_FLOORS)}
    painters |= {f"wall{i}": paint for i, paint in enumerate(_WALLS)}
    painters["cardboard"] = _cardboard
    images = {}
    for name, paint in painters.items():
        grey = np.rint(np.clip(paint(), 0.0, 1.0) * 255).astype(np.uint8)
        image = np.repeat(grey[:, :, None], 3, axis=2)
        image.setflags(write=False)
        images[name] = image
    return images


@cache
def texture_files() -> dict[str, bytes]:
    """The same images as PNG files, by the names that the MJCF refers to."""
    files = {}
    for name, image in texture_images().items():
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, format="PNG")
        files[f"{name}.png"] = buffer.getvalue()
    return files
