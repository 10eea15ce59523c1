import itertools
import math
from typing import Any

import mujoco
import numpy as np
import pytest

from mobile_vla.core import Colour, Kind
from mobile_vla.sim import mjcf
from mobile_vla.sim.base import PlanarBase
from mobile_vla.sim.mjcf import MAX_OBJECTS, MAX_OBSTACLES, PART_GROUP, ROOM_GROUP, UNUSED_GROUP, Stage
from mobile_vla.sim.omni import RollerBase
from mobile_vla.sim.scene import FOOTPRINT_RADIUS_M, HEIGHT_M, Pose
from mobile_vla.sim.shapes import MAX_PARTS, PARTS, SILHOUETTE, VARIANT_SCALES, Role
from mobile_vla.sim.textures import N_FLOOR_TEXTURES, N_WALL_TEXTURES, texture_images

from .conftest import RGBS, carton, plain_scene, thing


@pytest.fixture(scope="module")
def stage() -> Stage:
    return Stage(PlanarBase.model)


TURNS = np.linspace(0, 2 * math.pi, 24, endpoint=False)
CIRCLE = np.stack([np.cos(TURNS), np.sin(TURNS), np.zeros(24)], axis=1)
GLOBE = np.concatenate([CIRCLE, np.roll(CIRCLE, 1, axis=1), np.roll(CIRCLE, 2, axis=1)])
CORNERS = np.array(list(itertools.product((-1.0, 1.0), repeat=3)))
POLES = np.array([[[0.0, 0.0, 1.0]], [[0.0, 0.0, -1.0]]])


def outer_points(model: Any, geom: int) -> np.ndarray:
    """Points on the surface of one geom, in its own frame."""
    size = model.geom_size[geom]
    match mujoco.mjtGeom(model.geom_type[geom]):
        case mujoco.mjtGeom.mjGEOM_MESH:
            mesh = model.geom_dataid[geom]
            at, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
            return model.mesh_vert[at : at + count].astype(float)
        case mujoco.mjtGeom.mjGEOM_BOX:
            return CORNERS * size
        case mujoco.mjtGeom.mjGEOM_CYLINDER:
            return np.concatenate(CIRCLE * size[0] + POLES * size[1])
        case mujoco.mjtGeom.mjGEOM_CAPSULE:
            return np.concatenate(GLOBE * size[0] + POLES * size[1])
        case mujoco.mjtGeom.mjGEOM_SPHERE:
            return GLOBE * size[0]
        case mujoco.mjtGeom.mjGEOM_ELLIPSOID:
            return GLOBE * size
    raise AssertionError(model.geom_type[geom])


def surface_points(stage: Stage, index: int) -> np.ndarray:
    """Points on the surface of all parts of an object, in the frame of its body."""
    felt, model = stage.felt_geoms[index], stage.model
    points = []
    for geom in range(felt + 1, felt + 1 + MAX_PARTS):
        if model.geom_group[geom] == PART_GROUP:
            rotation = np.zeros(9)
            mujoco.mju_quat2Mat(rotation, model.geom_quat[geom])
            points.append(outer_points(model, geom) @ rotation.reshape(3, 3).T + model.geom_pos[geom])
    return np.concatenate(points)


@pytest.mark.parametrize("variant", range(len(VARIANT_SCALES)))
@pytest.mark.parametrize("kind", list(Kind))
def test_an_object_keeps_to_its_footprint_and_height(stage: Stage, kind: Kind, variant: int) -> None:
    stage.dress(plain_scene((thing(kind, Colour.RED, 1.0, 0.0, variant=variant),)))
    points = surface_points(stage, 0)
    scale = VARIANT_SCALES[variant]
    assert np.hypot(points[:, 0], points[:, 1]).max() <= FOOTPRINT_RADIUS_M[kind] * scale + 0.002
    assert points[:, 2].max() <= HEIGHT_M[kind] * scale + 0.002
    assert points[:, 2].max() >= HEIGHT_M[kind] * scale * 0.9
    assert points[:, 2].min() >= -0.002


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_wears_the_named_colour(stage: Stage, kind: Kind) -> None:
    stage.dress(plain_scene((thing(kind, Colour.PURPLE, 1.0, 0.0),)))
    felt = stage.felt_geoms[0]
    painted = stage.model.geom_rgba[felt + 1 : felt + 1 + len(PARTS[kind])]
    assert any(np.allclose(rgba, (*RGBS[Colour.PURPLE], 1.0)) for rgba in painted)
    assert PARTS[kind][0].role in (Role.MAIN, Role.SHADE)
    assert set(SILHOUETTE) == set(Kind)


