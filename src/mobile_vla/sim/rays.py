"""The renderer that needs no OpenGL: rays cast by MuJoCo, shaded with numpy.

It draws the same model with the same light and textures as the OpenGL renderer, so that a policy cannot tell the two
apart by colour: Lambert's law with the scene's one lamp, no shadows, no gloss.
"""

import math
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobile_vla.sim.gl import mujoco
from mobile_vla.sim.textures import TEXTURE_PX, texture_images

FAR_M = 1000.0
_LEVELS = int(math.log2(TEXTURE_PX)) + 1
_SIZES = np.array([TEXTURE_PX >> level for level in range(_LEVELS)])
_OFFSETS = np.concatenate([[0], np.cumsum(_SIZES**2)[:-1]])
# An orthographic camera becomes a perspective one this far back: rays must start from one point.
_ORTHOGRAPHIC_RETREAT_M = 500.0

Floats = NDArray[np.float64]


@cache
def _pyramid(name: str) -> NDArray[np.float32]:
    """All mip levels of a texture's brightness, flat, 0..1."""
    level = texture_images()[name][:, :, 0].astype(np.float32) / 255.0
    levels = [level]
    while level.shape[0] > 1:
        level = (level[0::2, 0::2] + level[1::2, 0::2] + level[0::2, 1::2] + level[1::2, 1::2]) / 4
        levels.append(level)
    return np.concatenate([values.ravel() for values in levels])


class RayRenderer:
    """Draws one model by casting one ray for each pixel."""

    name = "CPU rays"

    def __init__(self, model: Any) -> None:
        self._model = model
        self._textures: dict[int, str] = {}
        for material in range(model.nmat):
            name = model.material(material).name
            if name in texture_images():
                self._textures[material] = name
        self._directions: dict[tuple[int, int, float], Floats] = {}

    def close(self) -> None:
        """Forget what was kept for speed."""
        self._directions.clear()

    def render(
        self, data: Any, camera_id: int, height: int, width: int, groups: tuple[int, ...], samples: int = 0
    ) -> NDArray[np.uint8]:
        """RGB (height, width, 3), as ``GLRenderer.render``; one ray for each pixel, whatever ``samples`` asks for."""
        model = self._model
        fovy, eye = float(model.cam_fovy[camera_id]), data.cam_xpos[camera_id].copy()
        axes = data.cam_xmat[camera_id].reshape(3, 3)
        if model.cam_projection[camera_id] == mujoco.mjtProjection.mjPROJ_ORTHOGRAPHIC:
            reach = _ORTHOGRAPHIC_RETREAT_M
            fovy = math.degrees(2 * math.atan(fovy / 2 / (reach + eye[2])))
            eye += axes[:, 2] * reach
        rays = self._local_rays(height, width, fovy) @ axes.T
        count = height * width
        geoms, distances, normals = np.empty(count, np.int32), np.empty(count), np.empty((count, 3))
        shown = np.zeros(6, np.uint8)
        shown[list(groups)] = 1
        mujoco.mj_multiRay(
            model, data, eye, rays.reshape(-1), shown, True, -1, geoms, distances, normals.reshape(-1), count, FAR_M
        )
        pixel_rad = math.radians(fovy) / height
        image = self._shade(data, eye, rays, geoms, distances, normals, pixel_rad)
        return image.reshape(height, width, 3)

    def _local_rays(self, height: int, width: int, fovy_deg: float) -> Floats:
        """Unit directions (height * width, 3) in the frame of MuJoCo's cameras: x right, y up, looking along -z."""
        key = (height, width, fovy_deg)
        if key not in self._directions:
            half = math.tan(math.radians(fovy_deg) / 2)
            up = half * (1 - (2 * np.arange(height) + 1) / height)
            right = half * width / height * ((2 * np.arange(width) + 1) / width - 1)
            grid = np.stack([*np.meshgrid(right, up), np.full((height, width), -1.0)], axis=-1).reshape(-1, 3)
            self._directions[key] = grid / np.linalg.norm(grid, axis=1, keepdims=True)
        return self._directions[key]

    def _shade(
        self,
        data: Any,
        eye: Floats,
        rays: Floats,
        geoms: NDArray[np.int32],
        distances: Floats,
        normals: Floats,
        pixel_rad: float,
    ) -> NDArray[np.uint8]:
        model = self._model
        image = np.zeros((len(geoms), 3), np.float32)
        met = geoms >= 0
        geoms, rays, distances, normals = geoms[met], rays[met], distances[met], normals[met]
        points = eye + rays * distances[:, None]
        facing = np.einsum("ij,ij->i", rays, normals)
        to_lamp = data.light_xpos[0] - points
        to_lamp /= np.sqrt(np.einsum("ij,ij->i", to_lamp, to_lamp))[:, None]
        lambert = np.maximum(np.einsum("ij,ij->i", to_lamp, normals) * np.where(facing > 0, -1.0, 1.0), 0.0)
        light = model.light_ambient[0] + model.light_diffuse[0] * lambert[:, None]
        brightness = np.minimum(model.geom_rgba[geoms, :3] * light, 1.0)
        footprint = distances * pixel_rad / np.maximum(np.abs(facing), 0.02)
        for geom in np.unique(geoms):
            name = self._textures.get(int(model.geom_matid[geom]))
            if name is not None:
                mine = geoms == geom
                brightness[mine] *= self._texture(data, int(geom), name, points[mine], footprint[mine])[:, None]
        image[met] = brightness
        return np.rint(image * 255).astype(np.uint8)

    def _texture(self, data: Any, geom: int, name: str, points: Floats, footprint: Floats) -> NDArray[np.float32]:
        """Brightness of the texture at world points; MuJoCo lays it over a box's local xy from one corner on."""
        model = self._model
        material, half = model.geom_matid[geom], model.geom_size[geom]
        per_metre = model.mat_texrepeat[material] / 2
        if not model.mat_texuniform[material]:
            per_metre = per_metre / half[:2]
        local = (points - data.geom_xpos[geom]) @ data.geom_xmat[geom].reshape(3, 3)
        level = np.clip(np.log2(np.maximum(footprint * per_metre.max() * TEXTURE_PX, 1e-6)), 0, _LEVELS - 1).astype(int)
        size = _SIZES[level]
        column = np.floor((half[0] + local[:, 0]) * per_metre[0] * size).astype(int) % size
        row = np.floor((half[1] - local[:, 1]) * per_metre[1] * size).astype(int) % size
        return np.asarray(_pyramid(name)[_OFFSETS[level] + row * size + column])
