import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.core import ConfigError, Twist
from mobile_vla.robot import LEKIWI, OmniKinematics
from mobile_vla.robot.kinematics import MecanumKinematics, no_faster_than, omni3, omni4

LEFT, REAR, RIGHT = range(3)
component = st.floats(-5, 5)
twists = st.builds(Twist, component, component, component)


@st.composite
def bases(draw):
    """Three or four wheels at least 40 degrees apart, all of them between two opposite ones."""
    count = draw(st.integers(3, 4))
    turn = draw(st.floats(-math.pi, math.pi))
    bends = [draw(st.floats(-0.3, 0.3)) for _ in range(count)]
    angles = tuple(turn + math.tau * k / count + bend for k, bend in enumerate(bends))
    return OmniKinematics(angles, draw(st.floats(0.02, 0.2)), draw(st.floats(0.05, 0.5)))


@given(bases(), twists)
def test_the_round_trip_gives_the_twist_back(base, twist):
    back = base.twist(base.wheel_speeds(twist))
    assert np.allclose([back.vx, back.vy, back.wz], [twist.vx, twist.vy, twist.wz], atol=1e-9)


@given(st.tuples(component, component, component))
def test_three_wheels_can_turn_at_any_speeds(speeds):
    assert np.allclose(LEKIWI.wheel_speeds(LEKIWI.twist(speeds)), speeds, atol=1e-9)


@given(bases(), twists)
def test_each_wheel_turns_as_fast_as_its_contact_point_moves_along_its_push(base, twist):
    """From rigid-body motion: a point r of the base moves with (vx, vy) + wz x r; a wheel rolls along its push."""
    for angle, speed in zip(base.wheel_angles_rad, base.wheel_speeds(twist), strict=True):
        mount = angle - math.pi / 2
        rx, ry = base.base_radius_m * math.cos(mount), base.base_radius_m * math.sin(mount)
        moving = (twist.vx - twist.wz * ry, twist.vy + twist.wz * rx)
        along = moving[0] * math.cos(angle) + moving[1] * math.sin(angle)
        assert speed * base.wheel_radius_m == pytest.approx(along, abs=1e-9)


def test_forward_lekiwi_rolls_on_its_front_wheels_and_slides_over_the_rear_one():
    """Left counts counter-clockwise as positive, which is backwards at the front left: it turns negatively."""
    speeds = LEKIWI.wheel_speeds(Twist(0.3, 0, 0)) * LEKIWI.wheel_radius_m
    assert speeds == pytest.approx([-0.3 * math.sqrt(3) / 2, 0, 0.3 * math.sqrt(3) / 2], abs=1e-12)


def test_leftward_lekiwi_rolls_on_its_rear_wheel_whose_positive_push_is_to_the_right():
    speeds = LEKIWI.wheel_speeds(Twist(0, 0.3, 0)) * LEKIWI.wheel_radius_m
    assert speeds == pytest.approx([0.15, -0.3, 0.15], abs=1e-12)


def test_counter_clockwise_lekiwi_turns_all_wheels_positively_and_alike():
    speeds = LEKIWI.wheel_speeds(Twist(0, 0, 1.0)) * LEKIWI.wheel_radius_m
    assert speeds == pytest.approx([0.125] * 3)


def test_lekiwis_wheels_stand_front_left_rear_and_front_right():
    mounts = [(math.cos(a - math.pi / 2), math.sin(a - math.pi / 2)) for a in LEKIWI.wheel_angles_rad]
    assert mounts[LEFT] == pytest.approx((0.5, math.sqrt(3) / 2))
    assert mounts[REAR] == pytest.approx((-1, 0), abs=1e-12)
    assert mounts[RIGHT] == pytest.approx((0.5, -math.sqrt(3) / 2))


def test_the_matrices_have_their_shapes_and_undo_one_another():
    four = OmniKinematics(tuple(math.tau * k / 4 for k in range(4)), 0.05, 0.2)
    assert four.inverse_matrix.shape == (4, 3)
    assert four.forward_matrix.shape == (3, 4)
    assert np.allclose(four.forward_matrix @ four.inverse_matrix, np.eye(3))
    assert np.array(four.wheel_matrix) == pytest.approx(four.inverse_matrix)


def test_disagreeing_wheels_give_the_least_squares_twist():
    four = OmniKinematics(tuple(math.tau * k / 4 for k in range(4)), 0.05, 0.2)
    slipping = np.array([1.0, -1.0, 1.0, -1.0])  # orthogonal to every motion of the base
    assert four.twist(four.wheel_speeds(Twist(0.1, 0.2, 0.3)) + slipping).vy == pytest.approx(0.2)


