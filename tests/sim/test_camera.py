import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.core import Colour, Kind
from mobile_vla.sim.camera import CAMERA_FORWARD_M, FrontCamera
from mobile_vla.sim.scene import Pose
from mobile_vla.sim.sight import RANGE_CAP_M
from mobile_vla.sim.world import World

from .conftest import RGBS, carton, plain_scene, thing

LOOK = plain_scene().appearance
HEIGHT, WIDTH = 96, 192
coordinate = st.floats(-3, 3, allow_nan=False)
angle = st.floats(-math.pi, math.pi, allow_nan=False)


def test_a_point_on_the_optical_axis_falls_in_the_middle() -> None:
    camera = FrontCamera(LOOK, HEIGHT, WIDTH)
    axis = camera.axes[2]
    point = np.array(camera.position(Pose(0, 0, 0))) + 2.0 * axis
    u, v, depth = camera.project(point[None], Pose(0, 0, 0))
    np.testing.assert_allclose((u[0], v[0], depth[0]), (WIDTH / 2, HEIGHT / 2, 2.0))
    assert axis[2] < 0, "a negative pitch looks down"


@given(x=coordinate, y=coordinate, yaw=angle, row=st.integers(0, HEIGHT - 1), column=st.integers(0, WIDTH - 1))
def test_projecting_along_a_pixels_ray_gives_back_the_pixel(
    x: float, y: float, yaw: float, row: int, column: int
) -> None:
    camera, pose = FrontCamera(LOOK, HEIGHT, WIDTH), Pose(x, y, yaw)
    c, s = math.cos(yaw), math.sin(yaw)
    ray = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ camera.rays()[row, column]
    u, v, depth = camera.project((np.array(camera.position(pose)) + 1.7 * ray)[None], pose)
    assert (u[0], v[0]) == pytest.approx((column + 0.5, row + 0.5), abs=1e-6)
    assert depth[0] > 0


def test_field_of_view_and_bearings() -> None:
    camera = FrontCamera(LOOK, HEIGHT, WIDTH)
    assert camera.focal_px == pytest.approx(96 / math.tan(LOOK.camera_fov_rad / 2))
    assert camera.vertical_fov_rad == pytest.approx(2 * math.atan(math.tan(LOOK.camera_fov_rad / 2) / 2))
    left, middle, right = camera.bearing(np.array([0.0, 96.0, 192.0]))
    assert middle == 0.0
    assert left == -right
    assert left > LOOK.camera_fov_rad / 2 - 1e-9, "left is positive"


def test_points_behind_have_negative_depth() -> None:
    camera = FrontCamera(LOOK, HEIGHT, WIDTH)
    _, _, depth = camera.project(np.array([[-1.0, 0.0, 0.2]]), Pose(0, 0, 0))
    assert depth[0] < 0


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("where", [(1.0, 0.0), (1.6, 0.6), (2.4, -0.8)])
def test_the_picture_shows_an_object_where_the_truth_says(world: World, kind: Kind, where: tuple[float, float]) -> None:
    world.load(plain_scene())
    empty = world.render().astype(int)
    world.load(plain_scene((thing(kind, Colour.BLUE, *where),)))
    changed = np.abs(world.render().astype(int) - empty).max(axis=2) > 12
    (seen,) = world.visibility()
    rows, columns = np.nonzero(changed)
    left, top, right, bottom = seen.box
    assert columns.min() >= left * WIDTH - 1.5
    assert columns.max() + 1 <= right * WIDTH + 1.5
    assert rows.min() >= top * HEIGHT - 1.5
    assert rows.max() + 1 <= bottom * HEIGHT + 1.5
    assert columns.max() - columns.min() >= 0.5 * (right - left) * WIDTH - 2
    assert seen.centre_uv is not None
    assert seen.centre_uv[0] == pytest.approx(np.mean(columns), abs=0.2 * (right - left) * WIDTH + 2)
    if bottom < 1 and top > 0:
        assert seen.visible_fraction == 1.0


def test_bearing_and_distance_are_those_of_the_base(world: World) -> None:
    ball = thing(Kind.BALL, Colour.RED, 1.0, 1.0)
    world.load(plain_scene((ball,), start=Pose(0.0, 0.0, math.radians(30))))
    (seen,) = world.visibility()
    assert seen.bearing_rad == pytest.approx(math.radians(15))
    assert seen.distance_m == pytest.approx(math.sqrt(2) - ball.radius_m)


