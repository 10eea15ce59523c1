import json
import os
import pickle
from datetime import datetime, timedelta, timezone

import pytest
import torch

from mobile_vla.checkpoint import find as module
from mobile_vla.checkpoint.find import best, find, latest, wanted
from mobile_vla.checkpoint.layout import Format
from mobile_vla.checkpoint.manifest import read_manifest
from mobile_vla.checkpoint.verify import State
from mobile_vla.core import CheckpointError

from . import folders

DAYS = [datetime(2026, 11, day, tzinfo=timezone.utc) for day in range(1, 10)]


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """Save a checkpoint of ours as of a day in November."""

    def save(name, day, **settings):
        class Clock(datetime):
            @classmethod
            def now(cls, tz=None):
                return DAYS[day]

        monkeypatch.setattr("mobile_vla.checkpoint.store.datetime", Clock)
        return folders.save_ours(tmp_path / "runs" / name, **settings)

    return save


def flip(folder):
    path = folder / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def evaluate(folder, value, name="success"):
    result = {"weights_sha256": read_manifest(folder).identity, "name": name, "value": value, "better": "higher"}
    (folder / "evaluation.json").write_text(json.dumps(result))


def by_path(found):
    return {each.path: each for each in found}


def test_every_kind_of_checkpoint_is_found_with_what_is_told_of_it(tmp_path):
    ours = folders.save_ours(tmp_path / "runs" / "final", step=7, metric=("loss", 0.5, "lower"))
    robot = folders.lerobot_run(tmp_path / "lerobot", (5000,)) / "checkpoints/005000/pretrained_model/model.safetensors"
    shards = folders.sharded(tmp_path / "clip") / "model.safetensors.index.json"
    light = folders.lightning(tmp_path / "epoch=3-step=1200-val_loss=0.12.ckpt")
    old = tmp_path / "old.pth"
    torch.save({"w": torch.ones(3)}, old, _use_new_zipfile_serialization=False)
    found = by_path(find([tmp_path]))
    assert set(found) == {ours, robot, shards, light, old}
    told = {path: (each.format, each.model, each.step, each.state) for path, each in found.items()}
    assert told == {
        ours: (Format.OURS, "compact", 7, State.WHOLE),
        robot: (Format.SAFETENSORS, "act", 5000, State.UNPROVEN),
        shards: (Format.SAFETENSORS_SHARDS, "clip", None, State.UNPROVEN),
        light: (Format.TORCH_ZIP, "RoboVLMs policy", 1200, State.WHOLE),
        old: (Format.TORCH_LEGACY, None, None, State.UNPROVEN),
    }
    assert found[light].metric.value == 0.12
    assert found[ours].metric.value == 0.5
    assert all(each.verified and not each.damage and each.proof for each in found.values())
    assert found[old].size_bytes == old.stat().st_size


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><title>Quota</title>", "saved web page"),
        (b"", "an empty file"),
        (b"Entry not found", "error answer"),
    ],
)
@pytest.mark.parametrize("quick", [False, True])
def test_what_is_no_checkpoint_is_called_by_its_name(tmp_path, data, said, quick):
    (tmp_path / "model.pth").write_bytes(data)
    (each,) = find([tmp_path], quick=quick)
    assert (each.format, each.state) == (Format.UNKNOWN, State.DAMAGED)
    assert said in each.damage
    assert str(tmp_path) not in each.damage


@pytest.mark.parametrize("quick", [False, True])
def test_a_cut_file_is_damaged(tmp_path, quick):
    path = folders.lightning(tmp_path / "model.ckpt")
    path.write_bytes(path.read_bytes()[:-100])
    (each,) = find([tmp_path], quick=quick)
    assert each.state is State.DAMAGED
    assert each.damage


def test_a_partial_download_is_said_to_be_one(tmp_path):
    path = folders.lightning(tmp_path / "model.ckpt.part")
    os.truncate(path, 800)
    (each,) = find([tmp_path])
    assert each.damage.startswith("an unfinished download: ")
    assert each.state is State.DAMAGED


def test_what_a_sparse_file_takes_on_the_disk_is_told(tmp_path):
    path = tmp_path / "preallocated.pth"
    path.touch()
    os.truncate(path, 1 << 30)
    (each,) = find([tmp_path])
    assert each.size_bytes == 1 << 30
    assert each.disk_bytes < 1 << 20
    assert "of zeros" in each.damage


