import contextlib
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mobile_vla.core import ActionContract, ContractMismatchError, DatasetError, InstructionError
from mobile_vla.data import Dataset, EpisodeWriter, validate
from mobile_vla.data import schema as s
from mobile_vla.data.store import JOURNAL_PATH, data_path

from .conftest import SHAPE

RECORDER = """
import sys
sys.path.insert(0, sys.argv[2])
from data.conftest import SHAPE, frame
from mobile_vla.core import ActionContract
from mobile_vla.data import EpisodeWriter
contract = ActionContract(horizon=4)
with EpisodeWriter(sys.argv[1], contract, SHAPE, {}) as writer:
    while True:
        seed = writer.total_episodes
        with writer.episode("go to the red cup", {"scene_seed": seed}) as episode:
            for place in range(3):
                episode.add(frame(seed, place, contract))
        print(writer.total_episodes, flush=True)
"""


def test_a_killed_recording_loses_at_most_the_episode_being_recorded(tmp_path, contract, make_frame):
    root, dice = tmp_path / "data", random.Random(7)
    safe = 0
    for _ in range(6):
        command = [sys.executable, "-c", RECORDER, str(root), str(Path(__file__).parents[1])]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            for _ in range(dice.randint(1, 12)):
                safe = int(child.stdout.readline())
            with pytest.raises(subprocess.TimeoutExpired):
                child.wait(dice.random() * 0.02)
            child.send_signal(signal.SIGKILL)
            rest = child.stdout.read().split("\n")[:-1]
            safe = int(rest[-1]) if rest else safe
        dataset = Dataset.open(root)
        assert safe <= len(dataset) <= safe + 1
        for seed, episode in enumerate(dataset):
            assert np.array_equal(episode[s.ACTION][2], make_frame(seed, 2)[s.ACTION])
            assert len(episode.images()) == 3
        assert validate(root) == []
    assert not list(root.glob("**/*.tmp"))


def test_a_recording_in_progress_can_be_read(tmp_path, contract, make_frame):
    with EpisodeWriter(tmp_path / "d", contract, SHAPE, {}) as writer:
        with writer.episode("stop", {}) as episode:
            episode.add(make_frame(0, 0))
        assert len(Dataset.open(tmp_path / "d")) == 1


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_journal_cut_anywhere_in_its_last_line_is_mended(record, tmp_path, data):
    whole = tmp_path / "whole"
    if not whole.exists():
        record("whole", [2, 3, 2])
    lines = (whole / JOURNAL_PATH).read_bytes().splitlines(keepends=True)
    kept = data.draw(st.integers(0, len(lines[-1])))
    root = tmp_path / "cut"
    shutil.copytree(whole, root)
    (root / JOURNAL_PATH).write_bytes(b"".join(lines[:-1]) + lines[-1][:kept])
    assert len(Dataset.open(root)) == 3
    assert validate(root) == []
    assert (root / JOURNAL_PATH).read_bytes() == b"".join(lines)
    shutil.rmtree(root)


def test_a_lost_journal_is_written_again_from_the_data(record):
    root = record("d", [2, 3])
    before = (root / JOURNAL_PATH).read_bytes()
    (root / JOURNAL_PATH).unlink()
    assert len(Dataset.open(root)) == 2
    assert (root / JOURNAL_PATH).read_bytes() == before


def test_sessions_are_appended(record):
    record("d", [2, 3])
    root = record("d", [4], first_seed=2, words="stop at the blue ball")
    dataset = Dataset.open(root)
    assert [record.length for record in dataset.records] == [2, 3, 4]
    assert [record.session for record in dataset.records] == [0, 0, 1]
    assert [record.task_index for record in dataset.records] == [0, 0, 1]
    assert [session["seed"] for session in dataset.house.sessions] == [0, 2]
    assert dataset.columns([s.INDEX])[s.INDEX].tolist() == list(range(9))


def test_equal_recordings_are_equal_byte_for_byte(record):
    one, two = record("one", [3]), record("two", [3])
    assert (one / data_path(0)).read_bytes() == (two / data_path(0)).read_bytes()


def test_what_is_discarded_empty_or_interrupted_is_not_kept(tmp_path, contract, make_frame):
    with EpisodeWriter(tmp_path / "d", contract, SHAPE, {}) as writer:
        with writer.episode("stop", {}) as episode:
            episode.add(make_frame(0, 0))
            episode.discard()
        with writer.episode("stop", {}):
            pass
        with contextlib.suppress(KeyError), writer.episode("stop", {}) as episode:
            episode.add(make_frame(0, 0))
            raise KeyError
        with writer.episode("stop", {}) as episode:
            episode.add(make_frame(5, 0))
            episode.note(outcome="arrived")
        assert writer.total_episodes == 1
    dataset = Dataset.open(tmp_path / "d")
    assert dataset.records[0].extras == {"outcome": "arrived"}
    assert dataset.root.joinpath("meta/stats.json").exists()


