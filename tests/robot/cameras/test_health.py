import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.core import NS_PER_S, Frame
from mobile_vla.robot.cameras import HealthSummary, HealthWatch
from mobile_vla.robot.cameras.drawing import Drawing

DRAWING = Drawing(320, 240, seed=1)


def frame(pixels, number, period_s=0.1):
    return Frame(pixels, round(number * period_s * NS_PER_S), "monotonic", "front", number)


def looked(*pictures):
    watch = HealthWatch()
    return watch, [watch.look(frame(pixels, number)) for number, pixels in enumerate(pictures)]


def test_good_pictures_are_good():
    watch, healths = looked(*(DRAWING.picture(number) for number in range(10)))
    assert not any(health.frozen or health.black or health.torn or health.lost for health in healths)
    assert [health.gap_s for health in healths] == pytest.approx([0.0] + [0.1] * 9)
    assert healths[0].rate_hz is None
    assert healths[-1].rate_hz == pytest.approx(10)
    assert watch.summary == HealthSummary(frames=10, longest_gap_s=0.1, rate_hz=pytest.approx(10))


def test_the_same_picture_is_frozen_but_not_torn():
    _, healths = looked(DRAWING.picture(1), DRAWING.picture(1), DRAWING.picture(2))
    assert [health.frozen for health in healths] == [False, True, False]
    assert not any(health.torn for health in healths)


def test_a_dark_picture_is_black_whatever_its_noise_and_a_dim_one_is_not():
    watch, healths = looked(DRAWING.black(1), DRAWING.black(2), DRAWING.picture(3) // 4)
    assert [health.black for health in healths] == [True, True, False]
    assert not healths[1].frozen
    assert watch.summary.black == 2


@given(st.integers(1, 500), st.booleans())
def test_a_picture_whose_upper_or_lower_part_is_the_one_before_is_torn(number, lower):
    before = DRAWING.picture(number)
    torn = DRAWING.torn(number + 1, number) if lower else DRAWING.torn(number, number + 1)
    _, healths = looked(before, torn)
    assert healths[1].torn
    assert not healths[1].frozen


def test_clipped_sky_and_floor_are_no_tear():
    pictures = []
    for number in range(3):
        pixels = DRAWING.picture(number)
        pixels[:80] = 255
        pixels[200:] = 0
        pictures.append(pixels)
    _, healths = looked(*pictures)
    assert not any(health.torn for health in healths)
    white = np.full((240, 320, 3), 255, dtype=np.uint8)
    assert not looked(white, white - 1)[1][1].torn


def test_lost_pictures_and_gaps_are_counted():
    watch = HealthWatch()
    for number in (0, 1, 5, 6):
        health = watch.look(frame(DRAWING.picture(number), number))
        assert health.lost == (3 if number == 5 else 0)
    assert watch.summary.lost == 3
    assert watch.summary.longest_gap_s == pytest.approx(0.4)
    assert watch.summary.rate_hz == pytest.approx(5)


@given(st.integers(1, 12), st.integers(1, 12))
def test_pictures_of_any_size_and_a_change_of_size_can_be_looked_at(height, width):
    small = np.zeros((height, width, 3), dtype=np.uint8)
    _, healths = looked(small, small, DRAWING.picture(0))
    assert [health.frozen for health in healths] == [False, True, False]


def test_stamps_that_stand_still_give_no_rate():
    watch = HealthWatch()
    watch.look(frame(DRAWING.picture(0), 0, period_s=0.0))
    assert watch.look(frame(DRAWING.picture(1), 1, period_s=0.0)).rate_hz is None
    assert watch.summary.rate_hz is None
