"""Every kind of fault is planted into a sound data set and found; the sound one gives nothing."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobile_vla.core import ActionContract, ConfigError, DatasetError
from mobile_vla.data import Dataset, EpisodeWriter, Split, data_hash, make_split, validate
from mobile_vla.data import schema as s
from mobile_vla.data.inspection import Grade, Thresholds, inspect
from mobile_vla.data.split import tally
from mobile_vla.data.store import SPLIT_PATH, data_path, write_json

from . import drives
from .drives import drive, mark, sound, write


@pytest.fixture
def look(tmp_path) -> Callable:
    """Write the episodes and give what is found: (check, grade, episode) of each, and the report."""

    def run(episodes, **changes):
        root = write(tmp_path / f"set-{len(list(tmp_path.iterdir()))}", episodes)
        report = inspect(root, Thresholds(**changes))
        return [(found.check, str(found.grade), found.episode) for found in report.findings], report

    return run


@settings(max_examples=12)
@given(data=st.data())
def test_sound_data_give_no_finding(tmp_path_factory, data):
    seeds = data.draw(st.lists(st.integers(0, 10**6), min_size=1, max_size=5, unique=True))
    kinds = st.sampled_from(list(drives.WORDS))
    episodes = []
    for seed in seeds:
        words, length = data.draw(kinds), data.draw(st.integers(6, 25))
        frames = drive(seed, words, length)
        if data.draw(st.booleans()):
            mark(frames, data.draw(st.sampled_from(list(drives.RGB))))
        episodes.append((words, frames))
    root = write(tmp_path_factory.mktemp("sound") / "set", episodes)
    make_split(Dataset.open(root))
    report = inspect(root)
    assert report.findings == ()
    assert report.sound
    assert validate(root) == []


def test_a_larger_sound_set_is_in_balance(look):
    found, report = look(sound(24))
    assert found == []
    assert report.balance["sides"] == {"left": 4, "right": 4}
    assert report.balance["languages"] == {"en": 20, "ko": 4}
    assert report.balance["frames_still"] == {"still": 0, "moving": 288}
    assert report.balance["frames_turning"] == {"left": 48, "right": 48}
    assert (report.episodes, report.frames, report.seconds) == (24, 288, 57.6)
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["sound"]


def change(episodes, place, frame, **columns):
    names = {"action": s.ACTION, "state": s.STATE, "status": s.STATUS, "time": s.CAPTURE_NS, "number": s.SEQUENCE}
    episodes[place][1][frame] |= {names.get(name, name): value for name, value in columns.items()}
    return episodes


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"action": [0.7, 0, 0]}, "exceed the limits"),
        ({"time": 0}, "capture times do not grow"),
        ({"number": 0}, "frame numbers do not grow"),
        ({"status": 9}, "mean nothing"),
    ],
)
def test_impossible_numbers_are_errors_with_their_frame(look, columns, words):
    found, report = look(change(sound(3), 1, 5, **columns))
    assert found == [("numbers", "error", 1)]
    assert report.findings[0].frame == 5
    assert words in report.findings[0].what
    assert not report.sound


def freeze(frames, first, count):
    for place in range(first, first + count):
        frames[place][s.IMAGE_FRONT] = frames[first - 1][s.IMAGE_FRONT]


@settings(max_examples=8)
@given(first=st.integers(1, 10), count=st.integers(1, 9))
def test_frozen_pictures_are_found_where_they_begin(tmp_path_factory, first, count):
    episodes = sound(3, length=20)
    freeze(episodes[2][1], first, count)
    report = inspect(write(tmp_path_factory.mktemp("frozen") / "set", episodes))
    (finding,) = report.findings
    assert (finding.check, finding.episode, finding.frame) == ("frozen", 2, first)
    assert finding.value == pytest.approx(count / 5)
    assert finding.grade is (Grade.ERROR if count >= 5 else Grade.WARNING)


def test_almost_the_same_picture_is_frozen_too(look):
    episodes = sound(2)
    for place in range(4, 8):
        again = episodes[0][1][3][s.IMAGE_FRONT].copy()
        again[place, place] += 30
        episodes[0][1][place][s.IMAGE_FRONT] = again
    found, report = look(episodes)
    assert found == [("frozen", "warning", 0)]
    assert "almost the same: 4 times" in report.findings[0].what


def test_a_picture_may_stay_while_the_base_stands_or_there_is_nothing_to_see(look):
    episodes = sound(2)
    freeze(episodes[0][1], 3, 6)
    for frame in episodes[0][1][2:10]:
        frame[s.STATE] = [0.0, 0.0, 0.0]
    for place, frame in enumerate(episodes[1][1]):  # before a bare wall, which gets a little brighter
        frame[s.IMAGE_FRONT] = np.full(drives.SHAPE, 100, np.uint8)
        frame[s.IMAGE_FRONT][: 2 + place, ::9] += 9
    assert look(episodes)[0] == []


def later(frames, frame, nanoseconds):
    for each in frames[frame:]:
        each[s.CAPTURE_NS] += nanoseconds


def test_gaps_in_time_are_found_with_the_frame_before(look):
    episodes = sound(4)
    later(episodes[1][1], 7, drives.PERIOD_NS)
    later(episodes[2][1], 4, drives.PERIOD_NS)
    later(episodes[2][1], 9, 4 * drives.PERIOD_NS)
    found, report = look(episodes)
    assert found == [("gap", "warning", 2), ("gap", "note", 1)]
    assert [(finding.frame, finding.value) for finding in report.findings] == [(8, 1.0), (6, 0.4)]
    assert "2 gaps" in report.findings[0].what


@settings(max_examples=8)
@given(factor=st.floats(0.3, 3.0))
def test_another_rate_is_found(tmp_path_factory, factor):
    (words, frames), *others = sound(3)
    for place, frame in enumerate(frames):
        frame[s.CAPTURE_NS] = 10**18 + round(place * drives.PERIOD_NS / factor)
    report = inspect(write(tmp_path_factory.mktemp("rate") / "set", [(words, frames), *others]))
    checks = {finding.check for finding in report.findings}
    if abs(factor - 1) > 0.16:
        assert "rate" in checks
    elif abs(factor - 1) < 0.14:
        assert not checks
    assert ("numbers" in checks) == (not 1 / 1.5 < factor < 1.5)


def test_too_short_and_too_long_episodes_are_found(look):
    episodes = [*sound(2), ("come closer", drive(50, "come closer", 3)), ("turn left", drive(51, "turn left", 40))]
    assert look(episodes, max_seconds=7.0)[0] == [("length", "warning", 2), ("length", "warning", 3)]


def test_a_survey_has_no_time(look):
    episodes = sound(2)
    for place, frame in enumerate(episodes[1][1]):
        frame |= {s.CAPTURE_NS: place, s.IMAGE_FRONT: episodes[1][1][0][s.IMAGE_FRONT]}
    assert {check for check, _, _ in look(episodes)[0]} == {"numbers", "rate", "frozen"}
    episodes[1] = (*episodes[1], {s.EXTRA_DRIVER: "survey"})
    found, report = look(episodes)
    assert found == []
    assert report.remarks["survey"].startswith("1 episode")


def test_damage_is_a_finding_and_the_rest_is_looked_at(tmp_path):
    episodes = sound(5)
    freeze(episodes[4][1], 2, 3)
    root = write(tmp_path / "set", episodes)
    (root / data_path(0)).unlink()
    (root / data_path(1)).write_bytes((root / data_path(1)).read_bytes()[:-9])
    payload = bytearray((root / data_path(2)).read_bytes())
    place = payload.index(b"\xff\xd8\xff")
    payload[place : place + 3] = b"xxx"
    (root / data_path(2)).write_bytes(payload)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    report = inspect(root)
    found = [(finding.check, finding.episode) for finding in report.findings]
    assert found == [("damage", 0), ("damage", 1), ("damage", 2), ("frozen", 4)]
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_what_is_no_data_set_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="holds no"):
        inspect(tmp_path)


def test_thresholds_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError, match="moving_share must be a number above 0, got -1"):
        Thresholds(moving_share=-1)
    with pytest.raises(ConfigError, match="must lie below max_seconds"):
        Thresholds(min_seconds=400)


def seen(frames, share, status=-1):
    for frame in frames:
        frame |= {s.GROUNDING_VISIBLE: share, s.STATUS: status}
    return frames


def test_a_target_that_is_never_in_view_is_found(look):
    go = "go to the red cup"
    arrived, searching = s.STATUSES.index(s.Status.ARRIVED), s.STATUSES.index(s.Status.SEARCHING)
    episodes = [
        (go, seen(drive(1), 0.0, searching)),
        (go, [*seen(drive(2), 0.0, searching)[:-1], *seen(drive(2), 0.0, arrived)[-1:]]),
        (go, seen(drive(3), 0.4, searching)),
        ("turn left", seen(drive(4, "turn left"), 0.0)),
    ]
    found, report = look(episodes)
    assert found == [("sight", "warning", 1), ("sight", "note", 0)]
    assert report.findings[0].frame == 11


def test_one_scene_on_two_sides_of_the_split_is_found(tmp_path):
    episodes = sound(4)
    root = write(tmp_path / "set", [(words, frames, {s.EXTRA_SCENE_SEED: 1}) for words, frames in episodes])
    dataset = Dataset.open(root)
    make_split(dataset)
    assert inspect(root).findings == ()
    bad = Split((0, 1), (2,), (3,), (0.5, 0.25, 0.25), "", data_hash(dataset.all_records))
    write_json(root / SPLIT_PATH, bad.to_dict())
    (finding,) = inspect(root).findings
    assert (finding.grade, finding.check) == (Grade.ERROR, "split")
    assert "scene 1 is in train (episode 0) and validation (episode 2) and test (episode 3)" in finding.what
    write_json(root / SPLIT_PATH, {})
    assert "is no split" in inspect(root).findings[0].what


def test_the_tally_counts_every_episode_once(tmp_path):
    episodes = [(*each, {s.EXTRA_SCENARIO: "ab"[place % 2]} if place else {}) for place, each in enumerate(sound(9))]
    dataset = Dataset.open(write(tmp_path / "set", episodes))
    split = make_split(dataset, (0.4, 0.3, 0.3))
    counts = tally(dataset, split, s.EXTRA_SCENARIO)
    assert list(counts) == ["a", "b", "none noted"]
    assert [sum(values) for values in counts.values()] == [4, 4, 1]
    columns = [sum(values) for values in zip(*counts.values(), strict=True)]
    assert columns == [len(split.train), len(split.validation), len(split.test)]


def test_a_data_set_without_episodes_is_an_error(tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path / "empty", ActionContract(), (8, 16, 3), {}):
        pass
    assert [(each.grade, each.check) for each in inspect(tmp_path / "empty").findings] == [(Grade.ERROR, "empty")]
