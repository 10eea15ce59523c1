import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.doctor.check import State
from mobile_vla.doctor.precedence import LIMITS, Rights, judge_precedence, look_at_precedence
from mobile_vla.runtime.realtime import Precedence, attainable

from .lines import sound
from .purposes import SIMULATED, with_robot

ROBOT = with_robot()


@given(st.builds(Rights, st.sampled_from(Precedence), st.booleans(), st.booleans()))
def test_it_never_keeps_a_robot_from_driving(seen):
    for purpose in (SIMULATED, ROBOT):
        check = judge_precedence(seen, purpose)
        sound(check)
        assert check.state is not State.FAIL
        assert (check.state is State.OK) == (seen.granted is Precedence.REAL_TIME)


@pytest.mark.parametrize(
    ("seen", "state", "said", "repaired"),
    [
        (Rights(Precedence.REAL_TIME, linux=True, root=False), State.OK, "real-time", False),
        (Rights(Precedence.SHORT_SLICE, linux=True, root=False), State.WARN, "short slice, not real-time", True),
        (Rights(Precedence.RAISED, linux=True, root=True), State.WARN, "--cap-add=SYS_NICE", False),
        (Rights(Precedence.ORDINARY, linux=False, root=False), State.WARN, "only Linux", False),
    ],
)
def test_who_may_ask_for_more_is_told_how(seen, state, said, repaired):
    check = judge_precedence(seen, ROBOT)
    assert check.state is state
    assert said in check.found
    assert [LIMITS in line for line in check.repairs] == [True] * repaired
    assert judge_precedence(seen, SIMULATED).state in (State.OK, State.NOT_NEEDED)


def test_this_machine_is_looked_at():
    assert look_at_precedence().granted is attainable()
