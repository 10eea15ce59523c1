import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobile_vla.core import NS_PER_S, ZERO_TWIST, Twist
from mobile_vla.safety import Clearance, ClearanceConfig, Inputs, Limits, Reason, SafetyConfig, SafetyState, Supervisor
from mobile_vla.safety.clearance import PATH_STEP_M, Room, free_way

from .driver import Driver

RADIUS_M = 0.2
AHEAD = Twist(0.6, 0.0, 0.0)


def seen(*points, stamp_ns=0):
    """A reading of points given as x + iy in metres."""
    array = np.array(points, dtype=complex)
    return Clearance(np.angle(array), np.abs(array), stamp_ns)


@pytest.mark.parametrize(
    ("twist", "point", "horizon_m", "free_m"),
    [
        (AHEAD, 1.01, 2.0, 0.80),
        (AHEAD, 1.01, 0.82, 0.80),
        (AHEAD, 1.01, 0.80, math.inf),
        (AHEAD, 1.0 + 0.19j, 2.0, 0.92),
        (AHEAD, 1.0 - 0.19j, 2.0, 0.92),
        (AHEAD, 1.0 - 0.19j, 0.92, math.inf),
        (AHEAD, 1.0 + 0.201j, 2.0, math.inf),
        (AHEAD, -1.0, 2.0, math.inf),
        (AHEAD, 0.15, 2.0, 0.0),
        (AHEAD, -0.15, 2.0, math.inf),
        (AHEAD, 0.05 + 0.1j, 2.0, 0.0),
        (AHEAD, 0.21, 2.0, 0.0),
        (AHEAD, 0.23, 2.0, 0.02),
        (Twist(0.01, 0.0, 0.0), 1.01, 2.0, 0.80),
        (Twist(-0.3, 0.0, 0.0), -0.51, 2.0, 0.30),
        (Twist(0.3, 0.4, 0.0), 0.606 + 0.808j, 2.0, 0.80),
        (Twist(0.3, -0.4, 0.0), 0.606 + 0.808j, 2.0, math.inf),
        # on a circle of 0.3 m to the left, a point at a quarter of it is met 2 asin(1/3) before: at 0.267 m
        (Twist(0.3, 0.0, 1.0), 0.3 + 0.3j, 1.0, 0.26),
        (Twist(0.3, 0.0, -1.0), 0.3 - 0.3j, 1.0, 0.26),
        (Twist(0.3, 0.0, -1.0), 0.3 + 0.3j, 1.0, math.inf),
        # what is left behind, even from within the hull, is met again on the way round
        (Twist(0.125, 0.0, 1.0), -0.15, 1.0, 0.50),
        (Twist(1e-6, 0.0, 1.5), 0.21 + 0.0j, 0.1, math.inf),
    ],
)
def test_the_free_way_ends_where_the_hull_touches_rounded_down(twist, point, horizon_m, free_m):
    assert free_way(seen(point), twist, RADIUS_M, horizon_m) == pytest.approx(free_m, abs=1e-9)


def test_the_nearest_of_many_ends_the_way():
    assert free_way(seen(1.51, 1.01 + 0.01j, -0.3, 1.31), AHEAD, RADIUS_M, 2.0) == pytest.approx(0.8)


@pytest.mark.parametrize("range_m", [math.inf, -math.inf, math.nan, 0.0, -0.5])
@pytest.mark.parametrize("twist", [AHEAD, Twist(-0.6, 0.0, 0.0), Twist(0.125, 0.0, 1.0)])
def test_what_is_no_return_is_not_in_the_way(range_m, twist):
    assert free_way(Clearance(np.zeros(1), np.array([range_m]), 0), twist, RADIUS_M, 2.0) == math.inf


coordinates = st.floats(-1.5, 1.5)
outside = st.builds(complex, coordinates, coordinates).filter(lambda point: abs(point) > RADIUS_M + 0.01)
points = st.lists(outside, min_size=1, max_size=6)
moving = st.builds(Twist, st.floats(0.05, 0.6), st.floats(-0.5, 0.5), st.floats(-1.5, 1.5))


