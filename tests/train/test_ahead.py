import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.train.ahead import Ahead


@given(st.lists(st.integers(), max_size=8), st.integers(0, 5))
def test_results_come_in_the_order_of_the_calls(values: list[int], ahead: int) -> None:
    with Ahead([lambda value=value: value for value in values], ahead) as drawn:
        assert [drawn.next() for _ in values] == values
        assert drawn.waited_s >= 0.0


def test_it_draws_while_nobody_asks_but_no_further_than_it_was_told() -> None:
    made, enough = [], threading.Event()

    def call() -> None:
        made.append(1)
        if len(made) == 2:
            enough.set()

    with Ahead([call] * 9, 2) as drawn:
        assert enough.wait(60)
        assert len(made) == 2
        drawn.next()
    assert len(made) <= 3


def test_an_error_comes_when_its_turn_has_come() -> None:
    def fail() -> int:
        raise ValueError("third")

    with Ahead([lambda: 1, lambda: 2, fail, lambda: 4], 3) as drawn:
        assert (drawn.next(), drawn.next()) == (1, 2)
        with pytest.raises(ValueError, match="third"):
            drawn.next()
        assert drawn.next() == 4


def test_left_early_it_draws_no_more_and_no_thread_stays() -> None:
    begun, may_end = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        may_end.wait(60)

    with Ahead([slow, slow], 2):
        assert begun.wait(60)
        may_end.set()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("draw-ahead")]
