"""One MuJoCo model that can show any scene: a room, slots for objects and obstacles, and a base.

Compiling a model costs a fifth of a second, changing one a fraction of a millisecond. So the model holds empty slots,
and ``Stage.dress`` copies the parts of a kind from a catalogue that is compiled once. All models of this module share
meshes, materials and textures, so that they can share one GL context, whatever their base.

Groups of geoms: what is seen and what is felt are kept apart.
"""

import copy
import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from mobile_vla.core import Kind
from mobile_vla.sim.gl import mujoco
from mobile_vla.sim.scene import FOOTPRINT_RADIUS_M, HEIGHT_M, Obstacle, PlacedObject, Scene
from mobile_vla.sim.shapes import FRUSTUMS, MAX_PARTS, PARTS, VARIANT_SCALES
from mobile_vla.sim.textures import (
    FLOOR_TILE_M,
    N_FLOOR_TEXTURES,
    N_WALL_TEXTURES,
    WALL_TILE_M,
    texture_files,
    texture_images,
)

MAX_OBJECTS = 8
MAX_OBSTACLES = 3

ROOM_GROUP = 0  # floor, walls, obstacles: seen and felt
PART_GROUP = 1  # parts of objects: seen only
ROBOT_GROUP = 2  # the robot: seen from above only
FELT_GROUP = 3  # cylinders that objects and the base are felt as: never seen
UNUSED_GROUP = 5

WALL_HEIGHT_M = 2.4
WALL_HALF_THICKNESS_M = 0.05
FLOOR_HALF_THICKNESS_M = 0.01
PARKED_Z_M = -20.0

# Contact masks: the hull meets walls, obstacles and objects; rollers meet the ground alone, or they jam on the chassis.
SOLID_MASK = 'contype="0" conaffinity="1"'
HULL_MASK = 'contype="1" conaffinity="0"'
ROLLER_MASK = 'contype="2" conaffinity="0"'
FLOOR_MASK = 'contype="0" conaffinity="2"'
UNFELT_MASK = 'contype="0" conaffinity="0"'


@dataclass(frozen=True, slots=True)
class BaseModel:
    """What a base adds to the MJCF: ``option`` attributes, its ``body`` and its ``actuators``."""

    option: str
    body: str
    actuators: str
    default: str = ""


def _assets() -> str:
    lines = [f'<texture name="{name}" type="2d" file="{name}.png"/>' for name in texture_images()]
    for name in texture_images():
        if name == "cardboard":
            laying = 'texuniform="false"'  # one picture on each face, whatever its size
        else:
            # MuJoCo 4.0.0 lays half as many tiles to the metre of a box as it is told.
            repeat = 2 / (FLOOR_TILE_M if name.startswith("floor") else WALL_TILE_M)
            laying = f'texuniform="true" texrepeat="{repeat:.4f} {repeat:.4f}"'
        lines.append(f'<material name="{name}" texture="{name}" {laying} specular="0" shininess="0" reflectance="0"/>')
    lines.append('<material name="matte" specular="0" shininess="0" reflectance="0"/>')
    for frustum in FRUSTUMS:
        for variant, scale in enumerate(VARIANT_SCALES):
            vertices = " ".join(f"{value:.6f}" for value in frustum.vertices(scale))
            lines.append(f'<mesh name="{frustum.mesh_name(variant)}" vertex="{vertices}"/>')
    return "\n".join(lines)


def _slots() -> str:
    lines = []
    parked = f'mocap="true" pos="0 0 {PARKED_Z_M}"'
    inertial = '<inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/>'  # so that bounds are in the body's own frame
    for i in range(MAX_OBSTACLES):
        lines.append(
            f'<body name="obstacle{i}" {parked}>{inertial}<geom name="obstacle{i}" type="box" size=".1 .1 .1" '
            f'material="cardboard" group="{ROOM_GROUP}" {SOLID_MASK}/></body>'
        )
    part = f'<geom type="sphere" size=".01" material="matte" group="{UNUSED_GROUP}" {UNFELT_MASK}/>'
    for i in range(MAX_OBJECTS):
        lines.append(
            f'<body name="object{i}" {parked}>{inertial}<geom name="felt{i}" type="cylinder" size=".1 .1" pos="0 0 .1" '
            f'group="{FELT_GROUP}" {SOLID_MASK}/>{part * MAX_PARTS}</body>'
        )
    return "\n".join(lines)


def _walls() -> str:
    # Local z is the normal: MuJoCo lays a 2d texture over the local x and y.
    frames = {"wall0": "0 1 0 0 0 1", "wall1": "0 1 0 0 0 1", "wall2": "1 0 0 0 0 1", "wall3": "1 0 0 0 0 1"}
    return "\n".join(
        f'<geom name="{name}" type="box" size="3 1.2 {WALL_HALF_THICKNESS_M}" xyaxes="{axes}" material="wall0" '
        f'group="{ROOM_GROUP}" {SOLID_MASK}/>'
        for name, axes in frames.items()
    )