def touched_after(points, twist, radius_m, horizon_m):
    """By walking in steps of a millimetre: a second way to compute it."""
    step_s = 0.001 / math.hypot(twist.vx, twist.vy)
    headings = np.exp(1j * twist.wz * step_s * (np.arange(math.ceil(horizon_m / 0.001)) + 0.5))
    path = np.concatenate([[0], np.cumsum(complex(twist.vx, twist.vy) * step_s * headings)])
    distances = np.abs(np.array(points) - path[:, np.newaxis])
    touches = np.flatnonzero(((distances[1:] < radius_m) & (np.diff(distances, axis=0) < 0)).any(axis=1))
    return 0.001 * touches[0] if touches.size else horizon_m


@given(points, moving)
def test_the_free_way_is_what_walking_it_gives(points, twist):
    free_m = min(free_way(seen(*points), twist, RADIUS_M, 1.0), 1.0)
    assert free_m >= touched_after(points, twist, RADIUS_M + 0.001, 1.02) - PATH_STEP_M - 0.002
    assert free_m <= touched_after(points, twist, RADIUS_M - 0.001, 1.0) + 0.002


ROOM = Room(ClearanceConfig(RADIUS_M, 0.1), Limits())


@pytest.mark.parametrize("age_s", [0.0, 0.2])
@pytest.mark.parametrize("free_m", [0.28, 0.20, 0.10, 0.02])
def test_the_share_lets_the_robot_ramp_to_rest_in_what_is_free(free_m, age_s):
    wall = RADIUS_M + 0.1 + free_m + 0.01
    speed = 0.6 * ROOM.share(seen(wall), AHEAD, age_s)
    assert speed == pytest.approx(0.6 * ROOM.share(seen(wall * 1j), Twist(0.0, 0.6, 0.0), age_s))
    assert speed * (0.3 + age_s) + speed**2 / (2 * 1.5) == pytest.approx(free_m)


@pytest.mark.parametrize(
    ("free_m", "age_s", "share"), [(0.30, 0.0, 1), (0.42, 0.2, 1), (0.00, 0.0, 0), (-0.02, 0.0, 0), (-0.09, 0.0, 0)]
)
def test_the_share_is_all_where_there_is_room_and_nothing_where_there_is_none(free_m, age_s, share):
    assert ROOM.share(seen(RADIUS_M + 0.1 + free_m + 0.01), AHEAD, age_s) == share


def test_with_weaker_wheels_or_a_slow_turn_to_end_the_way_to_rest_is_longer():
    weak = Limits(wheel_matrix=((10.0, 0.0, 0.0),), wheel_speed=(9.0,), wheel_acceleration=(5.0,))
    speed = 0.6 * Room(ROOM.config, weak).share(seen(0.51), AHEAD, 0.0)
    assert speed * 0.3 + speed**2 / (2 * 0.5) == pytest.approx(0.2)  # 5 rad/s^2 of the wheel are 0.5 m/s^2
    slow_turn = Room(ROOM.config, Limits(acceleration=(1.5, 1.5, 0.1)))
    clearance, arc = seen(0.36), Twist(0.2, 0.0, 0.2)
    assert (ROOM.share(clearance, arc, 0.0) < 1, slow_turn.share(clearance, arc, 0.0) < 0.5) == (True, True)


def test_turning_on_the_spot_is_always_allowed():
    assert ROOM.share(seen(0.1, 0.1j, -0.1), Twist(0.0, 0.0, 1.5), 0.4) == 1.0


def test_a_reading_needs_one_range_an_angle_and_finite_angles():
    with pytest.raises(
        ValueError, match=r"^a Clearance needs angles and ranges of one shape \(n,\), got \(2,\) and \(3,\)$"
    ):
        Clearance(np.zeros(2), np.zeros(3), 0)
    with pytest.raises(ValueError, match=r"got \(2, 2\) and \(2, 2\)$"):
        Clearance(np.zeros((2, 2)), np.zeros((2, 2)), 0)
    with pytest.raises(
        ValueError, match=r"^a Clearance needs finite angles; give a beam without a return the range inf$"
    ):
        Clearance(np.array([0.0, math.nan]), np.zeros(2), 0)


