import time

import numpy as np
import pytest

from mobile_vla.core import NS_PER_S, CameraError, ConfigError
from mobile_vla.robot.cameras.drawing import read_numbers
from mobile_vla.robot.registry import make_camera

from ..conformance import CameraConformance
from . import films
from .films import HEIGHT, WIDTH, film
from .waiting import next_frame, next_frames, until


class TestVideoFile(CameraConformance):
    @pytest.fixture
    def camera(self, clock, tmp_path):
        camera = make_camera("file", {"path": str(film(tmp_path / "film.mp4", 10)), "loop": True}, clock)
        yield camera
        camera.close()


class TestVideoFileAsFastAsItIsRead(CameraConformance):
    @pytest.fixture
    def camera(self, clock, tmp_path):
        settings = {"path": str(film(tmp_path / "film.mp4", 10)), "loop": True, "pace": 0}
        camera = make_camera("file", settings, clock)
        yield camera
        camera.close()


def test_its_pictures_come_in_order_in_rgb_and_then_it_says_that_it_has_ended(clock, opened, tmp_path):
    camera = opened(make_camera("file", {"path": str(film(tmp_path / "film.mp4", 12)), "pace": 0}, clock))
    frames = next_frames(camera, 12)
    assert [read_numbers(frame.pixels)[0] for frame in frames] == list(range(12))
    assert {frame.pixels.shape for frame in frames} == {(HEIGHT, WIDTH, 3)}
    with pytest.raises(CameraError, match=r"film.mp4 has ended: set loop to begin again"):
        until(lambda: camera.read(0.1))
    assert camera.rate_hz == pytest.approx(30, rel=0.01)


def test_colours_stay_what_they_are(clock, opened, tmp_path, monkeypatch):
    class Red:
        def picture(self, number):
            return np.full((HEIGHT, WIDTH, 3), (200, 40, 10), dtype=np.uint8)

    monkeypatch.setattr(films, "DRAWING", Red())
    camera = opened(make_camera("file", {"path": str(film(tmp_path / "red.mp4", 3)), "pace": 0}, clock))
    assert next_frame(camera).pixels.mean(axis=(0, 1)) == pytest.approx([200, 40, 10], abs=8)


def test_its_own_time_stamps_pace_it(clock, opened, tmp_path):
    path = film(tmp_path / "film.mkv", 4, stamps_s=[0.0, 0.1, 0.5, 0.55])
    camera = opened(make_camera("file", {"path": str(path), "rate_hz": 10}, clock))
    stamps = {}

    def read_on():
        frame = camera.read(0.5)
        if frame is not None:
            stamps[read_numbers(frame.pixels)[0]] = frame.capture_ns

    with pytest.raises(CameraError, match="ended"):
        until(read_on)
    assert stamps[3] == max(stamps.values())
    assert 0 in stamps or 1 in stamps
    if {0, 2} <= stamps.keys():
        assert (stamps[2] - stamps[0]) / NS_PER_S >= 0.5 - 1e-3


def test_held_up_it_drops_pictures_and_shows_it_in_the_sequence(clock, opened, tmp_path):
    camera = opened(make_camera("file", {"path": str(film(tmp_path / "film.mp4", 60)), "loop": True}, clock))
    first = next_frame(camera)
    time.sleep(0.5)
    assert next_frame(camera).sequence - first.sequence > 3


def test_a_file_that_is_not_there_is_named_with_the_nearest(clock, tmp_path):
    film(tmp_path / "drive_01.mp4", 2)
    with pytest.raises(CameraError, match=r"no video .*drive01.mp4; did you mean drive_01.mp4\?"):
        make_camera("file", {"path": str(tmp_path / "drive01.mp4")}, clock)
    with pytest.raises(CameraError, match=r"there is no video .*gone$"):
        make_camera("file", {"path": str(tmp_path / "nowhere" / "gone")}, clock)


def test_what_is_no_video_is_refused(clock, tmp_path):
    (tmp_path / "text.mp4").write_text("nothing to see")
    with pytest.raises(CameraError, match="cannot be read as a video"):
        make_camera("file", {"path": str(tmp_path / "text.mp4")}, clock)


def test_a_file_without_video_is_refused(clock, tmp_path):
    import wave

    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(b"\0\0" * 8000)
    with pytest.raises(CameraError, match="holds no video"):
        make_camera("file", {"path": str(tmp_path / "sound.wav")}, clock)


def test_a_file_that_is_cut_off_gives_what_it_has_and_then_ends(clock, opened, tmp_path):
    path = film(tmp_path / "film.mkv", 60)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    camera = opened(make_camera("file", {"path": str(path), "pace": 0, "rate_hz": 30}, clock))
    assert len(next_frames(camera, 20)) == 20
    with pytest.raises(CameraError, match=r"has ended|is damaged after"):
        next_frames(camera, 60)


def test_a_file_without_time_stamps_is_paced_by_its_rate(clock, opened, tmp_path):
    path = film(tmp_path / "film.h264", 12, codec="libx264", options={"bf": "0"})
    camera = opened(make_camera("file", {"path": str(path), "pace": 0, "rate_hz": 20}, clock))
    assert [read_numbers(frame.pixels)[0] for frame in next_frames(camera, 12)] == list(range(12))
    assert camera.rate_hz == 20


def test_a_picture_that_cannot_be_decoded_ends_it_with_its_time(clock, opened, tmp_path):
    path = film(tmp_path / "film.mov", 20, codec="png")
    data = bytearray(path.read_bytes())
    middle = data.index(b"IDAT", len(data) // 2)
    data[middle - 30 : middle + 400] = bytes(430)
    path.write_bytes(data)
    camera = opened(make_camera("file", {"path": str(path), "pace": 0, "rate_hz": 30}, clock))
    with pytest.raises(CameraError, match=r"film.mov (is damaged after 0\.\d s|has ended)"):
        next_frames(camera, 20)


@pytest.mark.parametrize("wrong", [{"pace": -1.0}, {"rate_hz": 0.0}, {"name": ""}, {"pase": 1.0}])
def test_settings_that_cannot_be_are_refused(wrong, clock):
    with pytest.raises(ConfigError):
        make_camera("file", {"path": "film.mp4"} | wrong, clock)
