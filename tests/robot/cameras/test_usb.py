"""USB cameras against a simulated device that speaks the kernel's interface; no video device is needed."""

import errno
import itertools
import time
from pathlib import Path

import numpy as np
import pytest

from mobile_vla.core import NS_PER_S, CameraError, ConfigError
from mobile_vla.robot.cameras import ReaderCamera
from mobile_vla.robot.cameras.drawing import Drawing, read_numbers
from mobile_vla.robot.cameras.usb import Usb, UsbSource, capture_time
from mobile_vla.robot.cameras.v4l2 import Kernel, Picture, VideoDevice, explain
from mobile_vla.robot.registry import make_camera

from ..conformance import CameraConformance
from . import simulated_v4l2 as sim
from .waiting import next_frame, next_frames, until

SETTINGS = {"device": Path("/dev/video-simulated"), "width": 96, "height": 64, "rate_hz": 50.0}


@pytest.fixture
def hardware():
    return sim.SimulatedCamera()


@pytest.fixture
def kernel(hardware):
    kernel = sim.SimulatedKernel(hardware)
    yield kernel
    assert until(lambda: not kernel.files), "a descriptor was left open"


@pytest.fixture
def usb(kernel, clock, opened):
    def camera(**settings):
        wanted = Usb(**(SETTINGS | settings))
        return ReaderCamera(
            lambda: UsbSource(wanted, clock, kernel),
            clock,
            name=wanted.name,
            rate_hz=wanted.rate_hz,
            recovery=wanted.recovery,
        )

    return camera


class TestUsb(CameraConformance):
    @pytest.fixture
    def camera(self, usb):
        camera = usb()
        yield camera
        camera.close()


@pytest.mark.parametrize("pixel_format", ["MJPG", "YUYV", "NV12", "RGB3", "BGR3"])
@pytest.mark.parametrize("padding", [0, 32])
def test_every_format_becomes_the_same_rgb(usb, hardware, opened, pixel_format, padding):
    hardware.offers = {pixel_format: [(96, 64)]}
    hardware.stride_padding = padding
    frame = next_frame(opened(usb()))
    number, _ = read_numbers(frame.pixels)
    drawn = Drawing(96, 64, seed=1).picture(number)
    assert frame.pixels.shape == drawn.shape
    difference = frame.pixels.astype(int) - drawn
    assert np.abs(difference.mean(axis=(0, 1))).max() < 4  # a channel in the place of another differs by tens
    assert np.abs(difference).mean() < 14
    assert frame.pixels.flags.writeable


def test_stamps_are_the_kernels_and_the_sequence_counts_what_it_counts(usb, hardware, opened):
    camera = opened(usb())
    frames = next_frames(camera, 8)
    for frame in frames:
        number, _ = read_numbers(frame.pixels)
        stamp_s = hardware.began_s + number / hardware.rate_hz
        assert frame.capture_ns == pytest.approx(stamp_s * NS_PER_S, abs=2000)
        assert frame.sequence - frames[0].sequence == number - read_numbers(frames[0].pixels)[0]
    assert 10 < camera.measured_rate_hz < 60


@pytest.mark.parametrize(
    "change",
    [{"stamp_flags": 0}, {"stamp_offset_ns": 10 * NS_PER_S}, {"stamp_offset_ns": -10 * NS_PER_S}],
)
def test_stamps_that_cannot_be_true_give_way_to_the_arrival(usb, hardware, opened, clock, change):
    for name, value in change.items():
        setattr(hardware, name, value)
    camera = opened(usb())
    frame = next_frame(camera)
    assert 0 <= clock.now_ns() - frame.capture_ns < 5 * NS_PER_S


def test_a_stamp_counts_within_the_second_before_the_arrival():
    def picture(stamp_ns):
        return Picture(b"", stamp_ns, 0, True)

    arrival_ns = 100 * NS_PER_S
    assert capture_time(picture(arrival_ns), arrival_ns) == arrival_ns
    assert capture_time(picture(arrival_ns - NS_PER_S), arrival_ns) == arrival_ns - NS_PER_S
    for wrong in (arrival_ns + 1, arrival_ns - NS_PER_S - 1, 0, None):
        assert capture_time(picture(wrong), arrival_ns) == arrival_ns


def test_damaged_and_cut_off_pictures_are_left_out_and_show_as_gaps(usb, hardware, opened):
    hardware.damage = set(range(0, 100_000, 3))
    hardware.truncate = set(range(1, 100_000, 3))
    frames = next_frames(opened(usb(pixel_format="YUYV")), 4)
    assert all(read_numbers(frame.pixels)[0] % 3 == 2 for frame in frames)
    assert all(b.sequence - a.sequence >= 3 for a, b in itertools.pairwise(frames))


