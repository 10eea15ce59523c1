import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.doctor.check import State
from mobile_vla.doctor.clock import Clocks, judge_clocks, look_at_clocks

from .lines import sound
from .purposes import ELSEWHERE, SIMULATED

NOW_NS = 1_795_000_000_000_000_000  # in 2026
EVEN = tuple((5_000 + 10_000_000 * k, NOW_NS + 10_000_000 * k) for k in range(30))


@given(
    st.builds(
        Clocks,
        st.none() | st.booleans(),
        st.none() | st.floats(0, 20),
        st.lists(st.tuples(st.integers(0, 1 << 50), st.integers(0, 1 << 62)), min_size=1, max_size=5),
    )
)
def test_only_a_monotonic_clock_that_is_none_ends_a_drive(seen):
    for purpose in (SIMULATED, ELSEWHERE):
        check = judge_clocks(seen, purpose)
        sound(check)
        stamps = [stamp for stamp, _ in seen.samples]
        assert (check.state is State.FAIL) == (sorted(set(stamps)) != stamps)


@pytest.mark.parametrize(
    ("seen", "here", "elsewhere", "said"),
    [
        (Clocks(True, 0.02, EVEN), State.OK, State.OK, "kept by the network to 0.02 s"),
        (Clocks(None, None, EVEN), State.OK, State.OK, "2026"),
        (Clocks(False, 16.0, EVEN), State.NOT_NEEDED, State.WARN, "not kept by the network"),
        (
            Clocks(True, 0.02, (*EVEN, (EVEN[-1][0] + 10_000_000, EVEN[-1][1] + 3_010_000_000))),
            State.WARN,
            State.WARN,
            "jumped by 3.00 s",
        ),
        (Clocks(False, None, [(k, k) for k in range(3)]), State.WARN, State.WARN, "the year is 1970"),
    ],
)
def test_the_time_of_day_matters_between_machines(seen, here, elsewhere, said):
    for purpose, state in ((SIMULATED, here), (ELSEWHERE, elsewhere)):
        check = judge_clocks(seen, purpose)
        assert check.state is state
        assert said in check.found


def test_this_machines_clocks_are_looked_at():
    seen = look_at_clocks()
    assert len(seen.samples) >= 10
    assert judge_clocks(seen, SIMULATED).state is not State.FAIL
    assert seen.synchronised in (True, False, None)
    assert seen.largest_error_s is None or 0 <= seen.largest_error_s < 1000