def test_as_many_things_as_there_are_slots_fit_even_if_they_are_all_alike(stage: Stage) -> None:
    chairs = tuple(thing(Kind.CHAIR, Colour.BLUE, 0.5 * i - 2, 1.0) for i in range(MAX_OBJECTS))
    cartons = tuple(carton(i - 1.0, -1.0) for i in range(MAX_OBSTACLES))
    stage.dress(plain_scene(chairs, cartons))
    used = np.count_nonzero(stage.model.geom_group == PART_GROUP)
    assert used == MAX_OBJECTS * len(PARTS[Kind.CHAIR])
    with pytest.raises(ValueError, match=f"{MAX_OBJECTS + 1} and 0"):
        stage.dress(plain_scene((*chairs, chairs[0])))
    with pytest.raises(ValueError, match=f"0 and {MAX_OBSTACLES + 1}"):
        stage.dress(plain_scene((), (*cartons, cartons[0])))


def test_what_a_scene_does_not_use_is_out_of_sight_and_out_of_reach(stage: Stage) -> None:
    full = tuple(thing(Kind.BASKET, Colour.RED, 0.5 * i - 2, 1.0) for i in range(MAX_OBJECTS))
    stage.dress(plain_scene(full, (carton(1.0, 0.0),)))
    stage.dress(plain_scene((thing(Kind.BALL, Colour.RED, 1.0, 0.0),)))
    model, data = stage.model, stage.data
    mujoco.mj_forward(model, data)
    assert np.count_nonzero(model.geom_group == PART_GROUP) == 1
    for geom in (*stage.obstacle_geoms, *stage.felt_geoms[1:]):
        assert model.geom_group[geom] == UNUSED_GROUP
        assert data.geom_xpos[geom][2] < -10


def test_obstacles_and_walls_stand_where_the_scene_says(stage: Stage) -> None:
    stage.dress(plain_scene((), (carton(1.0, 0.5, 0.2, 0.4, 0.6),), half=(4.0, 1.5)))
    model, data = stage.model, stage.data
    mujoco.mj_forward(model, data)
    box = stage.obstacle_geoms[0]
    np.testing.assert_allclose(data.geom_xpos[box], (1.0, 0.5, 0.3))
    np.testing.assert_allclose(model.geom_size[box], (0.2, 0.4, 0.3))
    assert model.geom_rbound[box] == pytest.approx(math.hypot(0.2, 0.4, 0.3))
    hit = np.zeros(1, np.int32)
    for direction, distance in (((1, 0, 0), 4.0), ((-1, 0, 0), 4.0), ((0, 1, 0), 1.5), ((0, -1, 0), 1.5)):
        groups = np.zeros(6, np.uint8)
        groups[ROOM_GROUP] = 1
        way = np.array(direction, float)
        found = mujoco.mj_ray(model, data, np.array([0.0, 0.0, 1.0]), way, groups, 1, stage.robot_body, hit)
        assert found == pytest.approx(distance)


def test_all_models_share_assets_so_that_they_can_share_a_gl_context() -> None:
    planar, rollers = Stage(PlanarBase.model).model, Stage(RollerBase.model).model
    for name in ("mesh_vert", "mesh_vertadr", "tex_data", "tex_adr", "mat_texid", "mat_texrepeat"):
        np.testing.assert_array_equal(getattr(planar, name), getattr(rollers, name))
    shared = Stage(PlanarBase.model).felt_geoms[-1] + MAX_PARTS
    np.testing.assert_array_equal(planar.geom_type[:shared], rollers.geom_type[:shared])


def test_textures_are_many_distinct_and_near_white() -> None:
    assert N_FLOOR_TEXTURES >= 5
    assert N_WALL_TEXTURES >= 5
    images = texture_images()
    for prefix in ("floor", "wall"):
        mine = [image for name, image in images.items() if name.startswith(prefix)]
        assert all((a != b).any() for a, b in itertools.combinations(mine, 2))
        assert all(image.mean() > 170 for image in mine)


def test_a_texture_index_beyond_the_last_wraps_round(stage: Stage) -> None:
    stage.dress(plain_scene(floor=N_FLOOR_TEXTURES + 2))
    beyond = stage.model.geom_matid[stage.floor_geom]
    stage.dress(plain_scene(floor=2))
    assert stage.model.geom_matid[stage.floor_geom] == beyond


def test_stages_do_not_share_what_they_change() -> None:
    first, second = Stage(PlanarBase.model), Stage(PlanarBase.model)
    first.dress(plain_scene((thing(Kind.CUP, Colour.RED, 1.0, 0.0),), start=Pose(0, 0, 0)))
    assert not (second.model.geom_group == PART_GROUP).any()
    assert mjcf.compiled(PlanarBase.model) is mjcf.compiled(PlanarBase.model)
