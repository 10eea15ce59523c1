import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.core import Colour, Kind
from mobile_vla.sim.geometry import (
    clearance,
    object_bearing,
    object_distance,
    obstacle_distance,
    sight_fraction,
    to_base,
    wrap_angle,
)
from mobile_vla.sim.scene import Obstacle, Pose
from sim.conftest import carton, plain_scene, thing

angles = st.floats(-20, 20)
metres = st.floats(-5, 5)
poses = st.builds(Pose, metres, metres, angles)


@given(angles)
def test_a_wrapped_angle_points_the_same_way_within_half_a_turn(angle):
    wrapped = wrap_angle(angle)
    assert -math.pi <= wrapped <= math.pi
    assert math.cos(wrapped - angle) == pytest.approx(1.0)


@given(poses, metres, metres)
def test_a_point_seen_from_a_pose_keeps_its_distance(pose, x, y):
    ahead, left = to_base(pose, x, y)
    assert math.hypot(ahead, left) == pytest.approx(math.hypot(x - pose.x, y - pose.y), abs=1e-9)


def test_ahead_is_x_and_left_is_y():
    facing_y = Pose(1.0, 1.0, math.pi / 2)
    assert to_base(facing_y, 1.0, 3.0) == pytest.approx((2.0, 0.0))
    assert to_base(facing_y, 0.0, 1.0) == pytest.approx((0.0, 1.0))


def test_bearing_is_left_positive():
    cup = thing(Kind.CUP, Colour.RED, 1.0, 1.0)
    assert object_bearing(cup, Pose(0, 0, 0)) == pytest.approx(math.pi / 4)
    assert object_bearing(cup, Pose(0, 0, math.pi / 2)) == pytest.approx(-math.pi / 4)


@given(metres, metres)
def test_distance_is_to_the_edge_of_the_footprint(x, y):
    ball = thing(Kind.BALL, Colour.RED, 1.0, 0.5)
    assert object_distance(ball, x, y) == pytest.approx(math.hypot(x - 1.0, y - 0.5) - ball.radius_m)


@given(st.floats(-math.pi, math.pi), metres, metres)
def test_an_obstacle_is_as_far_as_its_nearest_edge_however_it_stands(yaw, x, y):
    box = Obstacle(Pose(0.4, -0.2, yaw), 0.3, 0.2, 0.3, (1, 1, 1))
    ahead, left = to_base(box.pose, x, y)
    edge = np.clip(ahead, -0.3, 0.3), np.clip(left, -0.2, 0.2)
    wanted = math.hypot(ahead - edge[0], left - edge[1])
    assert float(obstacle_distance(box, np.array([x, y]))) == pytest.approx(wanted, abs=1e-9)


@given(st.lists(st.tuples(st.floats(-2.9, 2.9), st.floats(-2.4, 2.4)), min_size=1, max_size=6))
def test_clearance_is_the_least_of_all_distances(points):
    ball = thing(Kind.BALL, Colour.RED, 1.0, 0.5)
    scene = plain_scene((ball,), (carton(-1.0, 0.0),))
    found = clearance(scene, np.array(points))
    for (x, y), room in zip(points, found, strict=True):
        box = float(obstacle_distance(scene.obstacles[0], np.array([x, y])))
        walls = min(3.0 - abs(x), 2.5 - abs(y))
        assert room == pytest.approx(min(walls, box, object_distance(ball, x, y)))
    assert (clearance(scene, np.array(points), skip=(0,)) >= found).all()


@pytest.mark.parametrize(
    ("box_y", "least", "most"), [(0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.3, 0.2, 0.8)], ids=["behind", "free", "half"]
)
def test_how_much_of_a_thing_is_in_sight(box_y, least, most):
    scene = plain_scene((thing(Kind.BASKET, Colour.RED, 2.0, 0.0),), (carton(1.0, box_y, 0.1, 0.3),))
    assert least <= sight_fraction(scene, 0, 0.0, 0.0) <= most


def test_another_thing_can_stand_before_it():
    basket, cup = thing(Kind.BASKET, Colour.RED, 1.0, 0.0), thing(Kind.CUP, Colour.BLUE, 2.0, 0.0)
    assert sight_fraction(plain_scene((basket, cup)), 1, 0.0, 0.0) == 0.0
    assert sight_fraction(plain_scene((basket, cup)), 0, 0.0, 0.0) == 1.0
