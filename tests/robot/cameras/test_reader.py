"""The reader thread on a source that does what a script says."""

import itertools
import queue
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobile_vla.core import NS_PER_S, CameraError, ConfigError, ManualClock, MonotonicClock
from mobile_vla.robot import Camera
from mobile_vla.robot.cameras import Lost, ReaderCamera, Recovery, Shot
from mobile_vla.robot.cameras.reader import DeviceSettings, from_monotonic

from .waiting import next_frame, until


def shot(number, capture_ns=None, counted=True):
    pixels = np.full((4, 4, 3), number % 256, dtype=np.uint8)
    return Shot(pixels, number * 1000 if capture_ns is None else capture_ns, number if counted else None)


class Device:
    """Outlives its sources. What is put into ``feed`` comes out of ``take``; an exception is raised there."""

    def __init__(self):
        self.feed = queue.Queue()
        self.refusals = []
        self.open_now = 0
        self.openings = 0
        self.may_open = threading.Event()
        self.may_open.set()

    def source(self):
        return DeviceSource(self)

    def give(self, *items):
        for item in items:
            self.feed.put(item)


class DeviceSource:
    def __init__(self, device):
        self.device = device
        self.is_open = False

    def open(self):
        self.device.may_open.wait(20)
        self.device.openings += 1
        if self.device.refusals:
            raise self.device.refusals.pop(0)
        self.is_open = True
        self.device.open_now += 1

    def take(self, timeout_s):
        try:
            item = self.device.feed.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if isinstance(item, Exception):
            raise item
        return item

    def close(self):
        if self.is_open:
            self.is_open = False
            self.device.open_now -= 1


@pytest.fixture
def device():
    device = Device()
    yield device
    assert until(lambda: device.open_now == 0)


def camera_of(device, clock, keep_unread=False, **times):
    times = {"recover_for_s": 20.0, "silent_after_s": 20.0, "open_limit_s": 20.0} | times
    camera: Camera = ReaderCamera(
        device.source, clock, name="eye", rate_hz=10.0, recovery=Recovery(**times), keep_unread=keep_unread
    )
    return camera


def test_the_newest_is_read_and_what_was_dropped_shows_in_the_sequence(device, clock, opened):
    camera = opened(camera_of(device, clock))
    device.give(shot(1), shot(2), shot(3))
    assert until(lambda: device.feed.empty())
    last = until(lambda: (frame := camera.read(0.2)) and frame.capture_ns == 3000 and frame)
    assert last.pixels[0, 0, 0] == 3
    assert last.sequence == 2
    assert camera.read(0.0) is None
    device.give(shot(7))
    assert next_frame(camera).sequence == 6


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(-3, 3)), min_size=1, max_size=20))
def test_sequence_and_capture_time_rise_whatever_the_device_counts(steps):
    device, clock = Device(), MonotonicClock()
    camera = camera_of(device, clock)
    camera.open()
    try:
        number, stamp, frames = 100, 1000, []
        for number_step, stamp_step in steps:
            number, stamp = number + number_step, stamp + stamp_step
            device.give(shot(number, stamp))
            frames.append(camera.read(0.005))
        frames.append(camera.read(0.005))
        read = [frame for frame in frames if frame is not None]
        assert all(a.sequence < b.sequence and a.capture_ns < b.capture_ns for a, b in itertools.pairwise(read))
    finally:
        camera.close()


def test_a_device_that_does_not_count_is_counted(device, clock, opened):
    camera = opened(camera_of(device, clock))
    for number in (1, 2, 3):
        device.give(shot(number, counted=False))
        assert next_frame(camera).sequence == number - 1


def test_a_picture_with_an_old_stamp_is_left_out(device, clock, opened):
    camera = opened(camera_of(device, clock))
    device.give(shot(5))
    assert next_frame(camera)
    device.give(shot(6, capture_ns=5000), shot(7, capture_ns=4000), shot(8))
    frame = next_frame(camera)
    assert (frame.capture_ns, frame.sequence) == (8000, 3)


def test_none_that_was_not_read_is_dropped_where_unread_ones_are_kept(device, clock, opened):
    camera = opened(camera_of(device, clock, keep_unread=True))
    device.give(*[shot(number, capture_ns=1) for number in range(10)])
    frames = [next_frame(camera) for _ in range(10)]
    assert [frame.pixels[0, 0, 0] for frame in frames] == list(range(10))
    assert all(a.capture_ns < b.capture_ns for a, b in itertools.pairwise(frames))
    assert abs(frames[-1].capture_ns - clock.now_ns()) < 20 * NS_PER_S


def test_a_lost_device_is_opened_again_and_meanwhile_there_is_no_frame(device, clock, opened, caplog):
    camera = opened(camera_of(device, clock))
    device.give(shot(1))
    assert next_frame(camera).sequence == 0
    device.may_open.clear()
    device.give(Lost("the plug is out"))
    assert until(lambda: device.open_now == 0)
    assert camera.read(0.05) is None
    device.refusals = [CameraError("not yet"), CameraError("not yet")]
    device.may_open.set()
    device.give(shot(2))
    assert next_frame(camera).sequence == 1
    assert device.openings == 4
    assert "the plug is out; looking for it for 20 s" in caplog.text


