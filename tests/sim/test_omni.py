import math

import numpy as np
import pytest

from mobile_vla.core import ZERO_TWIST, Colour, Kind, Twist
from mobile_vla.sim.scene import ROBOT_RADIUS_M, Dynamics, Pose
from mobile_vla.sim.world import World

from .conftest import plain_scene, thing

PERIOD_S = 0.1


@pytest.fixture(scope="module")
def rollers() -> World:
    return World(base="rollers")


@pytest.mark.parametrize(
    "command",
    [
        Twist(0.4, 0.0, 0.0),
        Twist(-0.4, 0.0, 0.0),
        Twist(0.0, 0.4, 0.0),
        Twist(0.0, 0.0, 1.0),
        Twist(0.0, 0.0, -1.0),
        Twist(0.3, -0.3, 0.8),
    ],
)
def test_it_follows_a_twist_within_a_tenth_after_half_a_second(rollers: World, command: Twist) -> None:
    rollers.load(plain_scene(start=Pose(0.0, 0.0, 0.7)))
    for _ in range(5):
        rollers.step(command, PERIOD_S)
    true, measured = [], []
    for _ in range(5):
        rollers.step(command, PERIOD_S)
        true.append(rollers.true_velocity.as_array())
        measured.append(rollers.velocity.as_array())
    allowed = np.maximum(0.1 * np.abs(command.as_array()), (0.02, 0.02, 0.04))
    assert (np.abs(np.mean(true, axis=0) - command.as_array()) <= allowed).all()
    assert (np.abs(np.mean(measured, axis=0) - command.as_array()) <= allowed).all()


def test_it_stands_still_and_upright(rollers: World) -> None:
    rollers.load(plain_scene())
    rollers.step(ZERO_TWIST, 2.0)
    assert (rollers.pose.x, rollers.pose.y, rollers.pose.yaw) == pytest.approx((0.0, 0.0, 0.0), abs=1e-3)
    assert rollers.touching() is None


def test_wheels_turn_on_when_the_hull_is_blocked(rollers: World) -> None:
    item = thing(Kind.PLANT_POT, Colour.RED, 0.8, 0.0)
    rollers.load(plain_scene((item,)))
    for _ in range(20):
        rollers.step(Twist(0.4, 0.0, 0.0), PERIOD_S)
        if rollers.touching():
            break
    assert rollers.touching() == "red plant pot"
    assert math.hypot(rollers.pose.x - 0.8, rollers.pose.y) == pytest.approx(item.radius_m + ROBOT_RADIUS_M, abs=0.02)
    measured = []
    before = rollers.pose.x
    for _ in range(10):
        rollers.step(Twist(0.4, 0.0, 0.0), PERIOD_S)
        measured.append(rollers.velocity.vx)
    assert np.mean(measured) > 0.1, "odometry believes that it drives on"
    assert abs(rollers.pose.x - before) < 0.02


def test_wheel_gains_show_in_the_odometry(rollers: World) -> None:
    rollers.load(plain_scene(dynamics=Dynamics(wheel_gains=(0.8, 0.8, 0.8))))
    for _ in range(8):
        rollers.step(Twist(0.4, 0.0, 0.0), PERIOD_S)
    assert rollers.velocity.vx == pytest.approx(0.32, rel=0.05)


def test_start_velocity_pose_and_state(rollers: World) -> None:
    rollers.load(plain_scene(start=Pose(0.5, -0.5, 2.0), velocity=(0.2, 0.1, 0.5)))
    assert rollers.true_velocity.as_array() == pytest.approx((0.2, 0.1, 0.5), abs=1e-6)
    assert rollers.velocity.as_array() == pytest.approx((0.2, 0.1, 0.5), abs=1e-6)
    assert rollers.pose.yaw == pytest.approx(2.0)
    state = rollers.save_state()
    rollers.step(Twist(0.3, 0.0, 0.0), 0.3)
    first = rollers.pose
    rollers.restore_state(state)
    rollers.step(Twist(0.3, 0.0, 0.0), 0.3)
    assert rollers.pose == first


def test_its_camera_is_where_that_of_the_planar_base_is(rollers: World, world: World) -> None:
    scene = plain_scene((thing(Kind.CONE, Colour.ORANGE, 1.0, 0.2),), floor=3)
    for one in (rollers, world):
        one.load(scene)
    assert np.abs(rollers.render().astype(int) - world.render()).mean() < 0.1
