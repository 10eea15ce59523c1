import math

import numpy as np
import pytest

from mobile_vla.core import ConfigError
from mobile_vla.safety import DepthCamera

FOV = 2 * math.atan(0.5)  # so that the focal length is the image's width


def image(camera, boxes, shape=(120, 160)):
    """What a camera at this place would see of upright plates (x, y from, y to, height) on a floor, by casting rays."""
    rows, columns = shape
    focal = columns / 2 / math.tan(camera.horizontal_fov_rad / 2)
    u, v = np.meshgrid((np.arange(columns) - (columns - 1) / 2) / focal, (np.arange(rows) - (rows - 1) / 2) / focal)
    forward = math.cos(camera.pitch_rad) - v * math.sin(camera.pitch_rad)
    up = -math.sin(camera.pitch_rad) - v * math.cos(camera.pitch_rad)
    with np.errstate(divide="ignore"):
        depth = np.where(up < 0, -camera.height_m / up, np.inf)  # the floor
    for x, right, left, height in boxes:
        away = (x - camera.forward_m) / forward
        y, z = -u * away, camera.height_m + up * away
        meets = (away > 0) & (y >= right) & (y <= left) & (z >= 0) & (z <= height)
        depth = np.where(meets & (away < depth), away, depth)
    return depth


@pytest.mark.parametrize("pitch_rad", [0.0, 0.3, -0.2])
def test_it_finds_what_stands_in_the_band_and_neither_floor_nor_ceiling(pitch_rad):
    camera = DepthCamera(FOV, height_m=0.3, forward_m=0.1, pitch_rad=pitch_rad, lowest_m=0.05, highest_m=0.5)
    seen = camera.clearance(image(camera, [(1.1, -0.1, 0.2, 0.4), (2.1, -0.6, -0.4, 0.03)]), 7)
    returned = np.isfinite(seen.ranges_m)
    returns = seen.ranges_m[returned] * np.exp(1j * seen.angles_rad[returned])
    assert seen.stamp_ns == 7
    assert seen.ranges_m.shape == (160,)
    assert returns.real == pytest.approx(np.full(returns.size, 1.1), abs=0.001)
    pixel_m = 1.1 / 160
    assert returns.imag.min() == pytest.approx(-0.1, abs=pixel_m)
    assert returns.imag.max() == pytest.approx(0.2, abs=pixel_m)
    assert np.isfinite(seen.angles_rad).all()


def test_the_nearest_of_a_column_counts_and_left_is_positive():
    camera = DepthCamera(FOV, height_m=0.2)
    depth = image(camera, [(2.0, 0.55, 0.9, 0.4), (1.0, 0.15, 0.25, 0.12), (3.0, -2.0, 2.0, 0.45)])
    seen = camera.clearance(depth, 0)
    places = seen.ranges_m * np.exp(1j * seen.angles_rad)
    assert sorted({round(x, 3) for x in places.real}) == [1.0, 2.0, 3.0]
    assert places[places.real < 1.5].imag.min() > 0.14


def test_the_picture_has_its_axis_in_the_middle_and_its_scale_from_the_field_of_view():
    camera = DepthCamera(FOV, height_m=0.2, lowest_m=0.01)
    seen = camera.clearance(np.full((3, 4), 2.0, dtype=np.float32), 0)
    offsets = np.array([1.5, 0.5, -0.5, -1.5]) / 4
    assert seen.angles_rad == pytest.approx(np.arctan(offsets))
    assert seen.ranges_m == pytest.approx(2.0 * np.hypot(1, offsets))


def test_the_edges_of_the_band_are_in_the_way():
    for lowest_m, highest_m, returns in [(0.25, 0.5, True), (0.1, 0.25, True), (0.26, 0.5, False), (0.1, 0.24, False)]:
        camera = DepthCamera(FOV, height_m=0.25, lowest_m=lowest_m, highest_m=highest_m)
        seen = camera.clearance(np.full((1, 2), 1.0), 0)
        assert np.isfinite(seen.ranges_m).all() == returns


@pytest.mark.parametrize("depth", [0.0, -1.0, math.nan, math.inf, -math.inf])
def test_what_is_no_depth_is_no_return(depth):
    seen = DepthCamera(FOV, height_m=0.2).clearance(np.full((3, 2), depth), 0)
    assert (seen.ranges_m == math.inf).all()
    assert (seen.angles_rad == 0).all()


def test_a_hole_in_a_column_does_not_hide_what_is_beside_it():
    depth = np.array([[math.nan], [1.0], [0.0]])
    assert DepthCamera(FOV, height_m=0.2).clearance(depth, 0).ranges_m == pytest.approx([1.0])


def test_it_may_look_almost_straight_up_or_down():
    assert [DepthCamera(FOV, 0.2, pitch_rad=pitch).pitch_rad for pitch in (-1.57, 1.57)] == [-1.57, 1.57]


def test_a_depth_image_is_a_plane():
    with pytest.raises(ValueError, match=r"^a depth image needs shape \(H, W\), got \(2, 2, 1\)$"):
        DepthCamera(FOV, height_m=0.2).clearance(np.ones((2, 2, 1)), 0)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"horizontal_fov_rad": 0.0}, "horizontal_fov_rad is 0.0; it needs to lie between 0 and pi"),
        ({"horizontal_fov_rad": math.pi}, f"horizontal_fov_rad is {math.pi}; it needs to lie between 0 and pi"),
        ({"height_m": 0.0}, "height_m is 0.0; it needs to be positive and finite"),
        ({"height_m": math.inf}, "height_m is inf; it needs to be positive and finite"),
        ({"pitch_rad": math.pi / 2}, f"pitch_rad is {math.pi / 2}; it needs to lie between -pi/2 and pi/2"),
        ({"pitch_rad": -math.pi / 2}, f"pitch_rad is {-math.pi / 2}; it needs to lie between -pi/2 and pi/2"),
        ({"forward_m": math.nan}, "forward_m is nan; it needs to be finite"),
        (
            {"lowest_m": 0.0},
            "lowest_m is 0.0 and highest_m 0.5; they need to be positive, finite, and the second the greater",
        ),
        (
            {"lowest_m": 0.5},
            "lowest_m is 0.5 and highest_m 0.5; they need to be positive, finite, and the second the greater",
        ),
        (
            {"highest_m": math.inf},
            "lowest_m is 0.05 and highest_m inf; they need to be positive, finite, and the second the greater",
        ),
    ],
)
def test_a_camera_that_makes_no_sense_is_refused(wrong, says):
    with pytest.raises(ConfigError) as error:
        DepthCamera(**{"horizontal_fov_rad": 1.0, "height_m": 0.2, **wrong})
    assert str(error.value) == says
