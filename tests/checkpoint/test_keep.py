import shutil

import numpy as np
import pytest

from mobile_vla.checkpoint import Checkpoint, Metric, save
from mobile_vla.checkpoint.keep import is_whole, newest_whole, prune, saved_steps, step_folder
from mobile_vla.core import ActionContract


def save_step(parent, step, loss=None, name="loss", better="lower"):
    metric = None if loss is None else Metric(name, loss, better)
    tensors = {"w": np.full(30, step, np.float32)}
    save(step_folder(parent, step), Checkpoint("compact", {}, ActionContract(), {}, tensors, step=step, metric=metric))


def left(parent):
    return [int(folder.name[5:]) for folder in saved_steps(parent)]


def test_the_last_ones_and_the_best_stay(tmp_path):
    for step, loss in enumerate([5.0, 1.0, 3.0, 2.0, 4.0]):
        save_step(tmp_path, step, loss)
    gone = prune(tmp_path, last=2, best=1)
    assert left(tmp_path) == [1, 3, 4]
    assert [folder.name for folder in gone] == ["step-00000000", "step-00000002"]


def test_better_may_be_higher(tmp_path):
    for step, share in enumerate([0.1, 0.9, 0.5, 0.3]):
        save_step(tmp_path, step, share, "success", "higher")
    prune(tmp_path, last=1, best=2)
    assert left(tmp_path) == [1, 2, 3]


def test_figures_of_another_name_are_not_compared(tmp_path):
    save_step(tmp_path, 1, 0.1, "other")
    save_step(tmp_path, 2, 0.9)
    save_step(tmp_path, 3, 1.9)
    prune(tmp_path, last=1, best=1)
    assert left(tmp_path) == [2, 3]


def test_the_only_whole_one_is_never_deleted(tmp_path, flip):
    for step in range(4):
        save_step(tmp_path, step)
    for step in (2, 3):
        flip(step_folder(tmp_path, step) / "weights.safetensors", -1)
    assert prune(tmp_path, last=2) == []
    assert left(tmp_path) == [0, 1, 2, 3]
    assert newest_whole(tmp_path) == step_folder(tmp_path, 1)


def test_a_save_that_did_not_end_goes_but_a_damaged_manifest_stays(tmp_path, flip):
    for step in range(3):
        save_step(tmp_path, step)
    (step_folder(tmp_path, 0) / "manifest.json").unlink()
    flip(step_folder(tmp_path, 1) / "manifest.json", 5)
    prune(tmp_path, last=1)
    assert left(tmp_path) == [2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001", "step-00000002"]


def test_a_kill_while_deleting_leaves_nothing_that_looks_saved(tmp_path, monkeypatch):
    for step in range(3):
        save_step(tmp_path, step)

    def die(folder):
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", die)
    with pytest.raises(KeyboardInterrupt):
        prune(tmp_path, last=1)
    assert left(tmp_path) == [1, 2]
    monkeypatch.undo()
    prune(tmp_path, last=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]


def test_an_empty_place_has_none(tmp_path):
    assert (saved_steps(tmp_path), newest_whole(tmp_path), prune(tmp_path, last=1)) == ([], None, [])
    assert not is_whole(tmp_path)


def test_keeping_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least the last"):
        prune(tmp_path, last=0)