def test_a_scan_is_seen_from_the_base():
    ranges = np.array([1.0, 2.0, 0.05, 9.0, math.nan, math.inf, 3.0], dtype=np.float32)
    quarter = math.pi / 2
    scan = Clearance.from_scan(
        -quarter, quarter, ranges, 42, range_min_m=0.1, range_max_m=8.0, mount=(0.1, 0.2, quarter)
    )
    # beams 0, 1 and 6 return: towards 0, pi/2 and 3 pi in the base, from the sensor's place
    places = scan.ranges_m * np.exp(1j * scan.angles_rad)
    assert places == pytest.approx([1.1 + 0.2j, 0.1 + 2.2j, -2.9 + 0.2j])
    assert scan.stamp_ns == 42
    plain = Clearance.from_scan(0.5, 0.25, np.array([0.0, 0.01, 2.0, -1.0]), 7)
    assert plain.angles_rad == pytest.approx([0.75, 1.0])
    assert plain.ranges_m == pytest.approx([0.01, 2.0])
    edges = Clearance.from_scan(0.0, 0.1, np.array([0.5, 0.75, 1.0]), 7, range_min_m=0.5, range_max_m=1.0)
    assert edges.ranges_m == pytest.approx([0.5, 0.75, 1.0])


def watched(**more):
    return Driver(clearance=ClearanceConfig(RADIUS_M, 0.1), **more)


FREE, WALL, NEAR = seen(5.0), seen(0.51), seen(0.25)


