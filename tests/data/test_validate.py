import json

import numpy as np
import pytest

from mobile_vla.core import DatasetError
from mobile_vla.data import Dataset, EpisodeWriter, make_split, validate
from mobile_vla.data import schema as s
from mobile_vla.data.store import INFO_PATH, JOURNAL_PATH, data_path

from .conftest import SHAPE


def test_a_sound_data_set_has_no_problems(record):
    root = record("d", [2, 3])
    make_split(Dataset.open(root))
    assert validate(root) == []


def test_every_damaged_episode_is_listed(record):
    root = record("d", [2, 2, 2, 2])
    (root / data_path(0)).unlink()
    (root / data_path(1)).write_bytes((root / data_path(1)).read_bytes()[:-1])
    payload = bytearray((root / data_path(3)).read_bytes())
    payload[len(payload) // 3] ^= 1
    (root / data_path(3)).write_bytes(payload)
    problems = validate(root)
    assert [problem.episode_index for problem in problems] == [0, 1, 3]
    assert "missing" in str(problems[0])
    assert "bytes where" in str(problems[1])
    assert "not those that were written" in str(problems[2])


def test_what_is_no_data_set_is_one_problem(tmp_path):
    assert "holds no" in str(validate(tmp_path)[0])


def test_meta_files_are_compared_with_the_journal(record):
    root = record("d", [2])
    make_split(Dataset.open(root))
    record("d", [2], first_seed=1)
    assert "made for other data" in str(validate(root)[0])
    make_split(Dataset.open(root))
    info = json.loads((root / INFO_PATH).read_text())
    (root / INFO_PATH).write_text(json.dumps(info | {"total_episodes": 1}))
    assert "cut off" in str(validate(root)[0])
    Dataset.open(root)
    assert validate(root) == []
    (root / INFO_PATH).unlink()
    assert "missing" in str(validate(root)[0])
    lines = (root / JOURNAL_PATH).read_bytes().splitlines(keepends=True)
    (root / JOURNAL_PATH).write_bytes(lines[0])
    assert any("does not list" in str(problem) for problem in validate(root))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({s.ACTION: [9, 0, 0]}, "exceed the limits"),
        ({s.CAPTURE_NS: 0}, "capture times do not grow"),
        ({s.SEQUENCE: 0}, "frame numbers do not grow"),
        ({s.STATUS: 17}, "mean nothing"),
        ({s.GROUNDING_VISIBLE: 1.5}, "leaves 0..1"),
        ({s.ACTION_CHUNK: [[0, 0, 0], [np.nan, 0, 0], [0, 0, 0], [np.nan] * 3]}, "partly numbers"),
        ({s.ACTION_CHUNK: np.full(12, np.inf)}, "partly numbers"),
        ({s.CAPTURE_NS: 1_700_000_000_000_200_000}, "another unit than nanoseconds"),
        ({s.CAPTURE_NS: 1_700_000_000_400_000_000}, "another rate"),
    ],
)
def test_numbers_that_cannot_be_so_are_found(tmp_path, contract, make_frame, change, words):
    with EpisodeWriter(tmp_path / "d", contract, SHAPE, {}) as writer, writer.episode("stop", {}) as episode:
        episode.add(make_frame(0, 0))
        episode.add(make_frame(0, 1) | change)
    (problem,) = validate(tmp_path / "d")
    assert words in str(problem)
    assert problem.episode_index == 0


def test_a_journal_that_contradicts_its_files_is_found(record):
    root = record("d", [2])
    line = json.loads((root / JOURNAL_PATH).read_text())
    (root / JOURNAL_PATH).write_text(json.dumps(line | {"instruction": "go to the moon", "task_index": 1}) + "\n")
    whats = " ".join(str(problem) for problem in validate(root))
    assert "disagree about the instruction" in whats
    assert "task_index does not fit" in whats


def test_images_are_decoded_only_when_asked(record, monkeypatch):
    root = record("d", [2])

    def refuse(*_: object) -> np.ndarray:
        raise DatasetError("looked")

    monkeypatch.setattr("mobile_vla.data.reader.Episode.images", refuse)
    assert validate(root, images=False) == []
    assert len(validate(root)) == 1


def test_a_problem_names_the_first_frame_and_its_value(tmp_path, contract, make_frame):
    with EpisodeWriter(tmp_path / "d", contract, SHAPE, {}) as writer, writer.episode("stop", {}) as episode:
        for place in range(6):
            episode.add(make_frame(0, place) | ({s.ACTION: [0, 0, -2.5]} if place >= 3 else {}))
    (problem,) = validate(tmp_path / "d")
    assert "(frame 3: -2.5)" in str(problem)


def test_chunks_without_an_expert_and_surveys_without_time_are_sound(tmp_path, contract, make_frame):
    survey = {s.EXTRA_DRIVER: "survey"}
    with EpisodeWriter(tmp_path / "d", contract, SHAPE, {}) as writer, writer.episode("stop", survey) as episode:
        for place in range(3):
            chunk = np.where(np.arange(4)[:, None] < place, 0.1, np.nan) * np.ones(3)
            episode.add(make_frame(0, place) | {s.ACTION_CHUNK: chunk, s.CAPTURE_NS: place})
    assert validate(tmp_path / "d") == []
