from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.doctor import cameras
from mobile_vla.doctor.cameras import Video, judge_camera, judge_cameras
from mobile_vla.doctor.check import State
from mobile_vla.doctor.process import Answer

from .lines import sound
from .purposes import SIMULATED, VIDEO0, with_robot

VIDEOS = st.lists(
    st.builds(
        Video,
        st.integers(0, 3).map(lambda number: Path(f"/dev/video{number}")),
        st.sampled_from(["HD Webcam", "imx219"]),
        st.booleans(),
        st.booleans(),
    ),
    unique_by=lambda video: video.device,
)
GOOD = {
    "frames": 90, "rate_hz": 29.9, "nominal_hz": 30.0, "first_frame_s": 0.4, "width": 640, "height": 480,
    "brightness": 110.0, "age_s": 0.02,
}  # fmt: skip


@given(VIDEOS)
def test_only_the_robots_own_camera_can_fail(seen):
    assert judge_cameras(seen, SIMULATED).state is (State.OK if seen else State.NOT_NEEDED)
    check = judge_cameras(seen, with_robot("usb", camera_device=VIDEO0))
    sound(check)
    usable = any(video.device == VIDEO0 and video.permitted and video.pictures for video in seen)
    assert check.state is (State.OK if usable else State.FAIL)


def test_what_is_wrong_is_said_with_its_line():
    purpose = with_robot("usb", camera_device=VIDEO0)
    assert judge_cameras([Video(VIDEO0, "cam", False)], purpose).repairs == ('sudo usermod -aG video "$USER"',)
    assert "not there" in judge_cameras([], purpose).found
    assert "no pictures" in judge_cameras([Video(VIDEO0, "cam", True, pictures=False)], purpose).found


@pytest.mark.parametrize(
    ("changed", "state", "said"),
    [
        ({}, State.OK, "29.9 frames/s"),
        ({"rate_hz": 14.9}, State.WARN, "14.9 of 30 frames/s"),
        ({"brightness": 1.0}, State.WARN, "black"),
        ({"frames": 0}, State.FAIL, "no frame"),
    ],
)
def test_the_measured_camera_is_judged(changed, state, said):
    check = judge_camera(Answer({**GOOD, **changed}), "usb")
    assert check.state is state
    assert said in check.found
    sound(check)


def test_a_camera_that_cannot_be_opened_fails_in_its_own_words():
    said = "no right to open /dev/video0: `sudo usermod -aG video $USER`"
    check = judge_camera(Answer(None, said), "usb")
    assert check.state is State.FAIL
    assert said in check.found
    assert check.repairs == ("sudo usermod -aG video $USER",)


def test_a_camera_is_opened_and_measured(monkeypatch):
    monkeypatch.setattr(cameras, "SECONDS", 0.5)
    answer = cameras.try_camera(with_robot("pattern"))
    assert answer.trouble == ""
    assert answer.values["frames"] > 0
    assert judge_camera(answer, "pattern").state is not State.FAIL


def test_a_camera_that_is_not_there_is_told(monkeypatch):
    answer = cameras.try_camera(with_robot("usb", camera_device="/dev/video93"))
    assert "/dev/video93" in answer.trouble
    assert "Error" not in answer.trouble


def test_this_machines_cameras_are_listed():
    for video in cameras.look_at_cameras():
        assert str(video.device).startswith("/dev/video")