def test_a_file_that_would_run_code_is_found_and_not_opened(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'owned'}",)

    torch.save({"w": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "evil.pth", weights_only=True)
    (each,) = find([tmp_path])
    assert each.state is State.DOUBTFUL
    assert each.damage.startswith("not opened: ")
    assert "posix.system" in each.damage
    assert not (tmp_path / "owned").exists()


def test_in_a_hurry_nothing_is_called_whole(saved, tmp_path):
    flip(saved("a", 0))
    (each,) = find([tmp_path], quick=True)
    assert (each.state, each.verified, each.damage) == (State.UNPROVEN, False, "")
    assert "not read" in each.proof
    (each,) = find([tmp_path])
    assert (each.state, each.verified) == (State.DAMAGED, True)


def test_folders_that_are_not_there_are_told(tmp_path):
    (each,) = find([tmp_path / "nowhere"])
    assert (each.state, each.format) == (State.MISSING, Format.UNKNOWN)
    assert "No such file" in each.damage


@pytest.mark.parametrize("quick", [False, True])
def test_what_was_measured_by_driving_decides(saved, tmp_path, quick):
    evaluate(saved("a/drive-3", 1), 0.95)
    evaluate(saved("a/final", 2), 0.9)
    saved("b/final", 3, metric=("settle validation loss", 0.001, "lower"), step=99999)
    assert best(find([tmp_path], quick=quick), "compact").path == tmp_path / "runs/a/drive-3"


def test_only_metrics_of_the_most_recent_name_compare(saved, tmp_path):
    evaluate(saved("old/final", 1), 0.99, "progress")
    evaluate(saved("new/final", 2), 0.7)
    evaluate(saved("newer/final", 3), 0.8)
    assert best(find([tmp_path]), "compact").path == tmp_path / "runs/newer/final"


def test_without_a_measurement_the_final_one_of_the_lowest_loss_is_taken(saved, tmp_path):
    loss = "settle validation loss"
    saved("a/settle.parts/step-00000500", 1, metric=(loss, 0.1, "lower"), step=500)
    saved("a/drive-3", 2, metric=(loss, 0.2, "lower"), step=9000)
    saved("a/final", 3, metric=(loss, 0.3, "lower"), step=700)
    saved("b/final", 4, metric=(loss, 0.4, "lower"), step=900)
    found = find([tmp_path])
    assert best(found, "compact").path == tmp_path / "runs/a/final"
    assert best([each for each in found if each.path.name != "final"], "compact").path == tmp_path / "runs/a/drive-3"


def test_then_steps_then_dates_decide(saved, tmp_path):
    saved("a/one", 5, step=10)
    saved("a/two", 4, step=20)
    saved("a/three", 3, step=20)
    saved("a/four", 8)
    assert best(find([tmp_path]), "compact").path == tmp_path / "runs/a/two"


@pytest.mark.parametrize("quick", [False, True])
def test_damaged_and_salvaged_ones_and_other_policies_are_passed_over(saved, tmp_path, quick):
    flip(saved("a/final", 6))
    saved("b/final", 5, missing=("head.weight",))
    saved("c/final", 7, policy="other")
    (saved("d/final", 7) / "manifest.json").unlink()
    right = saved("e/drive-0", 1)
    found = find([tmp_path], quick=quick)
    for pick in (best(found, "compact"), latest(found, "compact")):
        assert (pick.path, pick.state, pick.verified) == (right, State.WHOLE, True)
    assert best(found, "nothing") is None


def test_the_latest_is_the_one_that_was_saved_last(saved, tmp_path):
    saved("a/final", 1)
    right = saved("b/see", 3)
    saved("b/drive-0.parts/step-00000500", 5)
    assert latest(find([tmp_path]), "compact").path == right
    only = saved("new/c.parts/step-00000500", 6)
    assert latest(find([only.parent]), "compact").path == only


def test_no_more_is_read_than_the_choice_needs(saved, tmp_path, monkeypatch):
    evaluate(saved("a/final", 1), 0.5)
    evaluate(saved("b/final", 2), 0.9)
    flip(saved("c/final", 3))
    evaluate(tmp_path / "runs/c/final", 0.95)
    folders.lightning(tmp_path / "runs" / "large.ckpt")
    read, verify = [], module.verify
    monkeypatch.setattr(module, "verify", lambda path: read.append(path.parent.name) or verify(path))
    assert wanted("best", [tmp_path], "compact") == tmp_path / "runs/b/final"
    assert read == ["c", "b"]


def test_a_path_is_what_it_says(tmp_path):
    assert wanted(str(tmp_path / "x"), [], "compact") == tmp_path / "x"
    assert str(wanted("./latest", [], "compact")) == "latest"


@pytest.mark.parametrize("word", ["best", "latest"])
def test_where_nothing_is_whole_it_says_where_it_looked(saved, tmp_path, word):
    with pytest.raises(CheckpointError, match=rf"no whole checkpoint of the policy compact below {tmp_path}/none; "):
        wanted(word, [tmp_path / "none"], "compact")
    flip(saved("a/final", 0))
    with pytest.raises(CheckpointError, match=r"all 1 there are damaged.*checkpoint find"):
        wanted(word, [tmp_path, tmp_path / "none"], "compact")


def test_dates_are_utc(saved, tmp_path):
    saved("a", 4)
    path = folders.lightning(tmp_path / "b.ckpt")
    os.utime(path, (0, 86400))
    ours, foreign = sorted(find([tmp_path]), key=lambda each: each.dated_by, reverse=True)
    assert (ours.saved_at, ours.dated_by) == (DAYS[4], "manifest")
    assert (foreign.saved_at, foreign.dated_by) == (
        datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(days=1),
        "file time",
    )
