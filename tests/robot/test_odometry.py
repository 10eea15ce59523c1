import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.core import Twist
from mobile_vla.robot.odometry import Pose, moved

length = st.floats(-10, 10)
angle = st.floats(-3.1, 3.1)
poses = st.builds(Pose, length, length, angle)
twists = st.builds(Twist, st.floats(-2, 2), st.floats(-2, 2), st.floats(-3, 3))


def same(one, other, tolerance=1e-9):
    turn = math.remainder(one.yaw - other.yaw, math.tau)
    return math.hypot(one.x - other.x, one.y - other.y) < tolerance and abs(turn) < tolerance


@given(poses, twists, st.floats(0, 3), st.integers(2, 50))
def test_many_steps_at_one_velocity_are_one(pose, twist, seconds, steps):
    stepped = pose
    for _ in range(steps):
        stepped = stepped.after(moved(twist, seconds / steps))
    assert same(stepped, pose.after(moved(twist, seconds)), 1e-8)


@given(twists, st.floats(0.1, 2))
def test_it_is_what_many_small_straight_steps_come_to(twist, seconds):
    steps = 20_000
    x = y = yaw = 0.0
    for _ in range(steps):
        middle = yaw + twist.wz * seconds / steps / 2
        x += (math.cos(middle) * twist.vx - math.sin(middle) * twist.vy) * seconds / steps
        y += (math.sin(middle) * twist.vx + math.cos(middle) * twist.vy) * seconds / steps
        yaw += twist.wz * seconds / steps
    assert same(Pose().after(moved(twist, seconds)), Pose(x, y, yaw), 1e-6)


def test_a_quarter_turn_ahead_ends_ahead_and_to_the_left():
    assert same(Pose().after(Twist(math.pi / 2, 0, math.pi / 2)), Pose(1, 1, math.pi / 2))


def test_a_quarter_turn_to_the_left_sideways_ends_behind_and_to_the_left():
    assert same(Pose().after(Twist(0, math.pi / 2, math.pi / 2)), Pose(-1, 1, math.pi / 2))


@given(st.floats(-2e-4, 2e-4), length, length)
def test_where_the_turn_gets_small_nothing_jumps(turn, x, y):
    exact = Pose().after(Twist(x, y, turn))
    assert exact.x == pytest.approx(x - y * turn / 2, abs=1e-6)
    assert exact.y == pytest.approx(y + x * turn / 2, abs=1e-6)


@given(poses, poses, poses)
def test_poses_are_a_group(a, b, c):
    assert same(a.at(b).at(c), a.at(b.at(c)))
    assert same(a.at(a.inverse()), Pose())
    assert same(a.inverse().at(a), Pose())
    assert same(a.at(Pose()), a)


@given(poses, twists)
def test_there_and_back_is_where_it_began(pose, twist):
    back = Twist(-twist.vx, -twist.vy, -twist.wz)
    assert same(pose.after(twist).after(back), pose, 1e-8)