def test_labels_may_be_left_out(tmp_path, contract, make_frame):
    needed = (s.IMAGE_FRONT, s.STATE, s.ACTION, s.CAPTURE_NS, s.SEQUENCE)
    with EpisodeWriter(tmp_path / "d", contract, SHAPE, {}) as writer, writer.episode("stop", {}) as episode:
        episode.add({name: make_frame(0, 0)[name] for name in needed})
    columns = Dataset.open(tmp_path / "d").episode(0).columns
    assert np.isnan(columns[s.ACTION_CHUNK]).all()
    assert (columns[s.OBJECTS] == s.UNLABELLED).all()
    assert columns[s.STATUS].tolist() == [s.UNLABELLED]
    assert validate(tmp_path / "d") == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"observation.states": [0, 0, 0]}, "did you mean 'observation.state'"),
        ({s.STATE: [0, 0]}, "must hold 3 numbers, got 2"),
        ({s.ACTION: [0, np.nan, 0]}, "must be finite"),
        ({s.STATUS: "driving"}, "must be numbers"),
        ({s.IMAGE_FRONT: np.zeros((8, 8, 3), np.uint8)}, "must be RGB uint8"),
        ({s.IMAGE_FRONT: np.zeros(SHAPE)}, "must be RGB uint8"),
    ],
)
def test_a_bad_frame_is_refused_and_the_episode_goes_on(tmp_path, contract, make_frame, change, words):
    with EpisodeWriter(tmp_path / "d", contract, SHAPE, {}) as writer, writer.episode("stop", {}) as episode:
        episode.add(make_frame(0, 0))
        with pytest.raises(DatasetError, match=words):
            episode.add(make_frame(0, 1) | change)
        episode.add(make_frame(0, 1))
    assert len(Dataset.open(tmp_path / "d").episode(0)) == 2


def test_a_frame_without_action_is_refused(tmp_path, contract, make_frame):
    with EpisodeWriter(tmp_path / "d", contract, SHAPE, {}) as writer, writer.episode("stop", {}) as episode:
        incomplete = make_frame(0, 0)
        del incomplete[s.ACTION]
        with pytest.raises(DatasetError, match="needs 'action'"):
            episode.add(incomplete)


def test_what_cannot_be_recorded_into_is_refused(tmp_path, record):
    root = record("d", [1])
    with pytest.raises(ContractMismatchError, match="rate_hz"):
        EpisodeWriter(root, ActionContract(horizon=4, rate_hz=20.0), SHAPE, {})
    with pytest.raises(DatasetError, match="images of"):
        EpisodeWriter(root, ActionContract(horizon=4), (8, 8, 3), {})
    (tmp_path / "other/photos").mkdir(parents=True)
    (tmp_path / "other/photos/cat.png").touch()
    with pytest.raises(DatasetError, match="not empty"):
        EpisodeWriter(tmp_path / "other", ActionContract(), SHAPE, {})
    with EpisodeWriter(root, ActionContract(horizon=4), SHAPE, {}) as writer:
        with pytest.raises(DatasetError, match="another process is writing"):
            EpisodeWriter(root, ActionContract(horizon=4), SHAPE, {})
        with writer.episode("stop", {}), pytest.raises(DatasetError, match="already"), writer.episode("stop", {}):
            pass
        with pytest.raises(InstructionError), writer.episode("  ", {}):
            pass


def test_recording_stops_before_the_disk_is_full(record, contract):
    root = record("d", [1])
    with pytest.raises(DatasetError, match="make room or choose another disk"):
        EpisodeWriter(root, contract, SHAPE, {}, min_free_bytes=2**62)
    assert len(Dataset.open(root)) == 1


def test_a_full_disk_costs_one_episode(record, contract, make_frame, monkeypatch):
    root = record("d", [1])
    real = os.fsync

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with EpisodeWriter(root, contract, SHAPE, {}) as writer:
        recording = writer.episode("stop", {})
        recording.__enter__().add(make_frame(1, 0))
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(DatasetError, match="No space left"):
            recording.__exit__(None, None, None)
        monkeypatch.setattr(os, "fsync", real)
        with writer.episode("stop", {}) as episode:
            episode.add(make_frame(2, 0))
    assert len(Dataset.open(root)) == 2
    assert validate(root) == []


def test_notes_that_could_not_be_saved_are_refused_at_once(tmp_path, contract, make_frame):
    with EpisodeWriter(tmp_path / "d", contract, SHAPE, {}) as writer:
        with pytest.raises(DatasetError, match="plain JSON"), writer.episode("stop", {"distance": float("nan")}):
            pass
        with pytest.raises(DatasetError, match="plain JSON"), writer.episode("\ud800", {}):
            pass
        with writer.episode("stop", {}) as episode:
            episode.add(make_frame(0, 0))
            with pytest.raises(DatasetError, match="plain JSON"):
                episode.note(outcome=object())
    assert len(Dataset.open(tmp_path / "d")) == 1
    with pytest.raises(DatasetError, match="metadata"):
        EpisodeWriter(tmp_path / "d", contract, SHAPE, {"path": tmp_path})
