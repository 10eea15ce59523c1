"""From a depth image to a reading of the room round the robot."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mobile_vla.core import ConfigError
from mobile_vla.safety.clearance import Clearance


@dataclass(frozen=True, slots=True)
class DepthCamera:
    """A depth camera that looks along x of ``base_link``: a pinhole whose axis meets the middle of its image.

    ``horizontal_fov_rad``: from the left edge of the image to the right. ``height_m`` above the floor, ``forward_m``
    before the origin of ``base_link``; ``pitch_rad``, positive downwards. What stands between ``lowest_m`` and
    ``highest_m`` above the floor is in the way; give as ``lowest_m`` more than the floor seems to rise by noise and
    tilt.
    """

    horizontal_fov_rad: float
    height_m: float
    forward_m: float = 0.0
    pitch_rad: float = 0.0
    lowest_m: float = 0.05
    highest_m: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.horizontal_fov_rad < math.pi:
            raise ConfigError(f"horizontal_fov_rad is {self.horizontal_fov_rad}; it needs to lie between 0 and pi")
        if not 0 < self.height_m < math.inf:
            raise ConfigError(f"height_m is {self.height_m}; it needs to be positive and finite")
        if not -math.pi / 2 < self.pitch_rad < math.pi / 2:
            raise ConfigError(f"pitch_rad is {self.pitch_rad}; it needs to lie between -pi/2 and pi/2")
        if not math.isfinite(self.forward_m):
            raise ConfigError(f"forward_m is {self.forward_m}; it needs to be finite")
        if not 0 < self.lowest_m < self.highest_m < math.inf:
            raise ConfigError(
                f"lowest_m is {self.lowest_m} and highest_m {self.highest_m}; "
                "they need to be positive, finite, and the second the greater"
            )

    def clearance(self, depth_m: NDArray[np.floating], stamp_ns: int) -> Clearance:
        """The nearest return of every column whose height is in the way, one beam a column, seen from ``base_link``.

        ``depth_m``: shape (H, W), metres along the optical axis; what is not finite or not positive is no return.
        ValueError for another shape.
        """
        if depth_m.ndim != 2:
            raise ValueError(f"a depth image needs shape (H, W), got {depth_m.shape}")
        rows, columns = depth_m.shape
        focal = columns / 2 / math.tan(self.horizontal_fov_rad / 2)
        rightwards = (np.arange(columns) - (columns - 1) / 2) / focal
        downwards = ((np.arange(rows) - (rows - 1) / 2) / focal)[:, np.newaxis]
        depth = np.asarray(depth_m, dtype=np.float64)
        depth = np.where(np.isfinite(depth) & (depth > 0), depth, np.nan)
        sine, cosine = math.sin(self.pitch_rad), math.cos(self.pitch_rad)
        x = self.forward_m + depth * (cosine - downwards * sine)
        y = -depth * rightwards
        height = self.height_m - depth * (sine + downwards * cosine)
        in_the_way = (height >= self.lowest_m) & (height <= self.highest_m)
        ranges = np.where(in_the_way, np.hypot(x, y), np.inf)
        nearest = ranges.argmin(axis=0), np.arange(columns)
        angles = np.where(np.isfinite(ranges[nearest]), np.arctan2(y, x)[nearest], 0.0)
        return Clearance(angles, ranges[nearest], stamp_ns)
