import itertools
import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.core import ZERO_TWIST, ConfigError, Twist
from mobile_vla.robot import LEKIWI
from mobile_vla.safety import SHORTEST_STEP_S, Envelope, Limits

ROUNDING = 1 + 1e-9
TINY = 1e-9

DEFAULT = Limits()
WHEELED = Limits(
    wheel_matrix=LEKIWI.wheel_matrix,
    wheel_speed=(9.0, 10.0, 9.5),
    wheel_acceleration=(20.0, 25.0, 22.0),
    wheel_braking=(40.0, 45.0, 50.0),
)
SOFT = Limits(acceleration=(0.5, 0.4, 1.0), jerk=(1.0, 2.0, 3.0), braking=(0.9, 0.8, 2.0))

positive = st.floats(0.5, 3.0)
triples = st.tuples(positive, positive, positive)
jerks = st.tuples(*[st.floats(3, 50)] * 3)


@st.composite
def any_limits(draw):
    acceleration = draw(triples)
    wheels = draw(st.integers(0, 4))
    rows = tuple(draw(st.tuples(*[st.floats(-30, 30)] * 3)) for _ in range(wheels))
    wheel_acceleration = tuple(draw(positive) for _ in range(wheels))
    return Limits(
        speed=draw(triples),
        planar_speed=draw(positive),
        acceleration=acceleration,
        jerk=draw(jerks),
        braking=tuple(a * draw(st.floats(1, 5)) for a in acceleration),
        wheel_matrix=rows,
        wheel_speed=tuple(draw(positive) for _ in range(wheels)),
        wheel_acceleration=wheel_acceleration,
        wheel_braking=tuple(a * draw(st.floats(1, 5)) for a in wheel_acceleration),
    )


limits_of_any_kind = st.one_of(st.sampled_from([DEFAULT, WHEELED, SOFT]), any_limits())
axis = st.one_of(st.floats(-3, 3), st.sampled_from([0.0, 1e300, -1e300, 5e-324, math.nan, math.inf, -math.inf]))
twists = st.builds(Twist, axis, axis, axis)
finite_twists = st.builds(Twist, *[st.floats(-3, 3)] * 3)
steps_of = st.floats(0.001, 0.2)
slow_steps = st.floats(0.05, 0.2)
commands = st.lists(st.tuples(st.one_of(st.none(), twists, finite_twists), steps_of), max_size=40)


def array(twist):
    return np.array([twist.vx, twist.vy, twist.wz])


def require_within_speed(limits, twist):
    assert np.all(np.abs(array(twist)) <= np.array(limits.speed) * ROUNDING)
    assert math.hypot(twist.vx, twist.vy) <= limits.planar_speed * ROUNDING
    assert np.all(np.abs(limits.wheel_speeds(twist)) <= np.array(limits.wheel_speed) * ROUNDING + TINY)


def stops(command):
    return command is None or not all(map(math.isfinite, (command.vx, command.vy, command.wz)))


@given(limits_of_any_kind, commands)
def test_no_sequence_of_commands_breaks_a_limit(limits, sequence):
    envelope = Envelope(limits)
    before, before_acceleration, before_dt = ZERO_TWIST, np.zeros(3), None
    for command, dt in sequence:
        now = envelope.step(command, dt)
        require_within_speed(limits, now)
        acceleration = (array(now) - array(before)) / dt
        wheel = (np.array(limits.wheel_speeds(now)) - np.array(limits.wheel_speeds(before))) / dt
        braking = stops(command)
        slack = TINY / dt
        assert np.all(np.abs(acceleration) <= np.array(limits.braking if braking else limits.acceleration) + slack)
        caps = limits.wheel_braking if braking else limits.wheel_acceleration
        assert np.all(np.abs(wheel) <= np.array(caps) + slack * 100)
        if not braking and before_dt is not None:
            jerk = (acceleration - before_acceleration) / ((dt + before_dt) / 2)
            assert np.all(np.abs(jerk) <= np.array(limits.jerk) + TINY / dt**2)
        before, before_dt = now, dt
        before_acceleration = np.zeros(3) if braking else acceleration


