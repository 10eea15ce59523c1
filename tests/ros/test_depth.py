import numpy as np
import pytest

from mobile_vla.ros.depth import MOST_COLUMNS, depth_from_image
from mobile_vla.ros.messages import TransportError, header, ros


def image(values, encoding, step=None, big=0):
    height, width = values.shape
    rows = values.reshape(height, -1).view(np.uint8)
    step = step or rows.shape[1]
    padded = np.zeros((height, step), dtype=np.uint8)
    padded[:, : rows.shape[1]] = rows
    return ros.sensor_msgs__msg__Image(header(1), height, width, encoding, big, step, padded.reshape(-1))


@pytest.mark.parametrize("padding", [0, 6])
def test_millimetres_become_metres_and_no_return_is_far(padding):
    values = np.array([[1000, 0, 250], [65535, 1, 2]], dtype="<u2")
    metres = depth_from_image(image(values, "16UC1", step=6 + padding))
    assert metres == pytest.approx(np.array([[1.0, np.inf, 0.25], [65.535, 0.001, 0.002]]))


def test_metres_stay_and_nonsense_is_far():
    values = np.array([[1.5, np.nan], [-1.0, np.inf]], dtype="<f4")
    assert depth_from_image(image(values, "32FC1")) == pytest.approx(np.array([[1.5, np.inf], [np.inf, np.inf]]))


def test_the_other_byte_order_is_read():
    assert depth_from_image(image(np.array([[1000]], dtype=">u2"), "16UC1", big=1)) == pytest.approx(1.0)


def test_a_wide_image_is_made_smaller_and_keeps_what_is_thin_and_near():
    values = np.full((480, 640), 4000, dtype="<u2")
    values[:, 333] = 700  # a pole, one pixel wide
    metres = depth_from_image(image(values, "16UC1"))
    assert metres.shape == (120, MOST_COLUMNS)
    near = metres.min(axis=0) < 1.0
    assert near.tolist() == [column == 333 // 4 for column in range(MOST_COLUMNS)]


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (image(np.zeros((2, 2), dtype="<u2"), "rgb8"), "rgb8"),
        (image(np.zeros((2, 2), dtype="<u2"), "32FC1"), "cannot have"),
    ],
)
def test_what_is_no_depth_image_is_refused(message, says):
    with pytest.raises(TransportError, match=says):
        depth_from_image(message)