@pytest.mark.parametrize(
    "wrong",
    [
        ((0.0, 2.0), 0.05, 0.1),
        ((0.0, math.pi, 0.0), 0.05, 0.1),
        ((0.0, 2.0, math.nan), 0.05, 0.1),
        ((0.0, 2.0, 4.0), 0.0, 0.1),
        ((0.0, 2.0, 4.0), 0.05, math.inf),
    ],
)
def test_bases_that_cannot_work_are_refused(wrong):
    with pytest.raises(ConfigError):
        OmniKinematics(*wrong)


def test_another_number_of_wheel_speeds_is_refused():
    with pytest.raises(ValueError, match="3 wheels"):
        LEKIWI.twist([1.0, 2.0])


sizes = st.floats(0.02, 0.5)
mecanum_bases = st.builds(MecanumKinematics, sizes, sizes, sizes)


@given(mecanum_bases, twists)
def test_mecanum_gives_the_twist_back(base, twist):
    back = base.twist(base.wheel_speeds(twist))
    assert np.allclose([back.vx, back.vy, back.wz], [twist.vx, twist.vy, twist.wz], atol=1e-9)


@given(mecanum_bases, twists)
def test_a_mecanum_wheel_does_not_slip_along_the_axis_of_its_roller(base, twist):
    """At the floor the axes of the rollers lie at -45, 45, 45, -45 degrees when they form an X seen from above."""
    x, y = base.half_length_m, base.half_width_m
    places, axes = [(x, y), (x, -y), (-x, y), (-x, -y)], [-45, 45, 45, -45]
    for (px, py), axis, speed in zip(places, axes, base.wheel_speeds(twist), strict=True):
        along = math.cos(math.radians(axis)), math.sin(math.radians(axis))
        contact = (twist.vx - twist.wz * py, twist.vy + twist.wz * px)
        surface = speed * base.wheel_radius_m
        assert contact[0] * along[0] + contact[1] * along[1] == pytest.approx(surface * along[0], abs=1e-9)


def test_mecanum_wheels_turn_as_everyone_knows():
    base = MecanumKinematics(0.05, 0.1, 0.15)
    assert np.sign(base.wheel_speeds(Twist(1, 0, 0))).tolist() == [1, 1, 1, 1]
    assert np.sign(base.wheel_speeds(Twist(0, 1, 0))).tolist() == [-1, 1, 1, -1]
    assert np.sign(base.wheel_speeds(Twist(0, 0, 1))).tolist() == [-1, 1, -1, 1]
    assert base.wheel_speeds(Twist(0, 0, 1)) == pytest.approx([-5, 5, -5, 5])
    assert base.wheels == 4


def test_lekiwi_is_an_omni3():
    assert omni3(0.05, 0.125) == LEKIWI
    assert LEKIWI.wheel_angles_rad == tuple(math.radians(degrees - 90) for degrees in (240, 0, 120))


def test_omni4_stands_on_its_diagonals():
    base = omni4(0.05, 0.2)
    mounts = [math.degrees(angle) - 90 for angle in base.wheel_angles_rad]
    assert mounts == pytest.approx([45, -45, 135, -135])
    ahead = math.sqrt(0.5) / 0.05
    assert base.wheel_speeds(Twist(1, 0, 0)) == pytest.approx([-ahead, ahead, -ahead, ahead])
    assert base.wheel_speeds(Twist(0, 0, 1)) == pytest.approx([4, 4, 4, 4])


@given(bases(), twists, st.floats(0.1, 100))
def test_slowed_wheels_keep_the_direction_and_the_limit(base, twist, limit):
    wanted = base.wheel_speeds(twist)
    slowed = no_faster_than(limit, wanted)
    assert np.abs(slowed).max() <= limit * (1 + 1e-12)
    factor = np.abs(slowed).max() / np.abs(wanted).max() if wanted.any() else 1.0
    assert np.allclose(slowed, wanted * factor)
    assert factor == pytest.approx(1.0) or np.abs(slowed).max() == pytest.approx(limit)


@pytest.mark.parametrize("wrong", [(0.0, 0.1, 0.1), (0.05, -0.1, 0.1), (0.05, 0.1, math.nan)])
def test_mecanum_bases_that_cannot_work_are_refused(wrong):
    with pytest.raises(ConfigError):
        MecanumKinematics(*wrong)
