"""The virtual camera: its faults by property, without waiting, and the camera itself as it runs."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.core import NS_PER_S, CameraError, ConfigError, MonotonicClock
from mobile_vla.robot.cameras import HealthWatch
from mobile_vla.robot.cameras.drawing import Drawing, read_numbers
from mobile_vla.robot.cameras.faults import Fault, Faults
from mobile_vla.robot.cameras.pattern import Pattern, PatternSource, VirtualDevice
from mobile_vla.robot.registry import make_camera

from ..conformance import CameraConformance
from .waiting import next_frame, next_frames, until

SMALL = {"width": 64, "height": 48, "rate_hz": 50.0}
DRAWING = Drawing(64, 48, seed=1)
CLOCK = MonotonicClock()

numbers = st.integers(0, 2000)
begins = st.floats(0, 20)
lengths = st.floats(0.05, 20)


class TestPattern(CameraConformance):
    @pytest.fixture
    def camera(self, clock):
        camera = make_camera("pattern", SMALL, clock)
        yield camera
        camera.close()


def device(*faults):
    return VirtualDevice(Pattern(**SMALL, faults=faults), Faults(faults), DRAWING, began_ns=0)


def captured_within(fault, number):
    return fault.holds_at(number / SMALL["rate_hz"])


@given(numbers)
def test_without_faults_each_picture_arrives_when_it_is_taken_and_bears_its_number(number):
    shot = device().shot(number, CLOCK)
    assert read_numbers(shot.pixels) == (number, number)
    assert shot.number == number
    assert shot.capture_ns == pytest.approx(number / 50 * NS_PER_S, abs=1)
    assert device().arrival_s(number) == number / 50


@given(numbers, begins, lengths)
def test_frozen_it_shows_the_picture_of_the_beginning_with_new_stamps_and_numbers(number, after_s, for_s):
    fault = Fault("freeze", after_s, for_s)
    shot = device(fault).shot(number, CLOCK)
    if captured_within(fault, number):
        assert read_numbers(shot.pixels)[0] == min(number, int(after_s * 50))
    else:
        assert read_numbers(shot.pixels)[0] == number
    assert shot.number == number
    assert shot.capture_ns == device().shot(number, CLOCK).capture_ns


@given(numbers, begins, lengths)
def test_black_it_shows_noise_alone_while_it_lasts(number, after_s, for_s):
    fault = Fault("black", after_s, for_s)
    assert (device(fault).shot(number, CLOCK).pixels.max() < 10) == captured_within(fault, number)


@given(numbers, begins, lengths)
def test_torn_its_lower_part_is_one_picture_older(number, after_s, for_s):
    fault = Fault("tear", after_s, for_s)
    top, bottom = read_numbers(device(fault).shot(number, CLOCK).pixels)
    assert top == number
    assert bottom == (number - 1 if captured_within(fault, number) and number else number)


@given(numbers, begins, lengths, st.floats(0.05, 2))
def test_stuttering_no_picture_comes_early_nor_later_than_its_hold_and_none_overtakes(number, after_s, for_s, hold_s):
    fault = Fault("stutter", after_s, for_s, hold_s=hold_s)
    some = device(fault)
    late_s = some.arrival_s(number) - number / 50
    assert -1e-9 <= late_s <= hold_s + 1e-9
    if not captured_within(fault, number):
        assert late_s == 0
    if captured_within(fault, number) and captured_within(fault, number + 1):
        assert some.arrival_s(number) <= some.arrival_s(number + 1)


@given(begins, lengths, st.floats(0.05, 1))
def test_dropping_it_loses_pictures_of_its_time_alone(after_s, for_s, share):
    fault = Fault("drop", after_s, for_s, share=share)
    some = device(fault)
    for number in range(0, 2000, 7):
        if not captured_within(fault, number):
            assert some.arrival_s(number) is not None
        elif share == 1:
            assert some.arrival_s(number) is None


@pytest.mark.parametrize("kind", ["silence", "unplug"])
@given(number=numbers, after_s=begins, for_s=lengths)
def test_silent_or_unplugged_nothing_arrives_while_it_lasts(kind, number, after_s, for_s):
    fault = Fault(kind, after_s, for_s)
    assert (device(fault).arrival_s(number) is None) == captured_within(fault, number)


def test_its_rate_is_what_it_says(clock, opened):
    camera = opened(make_camera("pattern", SMALL, clock))
    next_frames(camera, 60)
    assert 5 < camera.measured_rate_hz < 51


def test_its_stamps_are_of_now(clock, opened):
    camera = opened(make_camera("pattern", SMALL, clock))
    frame = next_frames(camera, 5)[-1]
    assert 0 <= clock.now_ns() - frame.capture_ns < 5 * NS_PER_S
    assert frame.sequence == read_numbers(frame.pixels)[0]


def test_scheduled_faults_come_by_themselves_and_come_again_after_opening_anew(clock, opened):
    settings = SMALL | {"faults": [{"kind": "black", "after_s": 0.2, "for_s": 0.3}]}
    camera = opened(make_camera("pattern", settings, clock))
    for _ in range(2):
        assert next_frame(camera).pixels.max() > 200
        assert until(lambda: next_frame(camera).pixels.max() < 10)
        assert until(lambda: next_frame(camera).pixels.max() > 200)
        camera.close()
        camera.open()


def test_frozen_on_demand_its_health_shows_it_and_it_thaws(clock, opened):
    camera, watch = opened(make_camera("pattern", SMALL, clock)), HealthWatch()
    assert not watch.look(next_frame(camera)).frozen
    camera.begin("freeze")
    assert until(lambda: watch.look(next_frame(camera)).frozen)
    camera.end("freeze")
    assert until(lambda: not watch.look(next_frame(camera)).frozen)


def test_unplugged_on_demand_it_gives_nothing_and_comes_back_with_a_higher_sequence(clock, opened):
    camera = opened(make_camera("pattern", SMALL | {"recover_for_s": 60.0}, clock))
    before = next_frame(camera)
    camera.begin("unplug")
    assert until(lambda: camera.read(0.3) is None)
    time.sleep(0.3)
    assert camera.read(0.0) is None
    camera.end("unplug")
    after = next_frame(camera)
    assert after.sequence > before.sequence
    assert after.capture_ns > before.capture_ns


def test_unplugged_for_too_long_it_fails(clock, opened):
    camera = opened(make_camera("pattern", SMALL | {"recover_for_s": 0.3}, clock))
    camera.begin("unplug")
    with pytest.raises(CameraError, match=r"front: the test pattern is unplugged; it did not come back within 0.3 s"):
        until(lambda: camera.read(0.1) and None)


def test_unplugged_from_the_beginning_it_cannot_be_opened(clock):
    camera = make_camera("pattern", SMALL | {"faults": [{"kind": "unplug"}]}, clock)
    with pytest.raises(CameraError, match="unplugged"):
        camera.open()


def test_silent_it_is_looked_for_again(clock, opened):
    camera = opened(make_camera("pattern", SMALL | {"silent_after_s": 0.2}, clock))
    next_frame(camera)
    camera.begin("silence", for_s=0.6)
    assert until(lambda: camera.read(0.2) is None)
    assert next_frame(camera)


def test_dropping_and_tearing_show_in_its_health(clock, opened):
    camera, watch = opened(make_camera("pattern", SMALL, clock)), HealthWatch()
    camera.begin("drop", share=0.5)
    camera.begin("tear")
    assert until(lambda: watch.look(next_frame(camera)) and watch.summary.lost > 3)
    camera.end("drop")
    assert until(lambda: watch.look(next_frame(camera)) and watch.summary.torn > 3)


def test_stuttering_pictures_come_late_with_their_true_stamps(clock, opened):
    camera = opened(make_camera("pattern", SMALL, clock))
    camera.begin("stutter", hold_s=0.5)
    gaps = []
    for _ in range(4):
        began_s = time.monotonic()
        next_frame(camera)
        while camera.read(0.05) is not None:
            pass
        gaps.append(time.monotonic() - began_s)
    assert max(gaps[1:]) > 0.2


def test_who_comes_late_finds_what_the_device_could_not_keep_dropped(clock):
    settings = Pattern(**SMALL)
    slow = PatternSource(VirtualDevice(settings, Faults(), DRAWING), clock)
    slow.open()
    first = until(lambda: slow.take(0.1))
    time.sleep(0.6)
    second = until(lambda: slow.take(0.1))
    assert second.number - first.number > 10
    slow.close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 20},
        {"height": 8},
        {"rate_hz": 0.0},
        {"faults": [{"kind": "explode"}]},
        {"faults": [{"kind": "freeze", "afters": 3}]},
    ],
)
def test_patterns_that_cannot_be_are_refused(wrong, clock):
    with pytest.raises(ConfigError):
        make_camera("pattern", SMALL | wrong, clock)


def test_the_pictures_of_two_seeds_differ():
    assert not np.array_equal(DRAWING.picture(1), Drawing(64, 48, seed=2).picture(1))
