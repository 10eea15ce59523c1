"""What can be seen from the robot, as truth: visibility of every object, and free ranges along the floor."""

import math

import numpy as np
from numpy.typing import NDArray

from mobile_vla.sim.camera import FrontCamera, SeenObject
from mobile_vla.sim.gl import mujoco
from mobile_vla.sim.mjcf import FELT_GROUP, PART_GROUP, ROOM_GROUP, Stage
from mobile_vla.sim.scene import Pose, Scene
from mobile_vla.sim.shapes import SILHOUETTE

RANGE_CAP_M = 4.0
RANGE_HEIGHT_M = 0.07
POINTS_PER_OBJECT = 12
RIM_POINTS = 8
NEAR_M = 0.03
"""Depth in front of the camera at which a bounding cylinder is clipped."""

Floats = NDArray[np.float64]


def _groups(*members: int) -> NDArray[np.uint8]:
    mask = np.zeros(6, np.uint8)
    mask[list(members)] = 1
    return mask


def _outline(shape: tuple[tuple[float, float], ...]) -> Floats:
    """Shape (12, 2): points within an outline as (lateral share of the radius, share of the height)."""
    widths, heights = np.array(sorted(shape, key=lambda pair: pair[1])).T
    rows = np.linspace(heights[0], heights[-1], POINTS_PER_OBJECT // 3)
    half = np.interp(rows, heights, widths)
    return np.stack([np.outer(half, (-0.95, 0.0, 0.95)).ravel(), np.repeat(rows, 3)], axis=1)


_OUTLINES = {kind: _outline(shape) for kind, shape in SILHOUETTE.items()}


class Sight:
    """Casts rays into one stage. ``load`` once for each scene."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._seen_groups = _groups(ROOM_GROUP, PART_GROUP)
        self._felt_groups = _groups(ROOM_GROUP, FELT_GROUP)
        self._body_of_geom = np.append(stage.model.geom_bodyid, -1)  # index -1: the ray hit nothing

    def load(self, scene: Scene) -> None:
        """Prepare what is constant in a scene."""
        items = scene.objects
        count = len(items)
        self._xy = np.array([(item.pose.x, item.pose.y) for item in items]).reshape(count, 2)
        self._radius = np.array([item.radius_m for item in items])
        tall = np.array([item.height_m for item in items])
        outlines = np.array([_OUTLINES[item.kind] for item in items]).reshape(count, POINTS_PER_OBJECT, 2)
        self._lateral = outlines[:, :, 0] * self._radius[:, None]
        self._point_z = outlines[:, :, 1] * tall[:, None]
        angles = np.arange(RIM_POINTS) * (2 * math.pi / RIM_POINTS)
        rim = self._xy[:, None, :] + self._radius[:, None, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        rims = np.empty((count, 2, RIM_POINTS, 3))
        rims[..., :2] = rim[:, None]
        rims[:, 0, :, 2] = 0.0
        rims[:, 1, :, 2] = tall[:, None]
        self._rims = rims.reshape(-1, 3)
        self._bodies = np.repeat(self._stage.object_bodies[:count], POINTS_PER_OBJECT)
        rays = count * POINTS_PER_OBJECT
        self._points = np.empty((count, POINTS_PER_OBJECT, 3))
        self._points[:, :, 2] = self._point_z
        self._hit, self._dist = np.empty(rays, np.int32), np.empty(rays)

    def visibility(self, pose: Pose, camera: FrontCamera) -> list[SeenObject]:
        """See ``World.visibility``."""
        count = len(self._radius)
        if count == 0:
            return []
        u, v, shown = self._look(pose, camera)
        hits = np.add.reduce(shown, axis=1)
        divisor = np.maximum(hits, 1)
        centre_u = (np.add.reduce(u * shown, axis=1) / divisor).tolist()
        centre_v = (np.add.reduce(v * shown, axis=1) / divisor).tolist()
        fractions = (hits / POINTS_PER_OBJECT).tolist()
        dx, dy = self._xy[:, 0] - pose.x, self._xy[:, 1] - pose.y
        bearings = ((np.arctan2(dy, dx) - pose.yaw + math.pi) % math.tau - math.pi).tolist()
        distances = np.maximum(np.hypot(dx, dy) - self._radius, 0.0).tolist()
        boxes = self._boxes(pose, camera)
        return [
            SeenObject(
                i,
                fractions[i],
                boxes[i],
                (centre_u[i], centre_v[i]) if fractions[i] > 0 else None,
                bearings[i],
                distances[i],
            )
            for i in range(count)
        ]

    def _look(self, pose: Pose, camera: FrontCamera) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """Image positions of the sample points (count, 12) and which of them are shown."""
        eye = np.array(camera.position(pose))
        across = self._xy - eye[:2]
        length = np.maximum(np.sqrt(np.add.reduce(across * across, axis=1)), 1e-6)
        unit = across / length[:, None]
        points = self._points
        points[:, :, 0] = self._xy[:, :1] + self._lateral * unit[:, 1:]
        points[:, :, 1] = self._xy[:, 1:] - self._lateral * unit[:, :1]
        flat = points.reshape(-1, 3)
        u, v, depth = camera.project(flat, pose)
        inside = (depth > NEAR_M) & (u >= 0) & (u < camera.width) & (v >= 0) & (v < camera.height)
        if inside.any():
            rays = flat - eye
            reach = np.sqrt(np.add.reduce(rays * rays, axis=1))
            rays /= reach[:, None]
            self._cast(eye, rays, self._seen_groups, self._hit, self._dist, float(reach.max()))
            # A ray that meets nothing before its point went through a gap in the object itself.
            own = self._body_of_geom[self._hit] == self._bodies
            inside &= own | (self._hit < 0) | (self._dist >= reach)
        shape = self._lateral.shape
        return u.reshape(shape), v.reshape(shape), inside.reshape(shape)

    def _boxes(self, pose: Pose, camera: FrontCamera) -> list[tuple[float, float, float, float]]:
        u, v, depth = camera.project(self._rims, pose)
        rows = (len(self._radius), 2 * RIM_POINTS)
        u, v, front = u.reshape(rows) / camera.width, v.reshape(rows) / camera.height, depth.reshape(rows) > NEAR_M
        left = np.minimum.reduce(u, axis=1, where=front, initial=np.inf)
        right = np.maximum.reduce(u, axis=1, where=front, initial=-np.inf)
        top = np.minimum.reduce(v, axis=1, where=front, initial=np.inf)
        bottom = np.maximum.reduce(v, axis=1, where=front, initial=-np.inf)
        shown = (right > 0) & (left < 1) & (bottom > 0) & (top < 1)
        corners = np.stack([left, top, right, bottom], axis=1)
        corners = np.where(shown[:, None], np.minimum(np.maximum(corners, 0.0), 1.0), 0.0)
        return [(row[0], row[1], row[2], row[3]) for row in corners.tolist()]

    def ranges(self, pose: Pose, camera: FrontCamera, columns: int) -> NDArray[np.float32]:
        """See ``World.ranges``."""
        bearings = camera.bearing((np.arange(columns, dtype=np.float64) + 0.5) * (camera.width / columns)) + pose.yaw
        rays = np.zeros((columns, 3))
        np.cos(bearings, out=rays[:, 0])
        np.sin(bearings, out=rays[:, 1])
        hit, dist = np.empty(columns, np.int32), np.empty(columns)
        self._cast(np.array([pose.x, pose.y, RANGE_HEIGHT_M]), rays, self._felt_groups, hit, dist, RANGE_CAP_M)
        return np.where(hit < 0, RANGE_CAP_M, np.minimum(dist, RANGE_CAP_M)).astype(np.float32)

    def _cast(
        self,
        eye: Floats,
        rays: Floats,
        groups: NDArray[np.uint8],
        hit: NDArray[np.int32],
        dist: Floats,
        cutoff_m: float,
    ) -> None:
        stage = self._stage
        mujoco.mj_multiRay(
            stage.model,
            stage.data,
            eye,
            rays.reshape(-1),
            groups,
            True,
            stage.robot_body,
            hit,
            dist,
            None,
            len(hit),
            cutoff_m,
        )
