import gc
import tracemalloc
import warnings

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.nn import functional as F

from mobile_vla.policy import preprocess
from mobile_vla.policy.preprocess import ASPECT, HEIGHT, WIDTH, fit, fit_on, normalise, to_tensor

SIZES = [(96, 192), (224, 224), (56, 84), (37, 91)]
cameras = st.tuples(st.integers(30, 420), st.integers(30, 420))


def exact(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.float64]:
    """The definition, in doubles: the largest centred 2:1 crop, then a triangle as wide as two new pixels."""
    height, width = pixels.shape[:2]
    rows, columns = min(height, width // ASPECT), min(width, height * ASPECT)
    top, left = (height - rows) // 2, (width - columns) // 2
    planes = torch.tensor(pixels[top : top + rows, left : left + columns].astype(np.float64)).permute(2, 0, 1)[None]
    small = F.interpolate(planes, size=size, mode="bilinear", antialias=True, align_corners=False)
    return small[0].permute(1, 2, 0).numpy()


def drawn(camera: tuple[int, int], seed: int) -> NDArray[np.uint8]:
    """Nothing but edges, the hardest case: noise over a half, and stripes of black and white over the other."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (*camera, 3), dtype=np.uint8)
    pixels[:, : camera[1] // 2] = 255 * rng.integers(0, 2, (camera[0], 1, 3), dtype=np.uint8)
    return pixels


@settings(max_examples=60, deadline=None)
@given(cameras, st.sampled_from(SIZES), st.integers(0, 2**32 - 1))
@example((480, 640), (96, 192), 0)
@example((720, 1280), (224, 224), 0)
@example((96, 192), (224, 224), 0)
@example((100, 419), (96, 192), 0)
def test_every_value_is_within_one_grey_level_of_the_exact_one(
    camera: tuple[int, int], size: tuple[int, int], seed: int
) -> None:
    pixels = drawn(camera, seed)
    right = exact(pixels, size)
    for made in (fit(pixels, size), fit_on(torch.from_numpy(pixels)[None], size)[0].numpy()):
        assert (made.shape, made.dtype) == ((*size, 3), np.uint8)
        # half a level for rounding once, and half for rounding between rows and columns
        assert np.abs(made - right).max() <= 1.01


@settings(max_examples=20, deadline=None)
@given(cameras, st.sampled_from(SIZES), st.integers(0, 2**32 - 1))
def test_frames_on_a_device_are_fitted_as_single_ones_are(
    camera: tuple[int, int], size: tuple[int, int], seed: int
) -> None:
    frames = np.stack([drawn(camera, seed), drawn(camera, seed + 1)])
    made = fit_on(torch.from_numpy(frames), size)
    assert (made.shape, made.dtype) == ((2, *size, 3), torch.uint8)
    for one, pixels in zip(made.numpy(), frames, strict=True):
        assert np.abs(one.astype(int) - fit(pixels, size)).max() <= 1


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["turned", "mirrored", "every second", "of a wider one", "fixed", "bytes", "Fortran"]), cameras)
def test_frames_of_any_memory_are_read_as_they_are_and_never_written(layout: str, camera: tuple[int, int]) -> None:
    plain = drawn(camera, 1)
    height, width = camera
    pixels = {
        "turned": lambda: np.ascontiguousarray(plain[::-1, ::-1])[::-1, ::-1],
        "mirrored": lambda: np.ascontiguousarray(plain[:, :, ::-1])[:, :, ::-1],
        "every second": lambda: np.repeat(plain, 2, axis=1)[:, ::2],
        "of a wider one": lambda: np.pad(plain, ((3, 2), (1, 7), (0, 0)))[3 : 3 + height, 1 : 1 + width],
        "fixed": lambda: plain.copy(),
        "bytes": lambda: np.frombuffer(plain.tobytes(), np.uint8).reshape(plain.shape),
        "Fortran": lambda: np.asfortranarray(plain),
    }[layout]()
    pixels.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = fit(pixels)
    assert np.array_equal(made, fit(plain))
    assert np.array_equal(pixels, plain)
    made[:] = 0  # a picture of its own
    assert np.array_equal(pixels, plain)


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("camera", [(480, 640), (720, 1280), (1080, 1920)])
def test_a_frame_that_loses_rows_alone_is_not_copied(camera: tuple[int, int], fixed: bool) -> None:
    pixels = drawn(camera, 0)
    pixels.flags.writeable = not fixed
    fit(pixels)
    gc.collect()
    tracemalloc.start()
    try:
        fit(pixels)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < pixels.nbytes / 20  # numpy's own memory is traced, torch's is not


def test_older_libraries_that_hand_over_no_read_only_memory_get_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = drawn((300, 320), 0)
    right = fit(pixels)

    def refuse(_: object) -> None:
        raise BufferError("read-only")

    monkeypatch.setattr(preprocess, "from_dlpack", refuse)
    pixels.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(fit(pixels), right)


def test_a_picture_outlives_its_frame() -> None:
    pixels = drawn((480, 640), 0)
    pixels.flags.writeable = False
    right = np.rint(exact(pixels, (HEIGHT, WIDTH)))
    made = fit(pixels)
    del pixels
    gc.collect()
    assert np.abs(made - right).max() <= 1


@settings(max_examples=25, deadline=None)
@given(st.integers(60, 400), st.integers(60, 400), st.integers(0, 255))
def test_any_camera_size_fits_and_a_flat_colour_stays(height: int, width: int, level: int) -> None:
    small = fit(np.full((height, width, 3), level, np.uint8))
    assert small.shape == (HEIGHT, WIDTH, 3)
    assert (np.abs(small.astype(int) - level) <= 1).all()


def test_a_frame_of_the_right_size_is_not_touched() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    assert fit(pixels) is pixels
    frames = torch.from_numpy(pixels)[None]
    assert fit_on(frames) is frames


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


@given(st.integers(0, 255), st.integers(0, 2))
def test_normalising_is_by_the_means_and_deviations_given(level: int, channel: int) -> None:
    mean, std = (0.48, 0.45, 0.40), (0.26, 0.27, 0.28)
    pixels = torch.zeros(2, 4, 6, 3, dtype=torch.uint8)
    pixels[1, 2, 3, channel] = level
    planes = normalise(pixels, mean, std)
    assert (planes.shape, planes.dtype) == ((2, 3, 4, 6), torch.float32)
    assert float(planes[1, channel, 2, 3]) == pytest.approx((level / 255 - mean[channel]) / std[channel], abs=1e-5)
    assert float(planes[0, channel, 0, 0]) == pytest.approx(-mean[channel] / std[channel], abs=1e-5)
