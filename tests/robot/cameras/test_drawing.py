import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mobile_vla.robot.cameras.drawing import NUMBER_BITS, Drawing, read_numbers, strip_height, was_lost

DRAWING = Drawing(160, 120, seed=3)
numbers = st.integers(0, 2**NUMBER_BITS - 1)


@given(numbers, st.integers(48, 200), st.integers(32, 120))
def test_the_number_can_be_read_back_at_any_size(number, width, height):
    assert read_numbers(Drawing(width, height, seed=1).picture(number)) == (number, number)


@given(numbers)
def test_the_number_survives_jpeg_and_scaling(number):
    pixels = Drawing(320, 240, seed=1).picture(number)
    through = simplejpeg.decode_jpeg(simplejpeg.encode_jpeg(pixels, quality=75), colorspace="RGB")
    assert read_numbers(through) == (number, number)
    small = np.asarray(Image.fromarray(pixels).resize((192, 144)))
    assert read_numbers(small) == (number, number)


@given(numbers, numbers)
def test_a_torn_picture_shows_both_numbers_and_is_made_of_both(upper, lower):
    torn = DRAWING.torn(upper, lower)
    assert read_numbers(torn) == (upper, lower)
    whole = (DRAWING.picture(upper), DRAWING.picture(lower))
    rows = [any(np.array_equal(torn[row], picture[row]) for picture in whole) for row in range(120)]
    assert all(rows)


@given(numbers)
def test_the_same_number_gives_the_same_pixels_and_the_next_one_others(number):
    again = Drawing(160, 120, seed=3).picture(number)
    assert np.array_equal(DRAWING.picture(number), again)
    inner = slice(strip_height(120), -strip_height(120))
    assert (DRAWING.picture(number + 1)[inner] != again[inner]).mean() > 0.3


def test_a_black_picture_is_dark_but_has_noise():
    black = DRAWING.black(5)
    assert black.max() < 10
    assert black.std() > 0
    assert black.base is None


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_about_the_share_is_lost(share):
    lost = np.mean([was_lost(1, number, share) for number in range(4000)])
    assert lost == pytest.approx(share, abs=0.04)
    assert all(was_lost(1, number, 1.0) for number in range(100))