def test_jpeg_data_that_are_no_jpeg_are_left_out(usb, hardware, opened):
    hardware.truncate = set(range(100_000))
    camera = opened(usb(pixel_format="MJPG", silent_after_s=0.3, recover_for_s=0.5))
    with pytest.raises(CameraError, match=r"gave nothing for 0.3 s"):
        until(lambda: camera.read(0.1) and None)


def test_unplugged_and_plugged_in_again_it_goes_on(usb, hardware, opened):
    camera = opened(usb(recover_for_s=60.0))
    before = next_frame(camera)
    hardware.plugged = False
    hardware.streaming_by = None
    assert until(lambda: camera.read(0.3) is None)
    time.sleep(0.2)
    assert camera.read(0.0) is None
    hardware.plugged = True
    after = next_frame(camera)
    assert after.sequence > before.sequence
    assert after.capture_ns > before.capture_ns


def test_unplugged_for_too_long_it_fails_and_says_so(usb, hardware, opened):
    camera = opened(usb(recover_for_s=0.3))
    next_frame(camera)
    hardware.plugged = False
    sentence = "was unplugged or its link failed .*; it did not come back within 0.3 s: there is no camera"
    with pytest.raises(CameraError, match=sentence):
        until(lambda: camera.read(0.1) and None)


def refusals():
    def busy(hardware):
        hardware.streaming_by = object()

    def at(request, error):
        return lambda hardware: hardware.refuse.update({request: error})

    def set_to(**values):
        return lambda hardware: [setattr(hardware, name, value) for name, value in values.items()]

    return [
        (busy, {}, "in use by another program: close that one .fuser -v /dev/video-simulated"),
        (set_to(plugged=False), {}, "there is no camera /dev/video-simulated: "),
        (set_to(open_error=errno.EACCES), {}, r"usermod -aG video \$USER and log in again"),
        (set_to(open_error=errno.EMFILE), {}, "Too many open files"),
        (set_to(able=sim.META), {}, "gives no pictures, it is another node of its device"),
        (set_to(able=sim.MPLANE | sim.STREAMING), {}, "in several planes.*camera.kind=gstreamer"),
        (at(sim.QUERYCAP, errno.ENOTTY), {}, "does not answer as a camera does"),
        (at(sim.STREAMON, errno.ENOSPC), {}, "the USB bus has no room"),
        (at(sim.S_FMT, errno.EBUSY), {}, "in use by another program"),
        (at(sim.S_PARM, errno.EIO), {}, "unplugged or its link failed"),
        (set_to(), {"width": 97}, r"does not give 97x64 as MJPG or YUYV .*choose of MJPG 96x64, 160x120; YUYV 96x64"),
        (set_to(), {"pixel_format": "NV12"}, "does not give 96x64 as NV12"),
        (at(sim.S_FMT, errno.EINVAL), {}, "choose of MJPG"),
        (set_to(offers={"RGB3": "any"}), {"pixel_format": "YUYV"}, "choose of RGB3 any size"),
        (set_to(fastest_hz=10.0), {}, "gives 10 pictures a second at 96x64 as MJPG, not 50: ask for that rate"),
    ]


@pytest.mark.parametrize(("prepare", "settings", "sentence"), refusals())
def test_what_it_cannot_open_it_says_with_the_remedy(usb, hardware, prepare, settings, sentence):
    prepare(hardware)
    with pytest.raises(CameraError, match=sentence):
        usb(**settings).open()


@pytest.mark.parametrize("error", [errno.ENOTTY, errno.EINVAL])
def test_a_device_whose_rate_cannot_be_set_is_taken_as_it_is(usb, hardware, opened, error):
    hardware.refuse[sim.S_PARM] = error
    assert next_frame(opened(usb()))


def test_a_device_that_does_not_tell_its_rate_is_taken_as_it_is(usb, hardware, opened):
    hardware.has_rate, hardware.fastest_hz = False, 10.0
    assert next_frame(opened(usb()))


def test_the_real_system_calls_answer_for_what_is_no_camera(tmp_path, clock):
    camera = make_camera("usb", {"device": str(tmp_path / "video7")}, clock)
    with pytest.raises(CameraError, match=r"there is no camera .*video7"):
        camera.open()
    with pytest.raises(CameraError, match="/dev/null does not answer as a camera does"):
        VideoDevice(Path("/dev/null"), Kernel()).start(640, 480, 30.0, ("MJPG",))


def test_the_group_that_may_open_the_device_is_named(tmp_path):
    sentence = explain(OSError(errno.EACCES, "Permission denied"), tmp_path)
    assert "usermod -aG" in sentence
    assert "video" in explain(OSError(errno.EACCES, "Permission denied"), tmp_path / "gone")


@pytest.mark.parametrize(
    "wrong",
    [{"width": 0}, {"height": -1}, {"rate_hz": float("inf")}, {"pixel_format": "H264"}, {"devise": "/dev/video1"}],
)
def test_settings_that_cannot_be_are_refused(wrong, clock):
    with pytest.raises(ConfigError):
        make_camera("usb", wrong, clock)