@given(limits_of_any_kind, finite_twists, st.floats(0.2, 100.0))
def test_a_loop_that_slept_does_not_jump(limits, command, dt):
    envelope = Envelope(limits)
    velocity = envelope.step(command, dt)
    assert np.all(np.abs(array(velocity)) <= np.array(limits.acceleration) * limits.longest_step_s * ROUNDING)


@given(limits_of_any_kind, commands, slow_steps)
def test_commanded_zero_is_reached_in_the_documented_time(limits, sequence, dt):
    envelope = Envelope(limits)
    for command, step_s in sequence:
        envelope.step(command, step_s)
    for _ in range(math.floor(limits.ramp_time_s / dt * ROUNDING) + 2):
        envelope.step(ZERO_TWIST, dt)
    assert envelope.velocity == ZERO_TWIST


@given(limits_of_any_kind, commands, st.floats(0.02, 5))
def test_a_stop_is_done_in_the_documented_time_and_keeps_the_direction(limits, sequence, dt):
    envelope = Envelope(limits)
    for command, step_s in sequence:
        envelope.step(command, step_s)
    began = array(envelope.velocity)
    for _ in range(math.floor(limits.stop_time_s / dt * ROUNDING) + 1):
        before = array(envelope.velocity)
        now = array(envelope.step(None, dt))
        assert np.all(np.abs(now) <= np.abs(before))
        assert np.allclose(np.cross(now, began), 0, atol=TINY)
    assert envelope.velocity == ZERO_TWIST


def test_a_stop_is_no_slower_than_braking_allows():
    envelope = Envelope(DEFAULT)
    for _ in range(20):
        envelope.step(Twist(0.6, 0, 0), 0.1)
    assert envelope.velocity.vx == pytest.approx(0.6)
    assert envelope.step(None, 0.1).vx == pytest.approx(0.3)
    assert envelope.step(None, 0.1) == ZERO_TWIST


@given(limits_of_any_kind, finite_twists, st.lists(steps_of, min_size=1, max_size=30))
def test_from_rest_a_steady_command_is_approached_in_its_direction_without_overshoot(limits, command, steps):
    envelope = Envelope(limits)
    fitted = array(limits.fit(command))
    shares = [0.0]
    for dt in steps:
        velocity = array(envelope.step(command, dt))
        size = float(fitted @ fitted)
        share = float(velocity @ fitted) / size if size > TINY**2 else 0.0
        assert np.allclose(velocity, share * fitted, atol=TINY)
        shares.append(share)
    assert all(0 <= a <= b + TINY <= 1 + 2 * TINY for a, b in itertools.pairwise(shares))


@given(limits_of_any_kind, finite_twists, slow_steps)
def test_a_steady_command_is_reached(limits, command, dt):
    envelope = Envelope(limits)
    for _ in range(math.floor(limits.ramp_time_s / dt * ROUNDING) + 2):
        envelope.step(command, dt)
    assert np.allclose(array(envelope.velocity), array(limits.fit(command)), atol=TINY)


@given(limits_of_any_kind, finite_twists)
def test_fit_keeps_the_direction_and_leaves_what_is_allowed(limits, command):
    fitted = limits.fit(command)
    require_within_speed(limits, fitted)
    assert np.allclose(np.cross(array(fitted), array(command)), 0, atol=TINY)
    assert float(array(fitted) @ array(command)) >= 0
    again = limits.fit(fitted)
    assert np.allclose(array(again), array(fitted), rtol=1e-9, atol=TINY)
    slower = Twist(*(array(fitted) * 0.9))
    assert limits.fit(slower) == slower


