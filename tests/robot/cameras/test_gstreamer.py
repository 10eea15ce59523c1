"""GStreamer as it is installed: gst-launch-1.0 runs videotestsrc."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from mobile_vla.core import NS_PER_S, CameraError, ConfigError
from mobile_vla.robot.cameras import gstreamer
from mobile_vla.robot.cameras.gstreamer import Gstreamer, GstreamerSource
from mobile_vla.robot.registry import make_camera

from ..conformance import CameraConformance
from .waiting import next_frame, next_frames, until

BALL = "videotestsrc is-live=true pattern=ball ! video/x-raw,framerate=30/1"
SMALL = {"width": 96, "height": 64, "pipeline": BALL, "open_limit_s": 60.0, "silent_after_s": 30.0}


def children(of=None):
    """The gst-launch processes of this process, or of another, by pid."""
    listed = os.listdir("/proc")
    found = []
    for pid in filter(str.isdecimal, listed):
        try:
            with open(f"/proc/{pid}/stat") as stat, open(f"/proc/{pid}/cmdline", "rb") as command:
                parent = int(stat.read().rpartition(")")[2].split()[1])
                if parent == (of or os.getpid()) and gstreamer.PROGRAM.encode() in command.read():
                    found.append(int(pid))
        except OSError:
            continue
    return found


class TestGstreamer(CameraConformance):
    @pytest.fixture
    def camera(self, clock):
        camera = make_camera("gstreamer", SMALL, clock)
        yield camera
        camera.close()
        assert not children()


@pytest.mark.parametrize(("width", "height"), [(96, 64), (97, 63), (98, 62), (99, 61)])
def test_rows_and_colours_are_in_their_places_at_any_width(clock, opened, width, height):
    pipeline = "videotestsrc is-live=true pattern=solid-color foreground-color=0xffc8280a"
    camera = opened(make_camera("gstreamer", SMALL | {"pipeline": pipeline, "width": width, "height": height}, clock))
    pixels = next_frame(camera).pixels
    assert pixels.shape == (height, width, 3)
    assert np.abs(pixels.astype(int) - (200, 40, 10)).max() < 8


def test_rows_are_not_sheared(clock, opened):
    pipeline = "videotestsrc is-live=true pattern=gradient"  # from top to bottom, so every row has one value
    camera = opened(make_camera("gstreamer", SMALL | {"pipeline": pipeline, "width": 97}, clock))
    pixels = next_frame(camera).pixels
    assert np.ptp(pixels, axis=1).max() <= 2
    assert np.ptp(pixels[:, 0, 0]) > 100


def test_it_is_stamped_at_its_arrival_less_the_latency(clock, opened):
    camera = opened(make_camera("gstreamer", SMALL | {"latency_s": 0.8}, clock))
    next_frames(camera, 3)
    frame = next_frame(camera)
    age_s = (clock.now_ns() - frame.capture_ns) / NS_PER_S
    assert 0.8 <= age_s < 10


def test_it_gives_about_its_rate(clock, opened):
    camera = opened(make_camera("gstreamer", SMALL, clock))
    next_frames(camera, 30)
    assert 5 < camera.measured_rate_hz < 45


def test_its_process_killed_it_starts_another(clock, opened):
    camera = opened(make_camera("gstreamer", SMALL | {"recover_for_s": 60.0}, clock))
    before = next_frame(camera)
    (pid,) = children()
    os.kill(pid, signal.SIGKILL)
    assert until(lambda: children() not in ([], [pid]))
    after = until(lambda: (frame := camera.read(0.5)) and frame.sequence > before.sequence + 3 and frame)
    assert after.capture_ns > before.capture_ns


def test_its_process_stopped_counts_as_silent_and_is_replaced(clock, opened):
    camera = opened(make_camera("gstreamer", SMALL | {"silent_after_s": 0.5, "recover_for_s": 60.0}, clock))
    next_frame(camera)
    (pid,) = children()
    os.kill(pid, signal.SIGSTOP)
    assert until(lambda: children() not in ([], [pid]))
    assert next_frame(camera)


def test_its_process_ends_when_ours_is_killed():
    program = f"""
import time
from mobile_vla.core import MonotonicClock
from mobile_vla.robot.registry import make_camera
camera = make_camera("gstreamer", {SMALL!r}, MonotonicClock())
camera.open()
while camera.read(1.0) is None: pass
print("reading", flush=True)
time.sleep(100)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as ours:
        assert ours.stdout.readline() == "reading\n"
        (pid,) = children(ours.pid)
        ours.kill()
    assert until(lambda: not os.path.exists(f"/proc/{pid}"))


def test_a_pipeline_that_ends_is_an_error_when_it_does_not_come_back(clock, opened):
    pipeline = "videotestsrc num-buffers=3"
    camera = opened(make_camera("gstreamer", SMALL | {"pipeline": pipeline, "recover_for_s": 0.0}, clock))
    with pytest.raises(CameraError, match=r"camera front: the pipeline 'videotestsrc num-buffers=3' ended"):
        until(lambda: camera.read(0.1) and None)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"pipeline": "nosuchsource"}, 'ended: .*no element "nosuchsource"'),
        ({"pipeline": "v4l2src device=/dev/video-none"}, "ended: .*/dev/video-none"),
        ({"pipeline": "rtspsrc location=rtsp://u:hidden@127.0.0.1:9/x ! decodebin"}, r"rtsp://\*\*\*@127.0.0.1:9/x"),
        ({"pipeline": None, "sensor_id": 0}, 'CSI camera.*no element "nvarguscamerasrc"'),
    ],
)
def test_what_it_cannot_open_it_says_in_gstreamers_words(clock, settings, sentence):
    camera = make_camera("gstreamer", SMALL | settings, clock)
    with pytest.raises(CameraError, match=sentence) as caught:
        camera.open()
    assert "hidden" not in str(caught.value)
    assert not children()


def test_a_pipeline_that_gives_nothing_is_given_up(clock):
    pipeline = "fakesrc is-live=true do-timestamp=true sizetype=empty num-buffers=-1 ! valve drop=true ! rawvideoparse"
    camera = make_camera("gstreamer", SMALL | {"pipeline": pipeline, "open_limit_s": 0.5}, clock)
    with pytest.raises(CameraError, match=r"gave no picture within 0.5 s"):
        camera.open()
    assert until(lambda: not children())


def test_without_gstreamer_it_says_what_to_install(clock, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(CameraError, match=r"gst-launch-1\.0 is not installed: run sudo apt install gstreamer1.0-tools"):
        make_camera("gstreamer", SMALL, clock).open()


def test_the_csi_camera_of_a_jetson_is_asked_for_its_size_and_rate():
    command = " ".join(Gstreamer(sensor_id=1, width=1280, height=720, rate_hz=30.0).command())
    assert "nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM),width=1280,height=720,framerate=30/1" in command
    assert command.endswith("queue max-size-buffers=1 leaky=downstream ! fdsink fd=1 sync=false")


def test_a_source_that_was_never_opened_can_be_closed_and_gives_nothing(clock):
    source = GstreamerSource(Gstreamer(pipeline=BALL), clock)
    source.close()
    with pytest.raises(CameraError, match="closed"):
        source.take(0.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"pipeline": None},
        {"sensor_id": 0},
        {"pipeline": ""},
        {"pipeline": "videotestsrc 'open"},
        {"latency_s": 2.0},
        {"latency_s": -0.1},
        {"width": 0},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong, clock):
    with pytest.raises(ConfigError):
        make_camera("gstreamer", SMALL | wrong, clock)
