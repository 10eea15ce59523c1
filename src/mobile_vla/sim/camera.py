"""The front camera as a pinhole: where points of the world fall in its image. Numpy alone.

The camera sits ``CAMERA_FORWARD_M`` ahead of the base centre and looks forward. ``camera_pitch_rad`` is the elevation
of its axis: negative looks down. Image: u to the right and v down in pixels, (0, 0) the outer corner of the first one.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mobile_vla.sim.scene import Appearance, Pose

CAMERA_FORWARD_M = 0.10

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SeenObject:
    """The truth about one object of the scene in one image.

    ``visible_fraction``: share of its outline inside the image and not hidden. ``box``: (left, top, right, bottom) of
    its bounding cylinder, clipped, as shares of the image; all zero when it lies behind the camera or outside the
    image. ``centre_uv``: mean of the visible points in pixels, None when there is none. ``bearing_rad``: in
    ``base_link``, left positive, from the base centre to the centre of the object. ``distance_m``: from the base centre
    to the nearest point of its footprint.
    """

    index: int
    visible_fraction: float
    box: tuple[float, float, float, float]
    centre_uv: tuple[float, float] | None
    bearing_rad: float
    distance_m: float


class FrontCamera:
    """A pinhole camera of ``height`` x ``width`` pixels mounted as ``appearance`` says."""

    def __init__(self, appearance: Appearance, height: int, width: int) -> None:
        self.height, self.width = height, width
        self.z_m = appearance.camera_height_m
        self.cos_pitch, self.sin_pitch = math.cos(appearance.camera_pitch_rad), math.sin(appearance.camera_pitch_rad)
        self.tan_half_fov = math.tan(appearance.camera_fov_rad / 2)
        self.focal_px = width / 2 / self.tan_half_fov

    @property
    def vertical_fov_rad(self) -> float:
        """Vertical field of view, for square pixels."""
        return 2 * math.atan(self.height / 2 / self.focal_px)

    @property
    def axes(self) -> Floats:
        """Shape (3, 3) in base_link: rows are the image's right, its up, and the optical axis."""
        c, s = self.cos_pitch, self.sin_pitch
        return np.array([[0.0, -1.0, 0.0], [-s, 0.0, c], [c, 0.0, s]])

    def position(self, pose: Pose) -> tuple[float, float, float]:
        """Where the camera is in the world when the base is at ``pose``."""
        ahead = CAMERA_FORWARD_M
        return (pose.x + ahead * math.cos(pose.yaw), pose.y + ahead * math.sin(pose.yaw), self.z_m)

    def project(self, points_world: Floats, pose: Pose) -> tuple[Floats, Floats, Floats]:
        """(u, v, depth) of points (N, 3); u and v mean something only where depth > 0 (metres along the axis)."""
        x, y, z = self.position(pose)
        cos_yaw, sin_yaw = math.cos(pose.yaw), math.sin(pose.yaw)
        dx, dy, dz = points_world[:, 0] - x, points_world[:, 1] - y, points_world[:, 2] - z
        ahead = dx * cos_yaw + dy * sin_yaw
        right = dx * sin_yaw - dy * cos_yaw
        depth = ahead * self.cos_pitch + dz * self.sin_pitch
        up = dz * self.cos_pitch - ahead * self.sin_pitch
        scale = self.focal_px / np.where(np.abs(depth) < 1e-9, 1e-9, depth)
        return self.width / 2 + right * scale, self.height / 2 - up * scale, depth

    def bearing(self, u: Floats | float) -> Floats:
        """Horizontal direction, base_link, left positive, of pixel columns ``u`` in the image's middle row."""
        right = (np.asarray(u, dtype=np.float64) - self.width / 2) / self.focal_px
        return np.asarray(np.arctan2(-right, self.cos_pitch))

    def rays(self) -> Floats:
        """Unit directions in base_link through the pixel centres, shape (height, width, 3)."""
        right = (np.arange(self.width) + 0.5 - self.width / 2) / self.focal_px
        up = (self.height / 2 - np.arange(self.height) - 0.5) / self.focal_px
        local = np.stack([*np.meshgrid(right, up), np.ones((self.height, self.width))], axis=-1)
        directions = local @ self.axes
        return np.asarray(directions / np.linalg.norm(directions, axis=-1, keepdims=True))
