import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.core import NS_PER_S, Twist
from mobile_vla.robot.bases.lag import Lag

twists = st.builds(Twist, *[st.floats(-1, 1)] * 3)


def ns(seconds):
    return round(seconds * NS_PER_S)


@given(twists, st.floats(0.02, 1), st.floats(0.001, 3))
def test_it_follows_an_exponential(twist, lag_s, seconds):
    lag = Lag(lag_s, 0)
    lag.want(twist, 0, ns(1000))
    lag.play(ns(seconds))
    share = 1 - math.exp(-ns(seconds) / NS_PER_S / lag_s)
    moving = lag.velocity
    assert (moving.vx, moving.vy, moving.wz) == pytest.approx((twist.vx * share, twist.vy * share, twist.wz * share))


@given(twists, st.lists(st.floats(0, 0.5), max_size=10))
def test_velocity_does_not_depend_on_how_often_it_is_asked(twist, pauses):
    often, once = Lag(0.2, 0), Lag(0.2, 0)
    for lag in (often, once):
        lag.want(twist, 0, ns(0.7))
    now = 0
    for pause in pauses:
        now += ns(pause)
        often.play(now)
    once.play(now)
    assert often.velocity.vx == pytest.approx(once.velocity.vx, abs=1e-9)
    assert often.pose.x == pytest.approx(once.pose.x, abs=5e-3)


@given(st.floats(-1, 1), st.floats(0.02, 0.5), st.floats(0.1, 3))
def test_driven_until_it_stands_it_went_as_far_as_was_asked(speed, lag_s, seconds):
    """The lag takes at the beginning what it gives at the end: calibration counts on that."""
    lag = Lag(lag_s, 0)
    lag.want(Twist(speed, 0, 0), 0, ns(seconds))
    lag.play(ns(seconds + 20 * lag_s))
    assert lag.pose.x == pytest.approx(speed * seconds, abs=1e-6)


def test_after_its_time_nothing_is_wanted_and_time_does_not_run_back():
    lag = Lag(0.1, 0)
    lag.want(Twist(1, 0, 0), 0, ns(0.5))
    lag.play(ns(5))
    rest, pose = lag.velocity, lag.pose
    assert rest.vx == pytest.approx(0, abs=1e-9)
    lag.play(ns(1))
    assert (lag.velocity, lag.pose) == (rest, pose)
