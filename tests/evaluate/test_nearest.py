import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mobile_vla.evaluate.nearest import MOST, NEIGHBOURS, SAME, Instructions, median_course, plain

WORDS = st.text(alphabet="ab 가나", min_size=1, max_size=6)


def test_the_same_words_are_enough() -> None:
    texts = ["go left"] * SAME + ["go right"] * 40 + ["Go  LEFT"]
    assert Instructions(texts, range(len(texts))).nearest("go left") == [0, 1, 2, len(texts) - 1]


def test_fewer_than_that_are_helped_by_those_most_alike() -> None:
    texts = ["stop at the red cup"] + [f"stop at the red cup {'!' * count}" for count in range(1, 30)]
    assert Instructions(texts, range(30)).nearest("stop at the red cup") == list(range(NEIGHBOURS))
    assert Instructions(texts, range(30)).nearest("stop at the red cup", but=[0, 2])[:2] == [1, 3]


def test_as_near_is_as_good_up_to_a_bound() -> None:
    assert len(Instructions(["stop"] * 2 * MOST, range(2 * MOST)).nearest("stop")) == MOST
    tied = ["stap", "stup", "stip"] * NEIGHBOURS
    assert len(Instructions(tied, range(len(tied))).nearest("stop")) == len(tied)


@given(st.lists(WORDS, min_size=1, max_size=30), WORDS, st.data())
def test_what_is_given_is_never_left_out_for_something_less_alike(
    texts: list[str], text: str, data: st.DataObject
) -> None:
    but = data.draw(st.sets(st.integers(0, len(texts) - 1)))
    numbers = [10 * place for place in range(len(texts))]
    near = Instructions(texts, numbers).nearest(text, but=[10 * place for place in but])
    assert len(near) == len(set(near)) >= min(SAME, len(texts) - len(but))
    assert not {number // 10 for number in near} & but
    same = [10 * place for place, other in enumerate(texts) if plain(other) == plain(text) and place not in but]
    assert near[: len(same)] == same
    assert len(near) == len(same) or len(same) < SAME


def test_the_median_course_goes_on_to_the_end_of_the_longest() -> None:
    courses: dict[int, NDArray[np.float32]] = {
        number: np.full((frames, 2, 3), value, np.float32)
        for number, frames, value in ((1, 2, 0.1), (2, 3, 0.2), (3, 5, 0.5))
    }
    courses[2][:, 0] += np.arange(3, dtype=np.float32)[:, None]
    courses[3][:, 0] += np.arange(5, dtype=np.float32)[:, None]
    courses[3][:, 1] = np.nan
    courses[2][:, 1] = np.nan
    courses[1][:, 1, 2] = np.nan
    otherwise = np.full((2, 3), -1.0, np.float32)
    course = median_course([1, 2, 3], courses.__getitem__, otherwise)
    assert course.shape == (5, 2, 3)
    # an episode that has ended keeps its last chunk
    assert course[:, 0, 1].tolist() == pytest.approx([0.2, 1.2, 2.2, 2.2, 2.2])
    assert course[:, 1, :2] == pytest.approx(0.1)
    assert course[:, 1, 2] == pytest.approx(-1.0)
    assert np.isnan(courses[3][:, 1]).all()
