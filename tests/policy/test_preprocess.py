import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mobile_vla.policy.preprocess import HEIGHT, WIDTH, fit, to_tensor


@settings(max_examples=25, deadline=None)
@given(st.integers(60, 400), st.integers(60, 400), st.integers(0, 255))
def test_any_camera_size_fits_and_a_flat_colour_stays(height: int, width: int, level: int) -> None:
    small = fit(np.full((height, width, 3), level, np.uint8))
    assert small.shape == (HEIGHT, WIDTH, 3)
    assert (np.abs(small.astype(int) - level) <= 1).all()


def test_a_frame_of_the_right_size_is_not_touched() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    assert fit(pixels) is pixels


def test_the_crop_keeps_the_middle() -> None:
    pixels = np.zeros((720, 1280, 3), np.uint8)
    pixels[350:370, 630:650] = 255
    small = fit(pixels).astype(float).mean(axis=2)
    rows, columns = np.nonzero(small > 64)
    assert rows.mean() == pytest.approx((HEIGHT - 1) / 2, abs=1)
    assert columns.mean() == pytest.approx((WIDTH - 1) / 2, abs=1)


def test_channels_stay_in_the_order_of_rgb() -> None:
    pixels = torch.zeros(1, HEIGHT, WIDTH, 3, dtype=torch.uint8)
    pixels[..., 0] = 255
    tensor = to_tensor(pixels)
    assert tensor.shape == (1, 3, HEIGHT, WIDTH)
    assert tensor[0, 0].mean() > 1.0 > -1.0 > tensor[0, 1].mean()