def test_planar_speed_and_wheels_bind_where_no_axis_does():
    assert array(DEFAULT.fit(Twist(0.6, 0.6, 0.5))) == pytest.approx(np.array([0.6, 0.6, 0.5]) / 2**0.5)
    limits = Limits(wheel_matrix=((0.0, 0.0, 2.0),), wheel_speed=(1.0,), wheel_acceleration=(1.0,))
    assert array(limits.fit(Twist(0.2, 0, 1.0))) == pytest.approx([0.1, 0, 0.5])
    assert limits.wheel_braking == (1.0,)


@pytest.mark.parametrize("command", [Twist(math.nan, 0, 0), Twist(0, math.inf, 0), Twist(0, 0, -math.inf)])
def test_a_command_that_is_not_finite_stops(command):
    envelope, twin = Envelope(DEFAULT), Envelope(DEFAULT)
    for _ in range(10):
        envelope.step(Twist(0.5, 0.1, 0.3), 0.1)
        twin.step(Twist(0.5, 0.1, 0.3), 0.1)
    assert envelope.step(command, 0.05) == twin.step(None, 0.05)


@pytest.mark.parametrize("dt", [0.0, -0.1, math.nan, math.inf, SHORTEST_STEP_S / 2])
def test_a_step_without_a_sensible_duration_is_refused(dt):
    with pytest.raises(ValueError, match=rf"^a step of {dt} s: it needs to be finite and at least 0.0001 s$"):
        Envelope(DEFAULT).step(ZERO_TWIST, dt)


def test_the_shortest_step_is_taken():
    assert Envelope(DEFAULT).step(Twist(0.5, 0, 0), SHORTEST_STEP_S).vx > 0


def test_the_start_of_a_ramp_is_the_one_that_the_limits_allow():
    envelope = Envelope(Limits(wheel_matrix=((2.0, 0, 0),), wheel_speed=(1.2,), wheel_acceleration=(3.0,)))
    seconds = [0.01 * step for step in range(1, 60)]
    velocities = [envelope.step(Twist(0.6, 0, 0), 0.01).vx for _ in seconds]
    # acceleration 1.5 m/s^2, averaged over the window of 0.1 s: 7.5 t^2 at first, then a straight line, then the end
    ramp = [
        7.5 * t**2 if t < 0.1 else 1.5 * t - 0.075 if t < 0.4 else 0.6 - 7.5 * max(0, 0.5 - t) ** 2 for t in seconds
    ]
    assert velocities == pytest.approx(ramp, abs=1e-9)


def test_a_long_step_is_cut_only_in_its_effect():
    slept, awake = Envelope(DEFAULT), Envelope(DEFAULT)
    assert slept.step(Twist(0.6, 0, 0), 5.0) == awake.step(Twist(0.6, 0, 0), 0.2)
    for envelope in (slept, awake):
        for _ in range(10):
            envelope.step(Twist(0.6, 0, 0), 0.1)
    assert slept.step(None, 0.15).vx == pytest.approx(0.15)
    assert slept.step(None, 5.0) == ZERO_TWIST


def test_after_a_brake_it_goes_on_from_the_velocity_that_is_left():
    envelope = Envelope(DEFAULT)
    for _ in range(20):
        envelope.step(Twist(0.6, 0, 0), 0.05)
    assert envelope.step(None, 0.05).vx == pytest.approx(0.45)
    assert envelope.step(Twist(0.45, 0, 0), 0.05).vx == pytest.approx(0.45)


def test_it_remembers_no_more_than_its_window():
    envelope = Envelope(DEFAULT)
    for _ in range(20):
        envelope.step(Twist(0.6, 0, 0), 0.05)
    size = len(pickle.dumps(envelope))
    for _ in range(200):
        envelope.step(Twist(0.6, 0, 0), 0.05)
    assert len(pickle.dumps(envelope)) == size
    assert size < 900


