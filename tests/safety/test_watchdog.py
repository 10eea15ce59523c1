import numpy as np
import pytest

from mobile_vla.core import Frame
from mobile_vla.safety import FrameWatch


def frame(sequence, capture_ns, shade):
    return Frame(np.full((4, 6, 3), shade, dtype=np.uint8), capture_ns, "simulation", "front", sequence)


def test_frames_that_bring_news_are_no_repeats():
    watch = FrameWatch()
    assert [watch.repeats(frame(k, 100 * k, k)) for k in (1, 2, 5)] == [False, False, False]


@pytest.mark.parametrize(
    "repeat",
    [frame(2, 300, 9), frame(1, 300, 9), frame(3, 200, 9), frame(3, 100, 9), frame(3, 300, 2)],
    ids=["same sequence", "sequence goes back", "same capture", "capture goes back", "same pixels"],
)
def test_a_repeat_is_known_and_judged_against_the_last_new_frame(repeat):
    watch = FrameWatch()
    assert not watch.repeats(frame(2, 200, 2))
    assert [watch.repeats(repeat) for _ in range(3)] == [True] * 3
    assert not watch.repeats(frame(3, 300, 3))


def test_a_rendered_camera_may_give_identical_pixels():
    watch = FrameWatch(identical_pixels=False)
    assert not watch.repeats(frame(1, 100, 7))
    assert not watch.repeats(frame(2, 200, 7))
    assert watch.repeats(frame(2, 300, 7))


def test_a_driver_that_writes_into_its_old_buffer_is_not_taken_for_frozen():
    watch = FrameWatch()
    pixels = np.zeros((4, 6, 3), dtype=np.uint8)
    assert not watch.repeats(Frame(pixels, 100, "simulation", "front", 1))
    pixels[0, 0, 0] = 1
    assert not watch.repeats(Frame(pixels, 200, "simulation", "front", 2))
    assert watch.repeats(Frame(pixels[:, ::1], 300, "simulation", "front", 3))
    assert not watch.repeats(Frame(pixels[:, ::-1], 400, "simulation", "front", 4))