def test_a_device_that_does_not_come_back_ends_in_an_error_with_both_reasons(device, clock, opened):
    camera = opened(camera_of(device, clock, recover_for_s=0.3))
    device.refusals = []
    device.give(shot(1))
    assert next_frame(camera)
    device.refusals = [CameraError("nobody there")] * 50
    device.give(Lost("the plug is out"))
    with pytest.raises(CameraError, match=r"the plug is out; it did not come back within 0.3 s: nobody there"):
        until(lambda: camera.read(0.1))
    with pytest.raises(CameraError, match="the plug is out"):
        camera.read(0.0)
    camera.close()
    device.refusals = []
    device.give(shot(3))
    camera.open()
    assert next_frame(camera)


def test_without_recovery_a_lost_device_is_an_error_at_once(device, clock, opened):
    camera = opened(camera_of(device, clock, recover_for_s=0.0))
    device.give(Lost("the plug is out"))
    with pytest.raises(CameraError, match=r"^the plug is out$"):
        until(lambda: camera.read(0.1))
    assert device.openings == 1


def test_a_device_that_goes_silent_is_opened_again(device, clock, opened):
    camera = opened(camera_of(device, clock, silent_after_s=0.2))
    device.give(shot(1))
    assert next_frame(camera)
    assert until(lambda: device.openings >= 2)
    device.give(shot(2))
    assert next_frame(camera).sequence == 1


def test_a_device_that_opens_again_but_stays_silent_is_given_up(device, clock, opened):
    camera = opened(camera_of(device, clock, silent_after_s=0.1, recover_for_s=0.6))
    with pytest.raises(CameraError, match=r"gave nothing for 0.1 s; it did not come back within 0.6 s$"):
        until(lambda: camera.read(0.1))
    assert device.openings > 1


@pytest.mark.parametrize("error", [CameraError("the film is torn"), ValueError("odd")])
def test_an_error_that_is_no_loss_is_final(device, clock, opened, error, caplog):
    camera = opened(camera_of(device, clock))
    device.give(error)
    with pytest.raises(CameraError, match=r"the film is torn|camera eye failed: ValueError: odd"):
        until(lambda: camera.read(0.1))
    assert device.openings == 1


def test_the_last_frame_before_a_failure_can_still_be_read(device, clock, opened):
    camera = opened(camera_of(device, clock))
    device.give(shot(1), CameraError("the end"))
    assert until(lambda: device.open_now == 0)
    assert camera.read(0.0).sequence == 0
    with pytest.raises(CameraError, match="the end"):
        camera.read(0.0)


def test_what_cannot_be_opened_says_so_and_can_be_tried_again(device, clock, opened):
    camera = camera_of(device, clock)
    device.refusals = [CameraError("in use by another program")]
    with pytest.raises(CameraError, match="in use"):
        camera.open()
    assert not camera.is_open
    with pytest.raises(CameraError, match="closed"):
        camera.read(0.0)
    opened(camera)
    assert camera.is_open


def test_a_device_that_hangs_at_opening_is_given_up_and_lets_go_later(device, clock):
    camera = camera_of(device, clock, open_limit_s=0.1)
    device.may_open.clear()
    timer = threading.Timer(4.0, device.may_open.set)  # before close() would give up waiting for the thread
    timer.start()
    with pytest.raises(CameraError, match=r"camera eye did not open within 0.1 s"):
        camera.open()
    timer.join()


def test_closing_while_another_thread_reads_ends_its_waiting(device, clock):
    camera = camera_of(device, clock)
    camera.open()
    outcome = queue.Queue()

    def read():
        try:
            outcome.put(camera.read(20.0))
        except CameraError as error:
            outcome.put(error)

    reader = threading.Thread(target=read)
    reader.start()
    camera.close()
    reader.join(10)
    assert "closed" in str(outcome.get(timeout=10))


def test_no_thread_and_no_open_device_is_left_after_many_openings(device, clock):
    camera = camera_of(device, clock)
    for _ in range(20):
        camera.open()
        camera.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "camera-eye"]


def test_the_measured_rate_is_that_of_the_captures_in_the_last_two_seconds(device, opened):
    clock = ManualClock(now_ns=100 * NS_PER_S)
    camera = camera_of(device, clock)
    assert camera.measured_rate_hz is None
    opened(camera)
    assert camera.measured_rate_hz is None
    for k in range(11):
        device.give(shot(k, capture_ns=99 * NS_PER_S + k * NS_PER_S // 20))
        next_frame(camera)
    assert camera.measured_rate_hz == pytest.approx(20)
    clock.advance(5 * NS_PER_S)
    assert camera.measured_rate_hz is None


def test_a_stamp_is_carried_to_another_clock_by_its_age(clock):
    assert from_monotonic(clock, 123) == 123
    other = ManualClock(now_ns=50 * NS_PER_S)
    carried = from_monotonic(other, clock.now_ns() - NS_PER_S)
    assert 0 < 49 * NS_PER_S - carried + NS_PER_S < 20 * NS_PER_S


@pytest.mark.parametrize(
    "wrong",
    [{"recover_for_s": -1.0}, {"silent_after_s": 0.0}, {"open_limit_s": float("nan")}, {"name": " "}],
)
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigError):
        DeviceSettings(**wrong)
