import numpy as np
import pytest

from mobile_vla.core import NS_PER_S, Frame
from mobile_vla.safety import FrameWatch
from mobile_vla.safety.watchdog import AgeWatch, CommandRate


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


@pytest.mark.parametrize(
    ("age_ns", "says"),
    [
        (0, None),
        (500_000_000, None),
        (500_000_001, "0.500 s old, more than 0.500 s"),
        (-10_000_000, None),
        (-10_000_001, "stamped 0.010 s after now"),
        (-2_500_000_000, "stamped 2.500 s after now"),
    ],
)
def test_an_age_is_distrusted_beyond_its_limit_and_from_the_future(age_ns, says):
    assert AgeWatch(0.5, 0.01).distrusted(7 * NS_PER_S, 7 * NS_PER_S - age_ns) == says


def test_commands_are_counted_over_the_last_second():
    rate = CommandRate()
    assert [rate.count(k * NS_PER_S // 4, k + 1) for k in range(6)] == [1, 3, 6, 10, 14, 18]
    assert rate.count(3 * NS_PER_S, 0) == 0


def test_a_command_of_exactly_a_second_ago_is_no_longer_counted():
    rate = CommandRate()
    assert rate.count(5, 3) == 3
    assert rate.count(NS_PER_S + 4, 1) == 4
    assert rate.count(NS_PER_S + 5, 1) == 2


def test_after_the_clock_went_back_later_steps_are_forgotten():
    rate = CommandRate()
    rate.count(10 * NS_PER_S, 7)
    assert rate.count(9 * NS_PER_S, 2) == 2
    assert rate.count(9 * NS_PER_S, 2) == 4  # and a clock that stands still hides nothing
    rate.count(9 * NS_PER_S + 9, 5)
    assert rate.count(9 * NS_PER_S + 5, 1) == 5