def test_far_from_everything_it_drives_as_without_a_range_sensor():
    with_sensor, without = watched(), Driver()
    assert with_sensor.steps(15, clearance=FREE) == without.steps(15)
    assert without.steps(5, clearance=NEAR)[-1].twist.vx == pytest.approx(0.5)  # not configured, so not heeded


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"clearance": None}, "there is no reading of the range sensor yet"),
        (
            {"clearance": FREE, "range_age_ns": NS_PER_S // 2 + 1},
            "the newest reading of the range sensor is 0.500 s old, more than 0.500 s",
        ),
        ({"clearance": FREE, "range_age_ns": -NS_PER_S}, "the newest reading of the range sensor is stamped 1.000 s"),
    ],
)
def test_without_a_reading_to_trust_it_holds(how, says):
    driver = watched(defaults={"clearance": FREE})
    driver.run()
    assert driver.step(range_age_ns=NS_PER_S // 2).state is SafetyState.RUNNING
    safe = driver.step(**how)
    assert (safe.state, safe.reason) == (SafetyState.HOLDING, Reason.RANGE_TOO_OLD)
    assert safe.sentence.startswith(says)
    assert driver.step(idle=True, **how).reason is Reason.IDLE
    assert driver.steps(3)[-1].state is SafetyState.RUNNING


def test_near_something_it_drives_slower_along_the_same_line():
    driver = watched(defaults={"clearance": FREE})
    driver.steps(15, Twist(0.6, 0.0, 0.3))
    safe = driver.steps(15, Twist(0.6, 0.0, 0.3), clearance=WALL)[-1]
    assert (safe.state, safe.reason) == (SafetyState.RUNNING, Reason.DRIVING)
    assert 0.2 < safe.twist.vx < 0.5
    assert safe.twist.wz == pytest.approx(safe.twist.vx / 2)
    oblique = driver.steps(15, Twist(0.5, 0.1, 0.05), clearance=WALL)[-1].twist
    assert oblique.vx < 0.48
    assert (oblique.vy, oblique.wz) == pytest.approx((oblique.vx / 5, oblique.vx / 10))
    assert safe.sentence == f"driving at {safe.twist.vx / 0.6:.0%}: something is near"
    fast = driver.steps(15, Twist(60.0, 0.0, 30.0), clearance=WALL)[-1]
    assert fast.twist.vx == pytest.approx(safe.twist.vx)
    older = driver.steps(15, Twist(0.6, 0.0, 0.3), clearance=WALL, range_age_ns=NS_PER_S // 5)[-1]
    assert older.twist.vx < safe.twist.vx - 0.05


def test_before_something_near_it_holds_but_may_turn_and_leave():
    driver = watched(defaults={"clearance": FREE})
    driver.run()
    held = driver.steps(7, clearance=NEAR)
    assert {(safe.state, safe.reason) for safe in held} == {(SafetyState.HOLDING, Reason.OBSTACLE)}
    assert held[0].sentence == "something is in the way, too near to drive on"
    assert held[0].twist.vx > held[-1].twist.vx == 0
    assert driver.steps(3, Twist(0.0, 0.0, 1.0), clearance=NEAR)[-1].twist.wz > 0
    driver.steps(15, ZERO_TWIST, clearance=NEAR)
    assert driver.step(Twist(-0.3, 0.0, 0.0), clearance=NEAR).twist.vx < 0
    driver.steps(15, ZERO_TWIST, clearance=NEAR)
    assert driver.step(clearance=NEAR).reason is Reason.OBSTACLE
    assert driver.steps(3, clearance=FREE)[-1].twist.vx > 0


def test_it_first_ends_the_motion_towards_what_is_near_before_it_goes_elsewhere():
    driver = watched(defaults={"clearance": FREE})
    driver.run()
    aside = Twist(0.0, 0.5, 0.0)
    steps = driver.steps(9, aside, clearance=NEAR)
    still = [safe.twist == ZERO_TWIST for safe in steps].index(True)
    assert {safe.reason for safe in steps[: still + 1]} == {Reason.OBSTACLE}
    assert {safe.twist.vy for safe in steps[:still]} == {0.0}
    assert steps[still + 3].twist.vy > 0


def test_something_in_the_way_for_long_is_a_protective_stop():
    driver = watched(defaults={"clearance": FREE})
    driver.run()
    assert driver.steps(21, clearance=NEAR)[-1].reason is Reason.HELD_TOO_LONG


def test_the_distance_is_kept_with_the_limits_of_this_base():
    gentle = Limits(acceleration=(0.4, 0.4, 1.0), braking=(1.0, 1.0, 2.0))
    config = ClearanceConfig(RADIUS_M, 0.1)
    slow, quick = Driver(gentle, clearance=config), Driver(clearance=config)
    assert slow.steps(40, AHEAD, clearance=WALL)[-1].twist.vx < quick.steps(40, AHEAD, clearance=WALL)[-1].twist.vx


walls = st.tuples(st.builds(complex, st.floats(-2, 2), st.floats(-2, 2)), st.floats(0, math.pi), st.floats(0, 3))
wishes = st.lists(
    st.tuples(st.builds(Twist, *[st.floats(-1, 1)] * 2, st.floats(-2, 2)), st.integers(3, 40)), max_size=8
)


@settings(max_examples=25)
@given(st.lists(walls, min_size=1, max_size=5), wishes)
def test_whatever_is_asked_the_hull_touches_nothing_that_stands_still_and_is_seen(walls, wishes):
    """An ideal base at 20 Hz, whose readings are a step old."""
    pieces = [start + np.exp(1j * heading) * np.arange(0, length + 0.01, 0.02) for start, heading, length in walls]
    world = np.concatenate([[9.0], *(piece for piece in pieces if np.abs(piece).min() > RADIUS_M + 0.15)])
    config = SafetyConfig(clearance=ClearanceConfig(RADIUS_M, 0.1), period_s=0.05, hold_limit_s=1e6)
    supervisor = Supervisor(config=config)
    place, heading, now_ns, step_ns = 0j, 0.0, 0, NS_PER_S // 20
    reading = seen(*world)
    for wish in [wish for wish, steps in wishes for _ in range(steps)]:
        now_ns += step_ns
        safe = supervisor.step(now_ns, Inputs(wish, now_ns, clearance=reading))
        reading = seen(*((world - place) * np.exp(-1j * heading)), stamp_ns=now_ns)
        for _ in range(5):
            heading += safe.twist.wz * 0.005
            place += complex(safe.twist.vx, safe.twist.vy) * np.exp(1j * heading) * 0.01
            heading += safe.twist.wz * 0.005
            assert np.abs(world - place).min() > RADIUS_M
