import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.core import NS_PER_S, ConfigError
from mobile_vla.runtime.takeover import TRANSITIONS, Hands, Takeover, twist_of
from mobile_vla.safety import Limits
from mobile_vla.teleop import StickState

STEP_NS = NS_PER_S // 10


def stick(stamp_ns, touched=False, connected=True):
    return StickState((1.0, 0.0, 0.0) if touched else (0.0, 0.0, 0.0), touched, frozenset(), stamp_ns, connected)


moments = st.lists(
    st.tuples(
        st.booleans(),  # touched
        st.booleans(),  # connected
        st.integers(0, 10),  # age of the stick's last sign, in steps
        st.booleans(),  # resume is asked for after the step
    ),
    max_size=60,
)


@given(moments)
def test_only_the_transitions_of_the_table_happen_and_the_policy_comes_back_by_resume_alone(moments):
    takeover = Takeover(silent_after_s=0.45)
    for k, (touched, connected, age, resume) in enumerate(moments):
        now_ns = (k + 20) * STEP_NS
        before = takeover.hands
        drives = touched and connected and age * 0.1 <= 0.45
        handover = takeover.step(now_ns, stick(now_ns - age * STEP_NS, touched, connected))
        assert handover.hands is takeover.hands
        assert before is takeover.hands or (before, takeover.hands) in TRANSITIONS
        assert (takeover.hands is Hands.OPERATOR) == drives
        assert (takeover.hands is Hands.POLICY) == (before is Hands.POLICY and not drives)
        assert (handover.let_go is not None) == (before is Hands.OPERATOR and not drives)
        if resume:
            before = takeover.hands
            takeover.resume()
            expected = Hands.POLICY if before is Hands.RELEASED else before
            assert takeover.hands is expected


def test_letting_go_says_how():
    sentences = []
    for state in (stick(0), stick(0, connected=False), stick(-NS_PER_S, touched=True)):
        takeover = Takeover()
        takeover.step(0, stick(0, touched=True))
        sentences.append(takeover.step(0, state).let_go)
    assert sentences == [
        "the stick was let go",
        "the stick went away while it drove",
        "the stick fell silent while it drove, 1.00 s ago",
    ]


def test_resume_while_the_operator_drives_does_nothing():
    takeover = Takeover()
    takeover.step(0, stick(0, touched=True))
    takeover.resume()
    assert takeover.hands is Hands.OPERATOR
    assert takeover.step(STEP_NS, stick(STEP_NS)).hands is Hands.RELEASED


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_an_impossible_limit_of_silence_is_refused(bad):
    with pytest.raises(ConfigError, match="silent_after_s"):
        Takeover(bad)


shares = st.floats(-1, 1)


@given(st.tuples(shares, shares, shares))
def test_shares_are_scaled_by_the_limits_and_never_beyond(values):
    limits = Limits(speed=(0.4, 0.3, 1.0), planar_speed=0.35)
    twist = twist_of(values, limits)
    assert abs(twist.vx) <= 0.4 + 1e-9
    assert abs(twist.vy) <= 0.3 + 1e-9
    assert abs(twist.wz) <= 1.0 + 1e-9
    assert math.hypot(twist.vx, twist.vy) <= 0.35 + 1e-9
    for share, value in zip(values, (twist.vx, twist.vy, twist.wz), strict=True):
        assert share * value >= 0


def test_a_full_push_along_one_axis_is_the_limit_of_that_axis():
    assert twist_of((0.0, 0.0, -1.0), Limits()).wz == -1.5
    assert twist_of((1.0, 0.0, 0.0), Limits()).vx == 0.6