def test_the_documented_times():
    assert DEFAULT.window_s == pytest.approx(0.1)
    assert DEFAULT.ramp_time_s == pytest.approx(0.5)
    assert DEFAULT.stop_time_s == pytest.approx(0.2)
    assert WHEELED.ramp_time_s == pytest.approx(0.45 + 0.1)
    assert WHEELED.stop_time_s == pytest.approx(0.225)
    assert SOFT.window_s == pytest.approx(1.0)
    assert SOFT.ramp_seconds((0.1, -0.2, 0.3)) == pytest.approx(0.5)
    assert SOFT.stop_seconds(Twist(0.09, 0.08, -0.5)) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"speed": (0.6, 0.0, 1.0)}, "speed needs 3 finite positive numbers, got (0.6, 0.0, 1.0)"),
        ({"speed": (0.6, 0.6)}, "speed needs 3 finite positive numbers, got (0.6, 0.6)"),
        ({"jerk": (math.inf, 1.0, 1.0)}, "jerk needs 3 finite positive numbers, got (inf, 1.0, 1.0)"),
        ({"acceleration": (math.nan, 1.0, 1.0)}, "acceleration needs 3 finite positive numbers, got (nan, 1.0, 1.0)"),
        ({"braking": (4.0, 4.0, -9.0)}, "braking needs 3 finite positive numbers, got (4.0, 4.0, -9.0)"),
        ({"planar_speed": -1.0}, "planar_speed needs 1 finite positive numbers, got (-1.0,)"),
        ({"longest_step_s": 0.0}, "longest_step_s needs 1 finite positive numbers, got (0.0,)"),
        (
            {"longest_step_s": SHORTEST_STEP_S / 2},
            "longest_step_s is 5e-05, shorter than the shortest, 0.0001",
        ),
        (
            {"braking": (1.0, 3.0, 8.0)},
            "braking (1.0, 3.0, 8.0) is weaker than acceleration (1.5, 1.5, 4.0): give at least the same values",
        ),
        ({"wheel_speed": (1.0,)}, "wheel_speed needs 0 finite positive numbers, got (1.0,)"),
        (
            {"wheel_matrix": ((1.0, 0.0, 0.0),), "wheel_speed": (1.0,)},
            "wheel_acceleration needs 1 finite positive numbers, got ()",
        ),
        (
            {"wheel_matrix": ((math.nan, 0.0, 0.0),), "wheel_speed": (1.0,), "wheel_acceleration": (1.0,)},
            "every row of wheel_matrix needs three finite numbers, got ((nan, 0.0, 0.0),)",
        ),
        (
            {"wheel_matrix": ((1.0, 0.0),), "wheel_speed": (1.0,), "wheel_acceleration": (1.0,)},
            "every row of wheel_matrix needs three finite numbers, got ((1.0, 0.0),)",
        ),
        (
            {
                "wheel_matrix": ((1.0, 0.0, 0.0),),
                "wheel_speed": (1.0,),
                "wheel_acceleration": (2.0,),
                "wheel_braking": (1.0,),
            },
            "braking (1.0,) is weaker than acceleration (2.0,): give at least the same values",
        ),
        (
            {
                "wheel_matrix": ((1.0, 0.0, 0.0),),
                "wheel_speed": (1.0,),
                "wheel_acceleration": (2.0,),
                "wheel_braking": (3.0, 3.0),
            },
            "wheel_braking needs 1 finite positive numbers, got (3.0, 3.0)",
        ),
    ],
)
def test_limits_that_make_no_sense_are_refused(wrong, says):
    with pytest.raises(ConfigError) as error:
        Limits(**wrong)
    assert str(error.value) == says


def test_limits_at_the_edge_of_what_makes_sense():
    limits = Limits(braking=(1.5, 1.5, 4.0), longest_step_s=SHORTEST_STEP_S)
    assert (limits.braking, limits.longest_step_s) == (limits.acceleration, SHORTEST_STEP_S)
