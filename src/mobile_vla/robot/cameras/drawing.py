"""The test pattern's pictures: coloured stripes that move, noise, and the picture's number at top and bottom."""

import numpy as np
from numpy.typing import NDArray

NUMBER_BITS = 24
SMALLEST = (48, 32)
"""Width and height below which the number cannot be drawn."""

_NOISE_LEVELS = 8
_DARKEST, _BRIGHTEST = 24, 216
_WHITE, _NOT_WHITE = 240, 8
_PIXELS_A_PICTURE = 4


class Drawing:
    """Draws picture after picture of one size; the same ``seed`` and number give the same pixels."""

    def __init__(self, width: int, height: int, seed: int) -> None:
        self.width, self.height, self._seed = width, height, seed
        rng = np.random.default_rng(seed)
        self._noise = rng.integers(0, _NOISE_LEVELS, size=(2 * height, 2 * width, 3), dtype=np.uint8)
        x, y = np.meshgrid(np.arange(2 * width), np.arange(height))
        waves = [np.sin(2 * np.pi * (k * x / width + y / height + k / 3)) for k in (1, 2, 3)]
        scene = _DARKEST + (_BRIGHTEST - _DARKEST) * (np.stack(waves, axis=2) + 1) / 2
        self._scene = scene.astype(np.uint8)
        self._strip = strip_height(height)

    def picture(self, number: int) -> NDArray[np.uint8]:
        """RGB uint8 (height, width, 3), new in memory."""
        shift = number * _PIXELS_A_PICTURE % self.width
        pixels: NDArray[np.uint8] = self._scene[:, shift : shift + self.width] + self._noise_of(number)
        strip = self._number_strip(number)
        pixels[: self._strip] = strip
        pixels[-self._strip :] = strip
        return pixels

    def black(self, number: int) -> NDArray[np.uint8]:
        """The noise of a sensor without light."""
        return np.array(self._noise_of(number))

    def torn(self, upper: int, lower: int) -> NDArray[np.uint8]:
        """The upper part of one picture over the lower part of another; where the tear is depends on ``upper``."""
        pixels = self.picture(upper)
        inner = self.height - 4 * self._strip
        row = 2 * self._strip + _draw(self._seed, upper, 2) % max(1, inner)
        pixels[row:] = self.picture(lower)[row:]
        return pixels

    def _noise_of(self, number: int) -> NDArray[np.uint8]:
        top, left = _draw(self._seed, number, 0) % self.height, _draw(self._seed, number, 1) % self.width
        return self._noise[top : top + self.height, left : left + self.width]

    def _number_strip(self, number: int) -> NDArray[np.uint8]:
        """Shape (1, width, 1): one block a bit, the highest first."""
        bits = [(number >> shift) & 1 for shift in reversed(range(NUMBER_BITS))]
        levels = np.where(bits, _WHITE, _NOT_WHITE).astype(np.uint8)
        columns = np.arange(self.width) * NUMBER_BITS // self.width
        return levels[columns][None, :, None]


def strip_height(height: int) -> int:
    """Rows that each of the two drawings of the number takes."""
    return max(4, height // 12)


def read_numbers(pixels: NDArray[np.uint8]) -> tuple[int, int]:
    """The numbers at the top and the bottom of a picture, modulo 2**24; different where it is torn.

    They survive JPEG and moderate scaling: each bit is the mean over the middle of its block.
    """
    height, width = pixels.shape[:2]
    strip = strip_height(height)
    return _read(pixels[:strip], width), _read(pixels[height - strip :], width)


def was_lost(seed: int, number: int, share: float) -> bool:
    """Whether this picture is among the ``share`` that chance takes; the same every time."""
    return _draw(seed, number, 3) < share * 2**32


def _read(strip: NDArray[np.uint8], width: int) -> int:
    rows = strip[len(strip) // 4 : len(strip) - len(strip) // 4].mean(axis=(0, 2))
    number = 0
    for bit in range(NUMBER_BITS):
        left, right = -(-bit * width // NUMBER_BITS), -(-(bit + 1) * width // NUMBER_BITS)
        margin = (right - left) // 4
        number = number << 1 | int(rows[left + margin : right - margin].mean() > (_WHITE + _NOT_WHITE) / 2)
    return number


def _draw(seed: int, number: int, purpose: int) -> int:
    """32 bits that depend on all three as if by chance (the finaliser of MurmurHash3 by Austin Appleby)."""
    value = (seed * 0x9E3779B1 + number * 0x85EBCA77 + purpose * 0xC2B2AE3D + 1) & 0xFFFFFFFF
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        value = (value ^ value >> shift) * factor & 0xFFFFFFFF
    return value ^ value >> 16
