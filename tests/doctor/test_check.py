from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.doctor.check import Check, Problem, State, checked, driving_fails, lines_in, serious

PROBLEMS = st.lists(
    st.builds(Problem, st.sampled_from(State), st.text(min_size=1), st.lists(st.text(min_size=1)).map(tuple))
)


@given(PROBLEMS, st.text())
def test_a_row_is_as_bad_as_its_worst_problem_and_keeps_every_repair_once(problems, facts):
    check = checked("name", facts, problems)
    order = list(State)
    assert all(order.index(check.state) >= order.index(problem.state) for problem in problems)
    assert check.state in {State.OK, *(problem.state for problem in problems)}
    assert len(set(check.repairs)) == len(check.repairs)
    assert set(check.repairs) == {line for problem in problems for line in problem.repairs}
    assert all(problem.sentence in check.found for problem in problems)
    assert facts in check.found


@given(st.lists(st.sampled_from(State)))
def test_driving_fails_where_one_check_does(states):
    checks = [Check(f"{number}", state, "found") for number, state in enumerate(states)]
    assert driving_fails(checks) == (State.FAIL in states)


def test_what_is_not_needed_is_no_failure():
    assert (serious(True), serious(False)) == (State.FAIL, State.NOT_NEEDED)


def test_remedies_are_taken_from_our_own_errors():
    said = "can0 is down: bring it up with `sudo ip link set can0 up type can bitrate 500000` (its own bit rate)"
    assert lines_in(said) == ("sudo ip link set can0 up type can bitrate 500000",)
    assert lines_in("the answer was `ok`") == ()
