import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mobile_vla.policy.preprocess import HEIGHT, WIDTH, fit, normalise, to_tensor


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


@settings(max_examples=20)
@given(st.integers(60, 300), st.integers(60, 300), st.sampled_from([(96, 192), (224, 224), (56, 84)]))
def test_any_size_is_made_of_the_largest_crop_of_two_to_one(height: int, width: int, size: tuple[int, int]) -> None:
    rows = np.arange(height, dtype=np.uint8)[:, None]
    pixels = np.stack(np.broadcast_arrays(rows, np.arange(width) % 256, np.uint8(9)), axis=-1).astype(np.uint8)
    small = fit(pixels, size)
    assert small.shape == (*size, 3)
    assert (small[..., 2] == 9).all()
    crop_height = min(height, width // 2)
    assert abs(float(small[..., 0].mean()) - rows[(height - crop_height) // 2 :][:crop_height].mean()) < 2.0


def test_pixels_that_cannot_be_written_are_taken_as_they_are() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 320, 3), dtype=np.uint8)
    fixed = pixels.copy()
    fixed.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(fit(fixed), fit(pixels))


@given(st.integers(0, 255), st.integers(0, 2))
def test_normalising_is_by_the_means_and_deviations_given(level: int, channel: int) -> None:
    mean, std = (0.48, 0.45, 0.40), (0.26, 0.27, 0.28)
    pixels = torch.zeros(2, 4, 6, 3, dtype=torch.uint8)
    pixels[1, 2, 3, channel] = level
    planes = normalise(pixels, mean, std)
    assert (planes.shape, planes.dtype) == ((2, 3, 4, 6), torch.float32)
    assert float(planes[1, channel, 2, 3]) == pytest.approx((level / 255 - mean[channel]) / std[channel], abs=1e-5)
    assert float(planes[0, channel, 0, 0]) == pytest.approx(-mean[channel] / std[channel], abs=1e-5)
