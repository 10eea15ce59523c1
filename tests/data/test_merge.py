import os
import shutil
from pathlib import Path

import pytest

from mobile_vla.core import ActionContract, ContractMismatchError, DatasetError
from mobile_vla.data import Dataset, EpisodeWriter, merge_shards, validate
from mobile_vla.data import schema as s
from mobile_vla.data.store import JOURNAL_PATH, data_path


def test_shards_are_merged_without_touching_images(record, tmp_path):
    shards = [record("a", [2, 3]), record("b", [4, 1], first_seed=2, words="go to the blue ball")]
    jpegs = [bytes(jpeg) for shard in shards for episode in Dataset.open(shard) for jpeg in episode.jpegs]
    report = merge_shards(tmp_path / "all", shards)
    assert (report.moved, report.renumbered, report.total_episodes) == (2, 2, 4)
    dataset = Dataset.open(tmp_path / "all")
    assert [bytes(jpeg) for episode in dataset for jpeg in episode.jpegs] == jpegs
    assert dataset.columns([s.INDEX])[s.INDEX].tolist() == list(range(10))
    assert dataset.columns([s.TASK_INDEX])[s.TASK_INDEX].tolist() == [0] * 5 + [1] * 5
    assert [record.extras["scene_seed"] for record in dataset.records] == [0, 1, 2, 3]
    assert validate(tmp_path / "all") == []
    assert not any(shard.exists() for shard in shards)
    merge_shards(tmp_path / "all", [record("a", [2], first_seed=4)])
    assert len(Dataset.open(tmp_path / "all")) == 5
    assert validate(tmp_path / "all") == []


def test_a_merge_cut_off_anywhere_goes_on(record, tmp_path, monkeypatch):
    class PowerCutError(Exception):
        pass

    real = os.fsync
    for stop in range(1, 80):
        shutil.rmtree(tmp_path / "all", ignore_errors=True)
        shards = [record("a", [2]), record("b", [1, 2], first_seed=1)]
        calls = 0

        def fsync(descriptor: int, stop: int = stop) -> None:
            nonlocal calls
            calls += 1
            if calls == stop:
                raise PowerCutError
            real(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)
        try:
            merge_shards(tmp_path / "all", shards)
            finished = True
        except PowerCutError:
            finished = False
        monkeypatch.setattr(os, "fsync", real)
        if not finished:
            merge_shards(tmp_path / "all", shards)
        seeds = [record.extras["scene_seed"] for record in Dataset.open(tmp_path / "all").records]
        assert seeds == [0, 1, 2], stop
        assert validate(tmp_path / "all") == []
        if finished:
            break
    assert finished
    assert stop > 10


def test_what_cannot_be_merged_is_refused(record, tmp_path):
    a, b = record("a", [1]), record("b", [1])
    with pytest.raises(DatasetError, match="different folders"):
        merge_shards(tmp_path / "all", [a, a])
    with pytest.raises(DatasetError, match=r"holds no meta/mobile_vla\.json"):
        merge_shards(tmp_path / "all", [a, tmp_path / "nowhere"])
    (b / data_path(0)).write_bytes((b / data_path(0)).read_bytes()[:-10])
    with pytest.raises(DatasetError, match="file-000"):
        merge_shards(tmp_path / "all", [a, b])
    assert Path(b / data_path(0)).exists()


def contents(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_kept_shards_stay_as_they_are_and_nothing_comes_twice(record, tmp_path):
    shards = [record("a", [2, 3]), record("b", [4, 1], first_seed=2, words="go to the blue ball")]
    before = [contents(shard) for shard in shards]
    jpegs = [bytes(jpeg) for shard in shards for episode in Dataset.open(shard) for jpeg in episode.jpegs]
    report = merge_shards(tmp_path / "all", shards, keep=True)
    assert (report.renumbered, report.present, report.total_episodes) == (4, 0, 4)
    assert [contents(shard) for shard in shards] == before
    assert [bytes(jpeg) for episode in Dataset.open(tmp_path / "all") for jpeg in episode.jpegs] == jpegs
    assert validate(tmp_path / "all") == []
    record("b", [2], first_seed=4)
    report = merge_shards(tmp_path / "all", shards, keep=True)
    assert (report.renumbered, report.present, report.total_episodes) == (1, 4, 5)
    assert [record.extras["scene_seed"] for record in Dataset.open(tmp_path / "all").records] == [0, 1, 2, 3, 4]
    assert validate(tmp_path / "all") == []


def test_a_kept_merge_cut_off_anywhere_goes_on(record, tmp_path, monkeypatch):
    class PowerCutError(Exception):
        pass

    shards = [record("a", [2]), record("b", [1, 2], first_seed=1)]
    before = [contents(shard) for shard in shards]
    real = os.fsync
    for stop in range(1, 80, 2):
        shutil.rmtree(tmp_path / "all", ignore_errors=True)
        calls = 0

        def fsync(descriptor: int, stop: int = stop) -> None:
            nonlocal calls
            calls += 1
            if calls == stop:
                raise PowerCutError
            real(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)
        try:
            merge_shards(tmp_path / "all", shards, keep=True)
            finished = True
        except PowerCutError:
            finished = False
        monkeypatch.setattr(os, "fsync", real)
        if not finished:
            merge_shards(tmp_path / "all", shards, keep=True)
        seeds = [record.extras["scene_seed"] for record in Dataset.open(tmp_path / "all").records]
        assert seeds == [0, 1, 2], stop
        assert [contents(shard) for shard in shards] == before
        if finished:
            break
    assert finished
    assert stop > 10


def test_another_contract_is_refused_before_anything_is_written(record, tmp_path):
    other = tmp_path / "other"
    with EpisodeWriter(other, ActionContract(limits=(1.0, 1.0, 2.0)), (16, 32, 3), {}):
        pass
    with pytest.raises(ContractMismatchError, match=r"limits: .*a has .*0\.6.*other has .*2\.0"):
        merge_shards(tmp_path / "all", [record("a", [1]), other], keep=True)
    assert not (tmp_path / "all").exists()


def test_a_kept_shard_that_was_cut_off_has_to_be_mended_first(record, tmp_path):
    shard = record("a", [1, 1])
    journal = shard / JOURNAL_PATH
    journal.write_bytes(journal.read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(DatasetError, match="was cut off: have it mended first"):
        merge_shards(tmp_path / "all", [shard], keep=True)
    Dataset.open(shard)
    assert merge_shards(tmp_path / "all", [shard], keep=True).total_episodes == 2
