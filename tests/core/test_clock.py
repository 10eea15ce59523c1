import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.core import NS_PER_S, ManualClock, MonotonicClock

durations = st.lists(st.integers(0, 10 * NS_PER_S), max_size=20)


@given(durations)
def test_a_manual_clock_is_where_it_was_moved_to(steps):
    clock = ManualClock(now_ns=5)
    for step in steps:
        clock.advance(step)
    assert clock.now_ns() == 5 + sum(steps)


@given(st.integers(0, NS_PER_S), st.integers(0, NS_PER_S))
def test_sleeping_never_goes_back(now_ns, until_ns):
    clock = ManualClock(now_ns=now_ns)
    clock.sleep_until(until_ns)
    assert clock.now_ns() == max(now_ns, until_ns)


def test_a_manual_clock_refuses_to_go_back():
    with pytest.raises(ValueError, match="go back by 3 ns"):
        ManualClock().advance(-3)


def test_the_monotonic_clock_sleeps_until_the_time_has_come():
    clock = MonotonicClock()
    due_ns = clock.now_ns() + 20_000_000
    clock.sleep_until(due_ns)
    woken_ns = clock.now_ns()
    assert woken_ns >= due_ns
    clock.sleep_until(due_ns)
    assert clock.now_ns() - woken_ns < NS_PER_S


def test_clocks_have_different_names():
    assert MonotonicClock().name != ManualClock().name == "simulation"
