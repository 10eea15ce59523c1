import time

import numpy as np
import pytest

from mobile_vla.core import NS_PER_S, CameraError
from mobile_vla.robot.cameras.paced import PacedSource

from .waiting import until


class Recording:
    """Three pictures, 0.1 s apart; counts how often it is played and whether it is closed."""

    def __init__(self, stamps_s=(0.0, 0.1, 0.2)):
        self.stamps_s, self.played, self.open_now = stamps_s, 0, 0

    def play(self):
        self.played += 1
        self.open_now += 1
        try:
            for number, stamp_s in enumerate(self.stamps_s):
                yield np.full((2, 2, 3), number, dtype=np.uint8), stamp_s
        finally:
            self.open_now -= 1


def paced(recording, clock, pace=1.0, loop=False):
    return PacedSource(recording.play, clock, pace=pace, loop=loop, period_s=0.1, ended="it has ended")


def take(source):
    return until(lambda: source.take(0.5))


def values(source, count):
    return [int(take(source).pixels[0, 0, 0]) for _ in range(count)]


def test_the_stamps_lie_apart_as_in_the_recording_whenever_they_are_taken(clock):
    source = paced(Recording(), clock)
    source.open()
    first, second, third = (take(source) for _ in range(3))
    assert second.capture_ns - first.capture_ns == 0.1 * NS_PER_S
    assert third.capture_ns - first.capture_ns == 0.2 * NS_PER_S
    assert [first.number, second.number, third.number] == [0, 1, 2]
    assert clock.now_ns() >= third.capture_ns


def test_twice_as_fast_they_lie_half_as_far_apart(clock):
    source = paced(Recording(), clock, pace=2.0)
    source.open()
    first, second = take(source), take(source)
    assert second.capture_ns - first.capture_ns == 0.05 * NS_PER_S


def test_nothing_is_given_before_it_is_due(clock):
    source = paced(Recording((0.0, 30.0)), clock)
    source.open()
    assert take(source).number == 0
    assert source.take(0.0) is None
    assert source.take(0.01) is None
    source.close()


def test_without_a_pace_everything_is_due_at_once(clock):
    source = paced(Recording((0.0, 1000.0, 2000.0)), clock, pace=0.0)
    source.open()
    assert [source.take(0.0).number for _ in range(3)] == [0, 1, 2]


def test_at_its_end_it_says_so_or_begins_again(clock):
    recording = Recording()
    source = paced(recording, clock)
    source.open()
    assert values(source, 3) == [0, 1, 2]
    with pytest.raises(CameraError, match=r"^it has ended$"):
        source.take(0.0)
    assert recording.open_now == 0

    source = paced(recording, clock, pace=4.0, loop=True)
    source.open()
    shots = [take(source) for _ in range(7)]
    assert [int(shot.pixels[0, 0, 0]) for shot in shots] == [0, 1, 2, 0, 1, 2, 0]
    assert [shot.number for shot in shots] == list(range(7))
    assert np.diff([shot.capture_ns for shot in shots]) == pytest.approx(0.025 * NS_PER_S, abs=2)
    source.close()
    source.close()
    assert recording.open_now == 0


def test_a_machine_that_is_too_slow_gets_the_rest_later(clock):
    source = paced(Recording(), clock)
    source.open()
    take(source)
    time.sleep(0.8)
    assert clock.now_ns() - take(source).capture_ns < 0.6 * NS_PER_S


def test_an_empty_recording_cannot_be_opened(clock):
    with pytest.raises(CameraError, match="it has ended"):
        paced(Recording(()), clock).open()
