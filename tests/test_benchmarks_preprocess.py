"""What ``benchmarks/preprocess.py`` says of each way to fit a frame."""

import pytest

import preprocess


@pytest.mark.parametrize("size", preprocess.SIZES)
def test_each_way_is_timed_and_held_against_the_exact_picture(size: tuple[int, int]) -> None:
    decisions: list[int] = []
    found = preprocess.measure("320x240", size, 3, lambda: decisions.append(0))
    assert all(len(each["milliseconds"]) == 3 and min(each["milliseconds"]) > 0 for each in found.values())
    assert len(decisions) == len(found) * (3 + preprocess.WARM_UP)
    assert found[preprocess.BEFORE]["levels"] <= 0.51
    assert found[preprocess.NOW]["levels"] <= 1.01
    assert found[preprocess.NOW]["levels"] == found[preprocess.FIXED]["levels"] == found[preprocess.OUT]["levels"]
    assert "levels" not in found[preprocess.COPY]
