"""Exchanged channels, and episodes that are there twice."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobile_vla.data import Dataset, Split, data_hash
from mobile_vla.data import schema as s
from mobile_vla.data.inspection import inspect
from mobile_vla.data.store import SPLIT_PATH, write_json

from .drives import drive, mark, sound, write

GO = "go to the red cup"


@pytest.fixture
def look(tmp_path):
    def run(episodes):
        report = inspect(write(tmp_path / f"set-{len(list(tmp_path.iterdir()))}", episodes))
        return [(found.check, str(found.grade), found.episode) for found in report.findings], report

    return run


def swapped(frames):
    for frame in frames:
        frame[s.IMAGE_FRONT] = np.ascontiguousarray(frame[s.IMAGE_FRONT][..., ::-1])
    return frames


def marked(count, length=12):
    episodes = sound(count, length)
    for place, (_, frames) in enumerate(episodes):
        mark(frames, (s.Colour.RED, s.Colour.BLUE)[place % 2])
    return episodes


def test_a_swapped_data_set_is_an_error(look):
    episodes = marked(4)
    found, report = look(episodes)
    assert found == []
    assert report.remarks["channels"].startswith("12 of 12 looks")
    found, report = look([(words, swapped(frames)) for words, frames in episodes])
    assert found == [("channels", "error", None)]
    assert "12 of 12 looks at objects of a known colour fit BGR" in report.findings[0].what


@settings(max_examples=6)
@given(bad=st.sets(st.integers(0, 5), min_size=1, max_size=3))
def test_swapped_episodes_among_right_ones_are_named(tmp_path_factory, bad):
    episodes = marked(6, length=40)
    for place in bad:
        swapped(episodes[place][1])
    report = inspect(write(tmp_path_factory.mktemp("swapped") / "set", episodes))
    assert [(finding.check, finding.episode) for finding in report.findings] == [
        ("channels", place) for place in sorted(bad)
    ]


def test_few_looks_are_a_warning(look):
    episodes = marked(6, length=20)
    swapped(episodes[4][1])
    found, report = look(episodes)
    assert found == [("channels", "warning", 4)]
    assert "4 of 4 looks" in report.findings[0].what


def test_the_box_of_the_named_target_serves_too(look):
    episodes = []
    for place in range(3):
        frames = drive(place, length=24)
        mark(frames, s.Colour.RED)
        for frame in frames:
            del frame[s.OBJECTS]
            frame |= {s.GROUNDING_VISIBLE: 1.0, s.GROUNDING_BOX: np.array([40 / 96, 16 / 48, 60 / 96, 32 / 48])}
        episodes.append((GO, frames))
    found, report = look(episodes)
    assert found == []
    assert report.remarks["channels"].startswith("15 of 15")
    assert look([(words, swapped(frames)) for words, frames in episodes])[0] == [("channels", "error", None)]


def test_boxes_that_fit_neither_order_are_a_warning(look):
    episodes = sound(4)
    for place, (_, frames) in enumerate(episodes):
        mark(frames, s.Colour.RED, (220, 30, 30) if place % 2 else (30, 30, 220))
    found, report = look(episodes)
    assert found == [("channels", "warning", None)]
    assert report.findings[0].value == 0.5


def test_green_and_purple_say_nothing(look):
    episodes = sound(4)
    for place, (_, frames) in enumerate(episodes):
        mark(frames, (s.Colour.GREEN, s.Colour.PURPLE)[place % 2], (30, 200, 60))
    found, report = look([(words, swapped(frames)) for words, frames in episodes])
    assert found == []
    assert "not checked" in report.remarks["channels"]


def tinted(count):
    return [(words, drive(place, words, 12, tint=30)) for place, (words, _) in enumerate(sound(count))]


def test_without_marks_an_episode_against_the_others_is_a_hint(look):
    episodes = tinted(12)
    found, report = look(episodes)
    assert found == []
    assert "cannot tell when all of them are wrong" in report.remarks["channels"]
    swapped(episodes[3][1])
    swapped(episodes[9][1])
    found, report = look(episodes)
    assert found == [("channels", "warning", 3), ("channels", "warning", 9)]
    assert report.findings[0].remedy.startswith("a hint, no proof")
    for place in (0, 1, 2, 4):
        swapped(episodes[place][1])
    found, report = look(episodes)
    assert len(found) == 6
    assert "one of the two kinds" in report.findings[0].what


def test_grey_or_few_episodes_are_said_not_to_be_checked(look):
    for episodes in (sound(12), tinted(4)):
        swapped(episodes[3][1])
        found, report = look(episodes)
        assert found == []
        assert "not checked" in report.remarks["channels"]


def divided(root, train, test):
    dataset = Dataset.open(root)
    split = Split(tuple(train), (), tuple(test), (0.5, 0.0, 0.5), "", data_hash(dataset.all_records))
    write_json(root / SPLIT_PATH, split.to_dict())
    return inspect(root).findings


def test_the_same_episode_twice_is_found_and_is_an_error_over_a_split(tmp_path):
    episodes = sound(5)
    episodes[3] = ("come closer", episodes[1][1])
    root = write(tmp_path / "set", episodes)
    (finding,) = inspect(root).findings
    assert (finding.check, str(finding.grade), finding.episode) == ("duplicate", "warning", 3)
    assert finding.what == "it has the same pictures and actions as episode 1, under other words"
    (finding,) = divided(root, [0, 1, 2, 3], [4])
    assert str(finding.grade) == "warning"
    (finding,) = divided(root, [0, 1, 2], [3, 4])
    assert str(finding.grade) == "error"
    assert "one is in train, the other in test" in finding.what


def noisy(frames, rng, levels):
    for frame in frames:
        noise = rng.integers(-levels, levels + 1, frame[s.IMAGE_FRONT].shape)
        frame[s.IMAGE_FRONT] = np.clip(frame[s.IMAGE_FRONT].astype(int) + noise, 0, 255).astype(np.uint8)
    return frames


@settings(max_examples=6)
@given(seed=st.integers(0, 10**6), place=st.integers(0, 5))
def test_almost_the_same_episode_is_found(tmp_path_factory, seed, place):
    episodes = sound(6, length=20)
    words = episodes[place][0]
    again = noisy(drive(place, words, 20), np.random.default_rng(seed), 6)
    for frame in again:
        frame[s.ACTION] = frame[s.ACTION] * np.float32(0.99)
    root = write(tmp_path_factory.mktemp("near") / "set", [*episodes, (words, again)])
    (finding,) = inspect(root).findings
    assert (finding.check, str(finding.grade), finding.episode) == ("duplicate", "note", 6)
    assert finding.what == f"it has almost the same pictures and actions as episode {place}"
    (finding,) = divided(root, range(6), [6])
    assert str(finding.grade) == "error"


def test_other_actions_or_another_end_make_another_episode(look):
    episodes = [("come closer", drive(1, "come closer")) for _ in range(3)]
    for frame in episodes[1][1]:
        frame[s.ACTION] = frame[s.ACTION] + np.array([0, 0, 0.3], np.float32)
    for frame in episodes[2][1][6:]:
        frame[s.IMAGE_FRONT] = np.ascontiguousarray(frame[s.IMAGE_FRONT][::-1])
    assert look(episodes)[0] == []