def build_mjcf(base: BaseModel) -> str:
    """The whole MJCF. Needs ``textures.texture_files()`` as assets to compile."""
    return f"""
<mujoco model="mobile_vla">
  <compiler angle="radian" autolimits="true" boundmass="0"/>
  <option {base.option}><flag midphase="disable"/></option>
  <size memory="4M"/>
  <visual>
    <quality offsamples="0" shadowsize="0" numslices="16" numstacks="8" numquads="6"/>
    <headlight active="0"/>
    <map znear="0.02" zfar="30"/>
  </visual>
  <statistic center="0 0 0" extent="1" meansize="0.1"/>
  <default>{base.default}</default>
  <asset>{_assets()}</asset>
  <worldbody>
    <geom name="ground" type="plane" size="0 0 1" group="{FELT_GROUP}" {FLOOR_MASK}/>
    <geom name="floor" type="box" size="3 3 {FLOOR_HALF_THICKNESS_M}" material="floor0" group="{ROOM_GROUP}"
      {UNFELT_MASK}/>
    {_walls()}
    <!-- A spot of 180 degrees is a point light; MuJoCo 4.0.0 draws type "point" without any diffuse light. -->
    <light name="lamp" type="spot" pos="0 0 2.2" dir="0 0 -1" diffuse=".7 .7 .7" ambient=".3 .3 .3" specular="0 0 0"
      castshadow="false" attenuation="1 0 0" cutoff="180" exponent="0"/>
    <camera name="top" pos="0 0 6" projection="orthographic" fovy="6"/>
    {_slots()}
    {base.body}
  </worldbody>
  <actuator>{base.actuators}</actuator>
</mujoco>"""


@cache
def compiled(base: BaseModel) -> Any:
    """The compiled model, one for each base; copy it before changing anything."""
    return mujoco.MjModel.from_xml_string(build_mjcf(base), texture_files())


@cache
def _catalogue() -> tuple[Any, dict[tuple[Kind, int], slice]]:
    """A model with one body for each kind and size, and where its geoms lie."""
    bodies, spans, at = [], {}, 0
    for kind, parts in PARTS.items():
        for variant in range(len(VARIANT_SCALES)):
            bodies.append("<body>" + "".join(part.mjcf(variant) for part in parts) + "</body>")
            spans[kind, variant] = slice(at, at + len(parts))
            at += len(parts)
    text = f"<mujoco><asset>{_assets()}</asset><worldbody>{''.join(bodies)}</worldbody></mujoco>"
    return mujoco.MjModel.from_xml_string(text, texture_files()), spans


_COPIED = ("geom_type", "geom_size", "geom_pos", "geom_quat", "geom_dataid", "geom_rbound", "geom_aabb")


