"""The room from above, without the robot: the background on which a drive is drawn."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mobile_vla.sim.scene import Pose
from mobile_vla.sim.world import TOP_MARGIN_M, World

_AWAY = Pose(100.0, 100.0, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Overhead:
    """``pixels``: RGB uint8 (H, W, 3), world x to the right and y up, the room's middle in the picture's."""

    pixels: NDArray[np.uint8]
    pixels_per_m: float

    def place(self, x: float, y: float) -> tuple[float, float]:
        """A world point as (column, row) of the picture."""
        height, width = self.pixels.shape[:2]
        return width / 2 + x * self.pixels_per_m, height / 2 - y * self.pixels_per_m

    def resized(self, height: int) -> "Overhead":
        """The same picture at another height; the width stays even, as films need it."""
        size = (2 * round(height * self.pixels.shape[1] / self.pixels.shape[0] / 2), height)
        pixels = np.asarray(Image.fromarray(self.pixels).resize(size, Image.Resampling.LANCZOS))
        return Overhead(pixels, self.pixels_per_m * height / self.pixels.shape[0])

    @property
    def extent_m(self) -> tuple[float, float, float, float]:
        """Left, right, bottom and top edge in world coordinates."""
        height, width = self.pixels.shape[:2]
        half_x, half_y = width / 2 / self.pixels_per_m, height / 2 / self.pixels_per_m
        return -half_x, half_x, -half_y, half_y


def overhead(world: World, height: int = 768) -> Overhead:
    """Draw the world's scene ``height`` pixels tall, as wide as the room asks for; the world goes on as it was."""
    tall, wide = world.scene.half_y + TOP_MARGIN_M, world.scene.half_x + TOP_MARGIN_M
    width = 2 * round(height * wide / tall / 2)
    state = world.save_state()
    world.set_pose(_AWAY)
    pixels = world.render_top(height, width)
    world.restore_state(state)
    return Overhead(pixels, height / (2 * max(tall, wide * height / width)))
