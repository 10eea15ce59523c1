import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.core import ConfigError
from mobile_vla.robot.cameras.faults import KINDS, Fault, Faults

times = st.floats(0, 100)
faults = st.builds(Fault, st.sampled_from(KINDS), times, st.none() | st.floats(0.01, 50))


@given(st.lists(faults), times)
def test_at_any_time_hold_just_the_faults_whose_time_it_is(scheduled, time_s):
    holding = Faults(tuple(scheduled)).at(time_s)
    assert set(holding) == {fault.kind for fault in scheduled if fault.holds_at(time_s)}
    for kind, fault in holding.items():
        assert fault.after_s == max(f.after_s for f in scheduled if f.kind == kind and f.holds_at(time_s))


@given(st.lists(faults), st.sampled_from(KINDS), times, times)
def test_ending_a_kind_ends_what_began_before_and_nothing_else(scheduled, kind, ended_s, time_s):
    both = Faults(tuple(scheduled))
    both.end(kind, ended_s)
    left = [fault for fault in scheduled if fault.kind != kind or fault.after_s >= ended_s]
    assert set(both.at(time_s)) == set(Faults(tuple(left)).at(time_s))


def test_what_was_begun_and_ended_can_be_forgotten():
    some = Faults((Fault("freeze", 5.0),))
    some.begin(Fault("black", 1.0))
    some.end("freeze", 9.0)
    assert set(some.at(10.0)) == {"black"}
    some.forget_begun()
    assert set(some.at(10.0)) == {"freeze"}


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"kind": "explode"}, "no fault 'explode'; known are freeze"),
        ({"kind": "freeze", "after_s": -1.0}, "after_s"),
        ({"kind": "freeze", "after_s": math.nan}, "after_s"),
        ({"kind": "freeze", "for_s": 0.0}, "for_s"),
        ({"kind": "drop", "share": 0.0}, "share"),
        ({"kind": "drop", "share": 1.1}, "share"),
        ({"kind": "stutter", "hold_s": math.inf}, "hold_s"),
    ],
)
def test_faults_that_cannot_be_are_refused(wrong, sentence):
    with pytest.raises(ConfigError, match=sentence):
        Fault(**wrong)