class Stage:
    """One model, and the writing of scenes into it."""

    def __init__(self, base: BaseModel) -> None:
        self.model = copy.copy(compiled(base))
        self.data = mujoco.MjData(self.model)
        model = self.model
        self.floor_geom = self._geom("floor")
        self.wall_geoms = [self._geom(f"wall{i}") for i in range(4)]
        self.obstacle_geoms = [self._geom(f"obstacle{i}") for i in range(MAX_OBSTACLES)]
        self.felt_geoms = [self._geom(f"felt{i}") for i in range(MAX_OBJECTS)]
        self.object_bodies = [model.body(f"object{i}").id for i in range(MAX_OBJECTS)]
        self.robot_body = model.body("base").id
        self.front_camera = model.camera("front").id
        self.top_camera = model.camera("top").id
        # Same-frame shortcuts belong to what was compiled, not to what is written into the slots.
        model.geom_sameframe[: self.felt_geoms[-1] + 1 + MAX_PARTS] = 0
        self._bound("world", (0.0, 0.0, 0.0), (50.0, 50.0, 50.0))
        self.touch_names: dict[int, str] = {}

    def _geom(self, name: str) -> int:
        return int(self.model.geom(name).id)

    def dress(self, scene: Scene) -> None:
        """Write ``scene`` into the model; ValueError when it holds more than the model has slots for."""
        if len(scene.objects) > MAX_OBJECTS or len(scene.obstacles) > MAX_OBSTACLES:
            raise ValueError(
                f"a scene may hold {MAX_OBJECTS} objects and {MAX_OBSTACLES} obstacles, "
                f"this one has {len(scene.objects)} and {len(scene.obstacles)}"
            )
        self.touch_names = dict.fromkeys(self.wall_geoms, "wall")
        self._dress_room(scene)
        for i in range(MAX_OBSTACLES):
            self._dress_obstacle(i, scene.obstacles[i] if i < len(scene.obstacles) else None)
        for i in range(MAX_OBJECTS):
            self._dress_object(i, scene.objects[i] if i < len(scene.objects) else None)

    def _dress_room(self, scene: Scene) -> None:
        model, look = self.model, scene.appearance
        thick, half_z = WALL_HALF_THICKNESS_M, WALL_HEIGHT_M / 2
        far_x, far_y = scene.half_x + thick, scene.half_y + thick
        places = ((far_x, 0.0), (-far_x, 0.0), (0.0, far_y), (0.0, -far_y))
        lengths = (scene.half_y, scene.half_y, scene.half_x, scene.half_x)
        material = model.material(f"wall{look.wall_texture % N_WALL_TEXTURES}").id
        for geom, (x, y), length in zip(self.wall_geoms, places, lengths, strict=True):
            model.geom_pos[geom] = (x, y, half_z)
            self._resize(geom, (length + 2 * thick, half_z, thick))
            model.geom_matid[geom] = material
            model.geom_rgba[geom] = (*look.wall_rgb, 1.0)
        # Seen as a box of the room's size: a plane is drawn as thousands of tiles, which took 2 ms a frame.
        model.geom_pos[self.floor_geom] = (0.0, 0.0, -FLOOR_HALF_THICKNESS_M)
        self._resize(self.floor_geom, (scene.half_x + 2 * thick, scene.half_y + 2 * thick, FLOOR_HALF_THICKNESS_M))
        model.geom_matid[self.floor_geom] = model.material(f"floor{look.floor_texture % N_FLOOR_TEXTURES}").id
        model.geom_rgba[self.floor_geom] = (*look.floor_rgb, 1.0)
        model.light_pos[0] = look.light_xyz
        model.light_diffuse[0] = np.multiply(look.light_rgb, look.light_diffuse)
        model.light_ambient[0] = np.multiply(look.light_rgb, look.light_ambient)

    def _dress_obstacle(self, index: int, obstacle: Obstacle | None) -> None:
        geom = self.obstacle_geoms[index]
        self.model.geom_group[geom] = UNUSED_GROUP if obstacle is None else ROOM_GROUP
        if obstacle is None:
            self._park(f"obstacle{index}")
            return
        self.touch_names[geom] = f"obstacle {index}"
        half_z = obstacle.height_m / 2
        self._resize(geom, (obstacle.half_x, obstacle.half_y, half_z))
        self._bound(f"obstacle{index}", (0.0, 0.0, 0.0), (obstacle.half_x, obstacle.half_y, half_z))
        self.model.geom_rgba[geom] = (*obstacle.rgb, 1.0)
        self._place(f"obstacle{index}", obstacle.pose.x, obstacle.pose.y, half_z, obstacle.pose.yaw)

    def _dress_object(self, index: int, item: PlacedObject | None) -> None:
        model, felt = self.model, self.felt_geoms[index]
        parts = slice(felt + 1, felt + 1 + MAX_PARTS)
        model.geom_group[parts] = UNUSED_GROUP
        model.geom_group[felt] = UNUSED_GROUP if item is None else FELT_GROUP
        if item is None:
            self._park(f"object{index}")
            return
        catalogue, spans = _catalogue()
        source = spans[item.kind, item.variant]
        target = slice(felt + 1, felt + 1 + source.stop - source.start)
        for name in _COPIED:
            getattr(model, name)[target] = getattr(catalogue, name)[source]
        model.geom_group[target] = PART_GROUP
        model.geom_rgba[target] = [part.role.paint(item.rgb) for part in PARTS[item.kind]]
        scale = VARIANT_SCALES[item.variant]
        radius, half_z = FOOTPRINT_RADIUS_M[item.kind] * scale, HEIGHT_M[item.kind] * scale / 2
        model.geom_size[felt] = (radius, half_z, 0.0)
        model.geom_pos[felt] = (0.0, 0.0, half_z)
        model.geom_rbound[felt] = math.hypot(radius, half_z)
        model.geom_aabb[felt] = (0, 0, 0, radius, radius, half_z)
        self._bound(f"object{index}", (0.0, 0.0, half_z), (radius, radius, half_z))
        self.touch_names[felt] = f"{item.colour} {item.kind}".replace("_", " ")
        self._place(f"object{index}", item.pose.x, item.pose.y, 0.0, item.pose.yaw)

    def _resize(self, geom: int, half: tuple[float, float, float]) -> None:
        """A box's half lengths, and the bounds that MuJoCo derived from them when it compiled."""
        self.model.geom_size[geom] = half
        self.model.geom_rbound[geom] = math.hypot(*half)
        self.model.geom_aabb[geom] = (0, 0, 0, *half)

    def _bound(self, body: str, centre: tuple[float, float, float], half: tuple[float, float, float]) -> None:
        """The box round a whole body, by which rays decide whether to look at its geoms at all."""
        at, count = self.model.body_bvhadr[self.model.body(body).id], self.model.body_bvhnum[self.model.body(body).id]
        self.model.bvh_aabb[at : at + count] = (*centre, *half)

    def _place(self, body: str, x: float, y: float, z: float, yaw: float) -> None:
        mocap = self.model.body(body).mocapid[0]
        self.data.mocap_pos[mocap] = (x, y, z)
        self.data.mocap_quat[mocap] = (math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2))

    def _park(self, body: str) -> None:
        self._place(body, 0.0, 0.0, PARKED_Z_M, 0.0)
