"""Streams from servers on this machine: MJPEG over HTTP, H.264 and MJPEG over RTSP."""

import itertools

import numpy as np
import pytest

from mobile_vla.core import NS_PER_S, CameraError, ConfigError
from mobile_vla.robot.cameras.drawing import read_numbers
from mobile_vla.robot.cameras.stream import Stream, StreamSource
from mobile_vla.robot.registry import make_camera

from ..conformance import CameraConformance
from .films import film
from .streams import MjpegServer, rtsp_server
from .waiting import next_frame, next_frames, until

PATIENT = {"open_limit_s": 30.0, "silent_after_s": 15.0, "recover_for_s": 60.0}
HASTY = {"open_limit_s": 1.0, "silent_after_s": 0.5, "recover_for_s": 0.0}


@pytest.fixture
def server():
    server = MjpegServer().start()
    yield server
    server.stop()


@pytest.fixture
def guarded():
    server = MjpegServer(password="swordfish").start()
    yield server
    server.stop()


def stream(url, clock, **settings):
    return make_camera("stream", PATIENT | {"url": url} | settings, clock)


@pytest.fixture(scope="module")
def rtsp_url(tmp_path_factory):
    """H.264 as cameras on a network encode it: no pictures that wait for later ones, a whole one every second."""
    path = tmp_path_factory.mktemp("rtsp") / "film.mp4"
    film(path, 1200, codec="libx264", options={"bf": "0", "g": "30"})
    with rtsp_server(f"( filesrc location={path} ! qtdemux ! rtph264pay name=pay0 )") as (url, _):
        yield url


class TestMjpegOverHttp(CameraConformance):
    @pytest.fixture
    def camera(self, server, clock):
        camera = stream(server.url(), clock)
        yield camera
        camera.close()


class TestRtsp(CameraConformance):
    """A camera as most are on a network: H.264 over RTSP, here 40 s of it."""

    @pytest.fixture
    def camera(self, rtsp_url, clock):
        camera = stream(rtsp_url, clock)
        yield camera
        camera.close()

    @pytest.mark.parametrize("transport", ["tcp", "udp"])
    def test_its_pictures_come_whole_and_in_order(self, rtsp_url, clock, opened, transport):
        frames = next_frames(opened(stream(rtsp_url, clock, transport=transport)), 10)
        numbers = [read_numbers(frame.pixels) for frame in frames]
        assert all(top == bottom for top, bottom in numbers)
        assert all(a < b for (a, _), (b, _) in itertools.pairwise(numbers))
        assert 0 <= clock.now_ns() - frames[-1].capture_ns < 10 * NS_PER_S


def test_an_rtsp_camera_that_goes_away_is_lost(clock, opened):
    raw = "video/x-raw,format=I420,width=96,height=64,framerate=30/1"
    with rtsp_server(f"( videotestsrc is-live=true ! {raw} ! jpegenc ! rtpjpegpay name=pay0 )") as (url, server):
        camera = opened(stream(url, clock, recover_for_s=0.3))
        assert next_frame(camera).pixels.shape == (64, 96, 3)
        server.kill()
        with pytest.raises(CameraError, match=r"the stream rtsp://127.* did not come back within 0.3 s"):
            until(lambda: camera.read(0.1) and None)


def test_pictures_come_in_order_in_rgb_and_are_new(server, clock, opened):
    camera = opened(stream(server.url(), clock))
    frames = next_frames(camera, 20)
    numbers = [read_numbers(frame.pixels)[0] for frame in frames]
    assert all(a < b for a, b in itertools.pairwise(numbers))
    assert server.number - numbers[-1] <= 10
    drawn = np.asarray(until(lambda: read_numbers(frames[-1].pixels)[0] == numbers[-1]) and frames[-1].pixels)
    assert drawn.shape == (64, 96, 3)
    assert 5 < camera.measured_rate_hz < 40


def test_the_latency_is_taken_off_the_arrival(server, clock, opened):
    camera = opened(stream(server.url(), clock, latency_s=0.7))
    frame = next_frame(camera)
    assert clock.now_ns() - frame.capture_ns >= 0.7 * NS_PER_S


def test_the_server_stopped_and_begun_again_the_stream_goes_on(server, clock, opened):
    camera = opened(stream(server.url(), clock))
    before = next_frame(camera)
    server.stop()
    assert until(lambda: camera.read(0.3) is None)
    server.start()
    after = next_frame(camera)
    assert after.sequence > before.sequence
    assert after.capture_ns > before.capture_ns


def test_a_server_that_falls_silent_is_noticed(server, clock, opened):
    camera = opened(stream(server.url(), clock, **HASTY | {"open_limit_s": 10.0}))
    next_frame(camera)
    server.mood = "silent"
    with pytest.raises(CameraError, match=r"broke off: it did not answer in time"):
        until(lambda: camera.read(0.1) and None)


@pytest.mark.parametrize(
    ("mood", "sentence"),
    [
        ("mute", "cannot be opened: it did not answer in time; check address and network"),
        ("text", "cannot be opened: "),
    ],
)
def test_a_server_that_gives_no_pictures_is_refused(server, clock, mood, sentence):
    server.mood = mood
    with pytest.raises(CameraError, match=sentence):
        stream(server.url(), clock, **HASTY).open()


def test_parts_that_hold_no_picture_are_none(server, clock, opened):
    server.mood = "garbled"
    camera = stream(server.url(), clock, **HASTY | {"silent_after_s": 2.0})

    def open_and_read():
        opened(camera)
        until(lambda: camera.read(0.1) and None)

    with pytest.raises(CameraError, match=r"cannot be opened|gave nothing for 2 s"):
        open_and_read()


def test_user_and_password_in_the_address_are_used(guarded, clock, opened):
    assert next_frame(opened(stream(guarded.url("robot:swordfish@"), clock)))


def test_without_them_it_says_what_is_asked_for(guarded, clock):
    with pytest.raises(CameraError, match="asks for a user and a password; write them as //user:password@"):
        stream(guarded.url(), clock).open()


@pytest.mark.parametrize("stopped", [False, True])
def test_a_password_is_never_shown(guarded, clock, stopped, caplog, capfd):
    if stopped:
        guarded.stop()
    url = guarded.url("robot:hidden-word@")
    with pytest.raises(CameraError, match=r"http://\*\*\*@127.0.0.1") as caught:
        stream(url, clock).open()
    error, shown = caught.value, caplog.text + "".join(capfd.readouterr())
    while error is not None:
        shown += str(error)
        error = error.__cause__ or error.__context__
    assert "hidden" not in shown + repr(Stream(url=url))


def test_nobody_there_is_said_at_once(clock):
    with pytest.raises(CameraError, match="cannot be opened: connection refused"):
        stream("rtsp://127.0.0.1:9/camera", clock).open()


def test_a_stream_without_pictures_is_refused(clock):
    sound = rtsp_server("( audiotestsrc is-live=true ! mulawenc ! rtppcmupay name=pay0 )")
    with sound as (url, _), pytest.raises(CameraError, match="holds no video: check its path"):
        stream(url, clock).open()


def test_a_source_that_was_never_opened_can_be_closed_and_gives_nothing(clock):
    source = StreamSource(Stream(url="rtsp://camera/1"), clock)
    source.close()
    with pytest.raises(CameraError, match="closed"):
        source.take(0.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "camera.local/video"},
        {"url": "/dev/video0"},
        {"latency_s": -1.0},
        {"rate_hz": 0.0},
        {"transport": "pigeon"},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong, clock):
    with pytest.raises(ConfigError):
        make_camera("stream", {"url": "rtsp://camera/1"} | wrong, clock)
