"""Words against labels and motion, and what is out of balance."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobile_vla.data import Dataset
from mobile_vla.data import schema as s
from mobile_vla.data.inspection import Grade, Thresholds, inspect
from mobile_vla.data.inspection.motion import motion_of
from mobile_vla.data.inspection.summary import summary

from . import drives
from .drives import drive, sound, write

LEFT, RIGHT = "pass the box on the left and go to the red cup", "상자 오른쪽으로 돌아 파란 공까지 가"


@pytest.fixture
def look(tmp_path):
    def run(episodes, **changes):
        root = write(tmp_path / f"set-{len(list(tmp_path.iterdir()))}", episodes)
        report = inspect(root, Thresholds(**changes))
        return [(found.check, str(found.grade), found.episode) for found in report.findings], report

    return run


def mirrored(frames):
    """The same drive with left and right exchanged in the motion."""
    for frame in frames:
        for name in (s.STATE, s.ACTION):
            frame[name] = frame[name] * np.array([1, -1, -1], np.float32)
    return frames


def test_words_that_cannot_be_followed_are_named_once(look):
    episodes = [*sound(2), *(("go to the moon", drive(90 + place)) for place in range(3))]
    found, report = look(episodes)
    assert found == [("words", "warning", 2)]
    assert "'moon', which I do not know" in report.findings[0].what
    assert "and 2 more episodes" in report.findings[0].what
    assert report.balance["modes"]["not understood"] == 3


def test_labels_that_contradict_the_words_are_found(look):
    labels = {s.EXTRA_GOAL_MODE: "go", s.EXTRA_GOAL_KIND: "cup", s.EXTRA_GOAL_COLOUR: "red", s.EXTRA_GOAL_SIDE: None}
    go = "go to the red cup"
    assert look([(go, drive(1), labels)])[0] == []
    found, report = look([(go, drive(1), labels | {s.EXTRA_GOAL_COLOUR: "blue"})])
    assert found == [("labels", "warning", 0)]
    assert report.findings[0].what == "goal_colour is 'blue', and the rules read 'red' in 'go to the red cup'"
    assert look([(go, drive(1), labels | {s.EXTRA_GOAL_SIDE: "left"})])[0] == [("labels", "note", 0)]


@pytest.mark.parametrize(("one", "other", "check"), [(LEFT, RIGHT, "sides"), ("turn left", "turn right", "turns")])
def test_left_and_right_exchanged_throughout_is_an_error(look, one, other, check):
    episodes = [(words, drive(10 * place, words)) for place, words in enumerate([one, other] * 6)]
    found, report = look(episodes)
    assert found == []
    assert report.remarks[check] == "12 of 12 episodes go to the side that their words name"
    found, report = look([(words, mirrored(frames)) for words, frames in episodes])
    assert found == [(check, "error", 0)]
    assert "exchanged" in report.findings[0].remedy


def test_a_single_drive_to_the_other_side_is_a_note(look):
    episodes = [(words, drive(10 * place, words)) for place, words in enumerate([LEFT, RIGHT] * 6)]
    episodes[4] = (LEFT, mirrored(drive(40, LEFT)))
    found, report = look(episodes)
    assert found == [("sides", "note", 4)]
    assert "1 of 12 episodes" in report.findings[0].what
    for place in (0, 2, 6):
        episodes[place] = (LEFT, mirrored(episodes[place][1]))
    assert look(episodes)[0] == [("sides", "warning", 0)]


@settings(max_examples=12)
@given(
    speed=st.floats(0.1, 0.5),
    lateral=st.floats(-0.3, 0.3),
    yaw=st.floats(-1.0, 1.0),
    length=st.integers(10, 30),
)
def test_the_path_lies_where_the_velocity_leads(tmp_path_factory, speed, lateral, yaw, length):
    """A drive at constant velocities is an arc: the sagitta lies against the turn, and mirrors with it."""
    root = tmp_path_factory.mktemp("path") / "set"
    one, two = drive(length=length), drive(length=length)
    for frame, other in zip(one, two, strict=True):
        frame[s.STATE] = other[s.STATE] = np.array([speed, lateral, yaw], np.float32)
    dataset = Dataset.open(write(root, [("stop", one), ("stop", mirrored(two))]))
    here, there = (motion_of(episode, drives.CONTRACT, 0.02) for episode in dataset)
    assert here.turned_rad == pytest.approx(yaw * length / 5, abs=1e-3)
    assert there.turned_rad == pytest.approx(-here.turned_rad, abs=1e-6)
    if np.isfinite(here.aside_m):
        assert there.aside_m == pytest.approx(-here.aside_m, abs=1e-6)
        if 0.05 < abs(yaw * length / 5) < 3.0:
            assert np.sign(here.aside_m) == -np.sign(yaw)


def test_a_data_set_of_one_side_is_out_of_balance(look):
    found, report = look([(LEFT, drive(place, LEFT)) for place in range(20)])
    assert found == [("balance", "warning", None), ("balance", "note", None)]
    assert report.findings[0].what == "of the episodes that pass on a side, 20 are left and 0 right"
    assert "the same goal" in report.findings[1].what
    found, report = look([("turn right", drive(place, "turn right")) for place in range(20)])
    assert "of the episodes that turn on a side, 0 are left and 20 right" in report.findings[0].what
    assert "0 episodes go mostly left and 20 mostly right (turning)" in report.findings[1].what


def test_too_much_standing_is_found(look):
    episodes = sound(20)
    for _, frames in episodes:
        for frame in frames[:8]:
            frame[s.ACTION] = np.zeros(3, np.float32)
    found, report = look(episodes)
    assert found == [("balance", "warning", None)]
    assert "stand still in 67% of all frames" in report.findings[0].what
    assert report.findings[0].value == pytest.approx(2 / 3)


def test_actions_that_are_mostly_at_their_limit_are_noted(look):
    episodes = sound(20)
    for _, frames in episodes:
        for frame in frames:
            frame[s.ACTION] = np.where(np.abs(frame[s.ACTION]) > 0.25, 0.6, frame[s.ACTION]).astype(np.float32)
    found, report = look(episodes)
    assert found == [("balance", "note", None)]
    assert "linear_x is at its limit of 0.6" in report.findings[0].what


def test_a_status_or_an_axis_that_never_occurs_is_noted_in_a_large_set(look):
    episodes = []
    for place in range(21):
        words = ("go to the red cup", "turn left", "turn right")[place % 3]
        frames = drive(place, words, 6)
        for frame in frames:
            frame[s.STATUS] = place % 3
        episodes.append((words, frames))
    assert look(episodes)[0] == []
    found, report = look(episodes, min_for_absence=21)
    assert {grade for _, grade, _ in found} == {Grade.NOTE}
    assert {finding.what for finding in report.findings} == {
        "linear_y is never used",
        f"no frame is labelled as {s.STATUSES[3]}",
    }


def test_the_summary_agrees_with_the_columns(tmp_path):
    dataset = Dataset.open(write(tmp_path / "set", sound(8)))
    figures = summary(dataset)
    actions = dataset.columns([s.ACTION])[s.ACTION]
    for place, axis in enumerate(drives.CONTRACT.axes):
        row = figures.axes[s.ACTION][axis]
        assert row["mean"] == pytest.approx(actions[:, place].mean(), abs=1e-6)
        assert row["std"] == pytest.approx(actions[:, place].std(), abs=1e-6)
        assert row["q90"] == pytest.approx(np.quantile(actions[:, place], 0.9), abs=1e-6)
    left = (actions[:, 1] > 0.02 * 0.6).sum()
    right = (actions[:, 1] < -0.02 * 0.6).sum()
    assert figures.shares["sideways"]["left"] == pytest.approx(left / (left + right))
    assert figures.shares["still"] == {"still": 0, "moving": 1}
    assert figures.shares["status"]["no label"] == 1