@pytest.mark.parametrize("kind", list(Kind))
def test_nothing_is_seen_of_what_stands_behind_an_obstacle(world: World, kind: Kind) -> None:
    hidden = thing(kind, Colour.GREEN, 2.0, 0.0)
    world.load(plain_scene((hidden,), (carton(1.0, 0.0, 0.1, 0.8, 1.6),)))
    (seen,) = world.visibility()
    assert seen.visible_fraction == 0.0
    assert seen.centre_uv is None
    pixels = world.render().reshape(-1, 3).astype(float)
    greenish = (pixels[:, 1] > 1.5 * pixels[:, 0]) & (pixels[:, 1] > 1.5 * pixels[:, 2])
    assert not greenish.any()


def test_half_of_an_object_shows_beside_an_obstacle(world: World) -> None:
    world.load(plain_scene((thing(Kind.BOX, Colour.RED, 2.0, 0.0),), (carton(1.0, 0.5, 0.1, 0.5, 1.0),)))
    (seen,) = world.visibility()
    assert 0.2 < seen.visible_fraction < 0.8
    assert seen.centre_uv is not None
    assert seen.centre_uv[0] > WIDTH / 2, "the right half shows"


def test_an_object_hides_another(world: World) -> None:
    world.load(plain_scene((thing(Kind.BOX, Colour.RED, 0.8, 0.0), thing(Kind.CUP, Colour.BLUE, 1.4, 0.0))))
    box, cup = world.visibility()
    assert (box.visible_fraction, cup.visible_fraction) == (1.0, 0.0)


def test_what_is_behind_the_robot_is_not_in_the_image(world: World) -> None:
    world.load(plain_scene((thing(Kind.CHAIR, Colour.RED, -1.0, 0.2),)))
    (seen,) = world.visibility()
    assert seen.visible_fraction == 0.0
    assert seen.box == (0.0, 0.0, 0.0, 0.0)
    assert abs(seen.bearing_rad) > math.pi / 2


def test_a_scene_without_objects_has_nothing_to_see(world: World) -> None:
    assert world.visibility() == []


@given(distance=st.floats(0.6, 3.5), yaw=angle)
def test_ranges_measure_the_free_way(distance: float, yaw: float) -> None:
    world = _ranging_world()
    ball = thing(Kind.BALL, Colour.RED, distance * math.cos(yaw), distance * math.sin(yaw))
    world.load(plain_scene((ball,), start=Pose(0.0, 0.0, yaw), half=(6.0, 6.0)))
    ranges = world.ranges(25)
    assert ranges.dtype == np.float32
    assert ranges.shape == (25,)
    assert ranges[12] == pytest.approx(distance - ball.radius_m, abs=1e-4)
    assert ranges[0] == RANGE_CAP_M == ranges[-1]


_KEPT: list[World] = []


def _ranging_world() -> World:
    if not _KEPT:
        _KEPT.append(World())
    return _KEPT[0]


def test_ranges_run_from_left_to_right_and_see_walls_and_obstacles(world: World) -> None:
    world.load(plain_scene((), (carton(1.0, 1.0, 0.2, 0.2),), half=(3.0, 3.0)))
    ranges = world.ranges(24)
    camera = FrontCamera(LOOK, HEIGHT, WIDTH)
    bearings = camera.bearing((np.arange(24) + 0.5) * 8)
    assert ranges[np.argmin(np.abs(bearings - math.pi / 4))] < 1.4
    right = bearings < -0.1
    walls = np.minimum(3.0 / np.cos(bearings[right]), 3.0 / -np.sin(bearings[right]))
    np.testing.assert_allclose(ranges[right], np.minimum(walls, RANGE_CAP_M), rtol=1e-5)


def test_a_camera_is_ahead_of_the_base_centre() -> None:
    x, y, z = FrontCamera(LOOK, HEIGHT, WIDTH).position(Pose(1.0, 2.0, math.pi / 2))
    assert (x, y, z) == pytest.approx((1.0, 2.0 + CAMERA_FORWARD_M, LOOK.camera_height_m))


def test_colours_stay_saturated_in_the_picture(world: World) -> None:
    for colour, rgb in RGBS.items():
        world.load(plain_scene((thing(Kind.BALL, colour, 1.2, 0.0),)))
        (seen,) = world.visibility()
        assert seen.centre_uv is not None
        u, v = (int(value) for value in seen.centre_uv)
        pixel = world.render()[v, u].astype(float)
        assert float(pixel @ rgb / np.linalg.norm(pixel) / np.linalg.norm(rgb)) > 0.99
        assert pixel.max() > 60
