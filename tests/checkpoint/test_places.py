import os
import shutil

import pytest
import torch

from mobile_vla.checkpoint.places import places

from . import folders


def found_below(*roots, **settings):
    return {place.path: place for place in places(roots, **settings)}


def test_a_folder_of_ours_is_one_place_with_all_that_belongs_to_it(tmp_path):
    folder = folders.save_ours(tmp_path / "runs" / "a" / "final")
    (folder / "evaluation.json").write_text("{}")
    (place,) = places([tmp_path])
    assert (place.path, place.ours, place.remark) == (folder, True, "")
    names = {path.name for path in place.files}
    assert names == {"weights.safetensors", "config.json", "manifest.json", "evaluation.json"}
    assert list(places([folder])) == [place]


@pytest.mark.parametrize("lost", ["weights.safetensors", "config.json", "manifest.json"])
def test_a_folder_of_ours_is_known_by_what_is_left_of_it(tmp_path, lost):
    folder = folders.save_ours(tmp_path / "final")
    (folder / lost).unlink()
    (place,) = places([tmp_path])
    assert (place.path, place.ours) == (folder, True)


def test_what_a_killed_save_left_is_a_place_of_its_own(tmp_path):
    folder = folders.save_ours(tmp_path / "final")
    shutil.copy(folder / "weights.safetensors", folder / ".weights-2.safetensors.partial")
    left = found_below(tmp_path)[folder / ".weights-2.safetensors.partial"]
    assert left.remark == "an unfinished save of mobile-vla"


def test_manifests_of_other_programs_are_none_of_ours(tmp_path):
    folders.write_json(tmp_path / "site" / "manifest.json", {"name": "app", "files": ["a.js"]})
    folders.write_json(tmp_path / "other" / "config.json", {"policy": "x"})
    folders.weights(tmp_path / "other" / "weights.safetensors")
    assert [(place.path, place.ours) for place in places([tmp_path])] == [
        (tmp_path / "other" / "weights.safetensors", False)
    ]


def test_a_run_of_lerobot_is_listed_once_for_each_step(tmp_path):
    root = folders.lerobot_run(tmp_path / "outputs")
    assert list(found_below(tmp_path)) == [
        root / "checkpoints" / step / "pretrained_model" / "model.safetensors" for step in ("005000", "010000")
    ]


def test_a_run_of_hugging_face_is_listed_without_its_optimizer(tmp_path):
    root = folders.huggingface_run(tmp_path / "out")
    assert list(found_below(tmp_path)) == [
        root / name / "model.safetensors" for name in ("checkpoint-1000", "checkpoint-500")
    ]


def test_a_set_of_shards_is_one_place_with_or_without_its_index(tmp_path):
    folder = folders.sharded(tmp_path / "model")
    index = folder / "model.safetensors.index.json"
    (place,) = places([tmp_path])
    assert place.path == index
    assert len(place.files) == 3
    index.unlink()
    (place,) = places([tmp_path])
    assert place.path == folder
    assert len(place.files) == 2


def test_single_files_are_found_by_their_endings(tmp_path):
    names = ["a.pth", "b.pt", "c.ckpt", "d.PTH", "e.pth.tar", "pytorch_model.bin", "adapter_model.safetensors"]
    for name in names:
        torch.save({}, tmp_path / name)
    for name in ("notes.txt", "data.tar", "._a.pth", "e.parquet", "best.bin", "model.pth.backup"):
        (tmp_path / name).write_bytes(b"x" * 99)
    torch.save({}, tmp_path / "renamed.bin")
    assert {path.name for path in found_below(tmp_path)} == {*names, "renamed.bin"}


def test_leftovers_of_downloads_are_told_as_such(tmp_path):
    for name in (
        "m.pth.part",
        "m.safetensors.crdownload",
        "3f2a.incomplete",
        ".m.ckpt.Qa3b9Z",
        "film.mp4.part",
        "m.bin",
    ):
        torch.save({}, tmp_path / name)
    (tmp_path / "m.bin.aria2").write_bytes(b"x")
    found = found_below(tmp_path)
    assert {path.name for path, place in found.items() if place.remark} == {
        *("m.pth.part", "m.safetensors.crdownload", "3f2a.incomplete", ".m.ckpt.Qa3b9Z", "m.bin", "m.bin.aria2")
    }


def test_a_link_to_nowhere_is_told(tmp_path):
    (tmp_path / "model.safetensors").symlink_to("../../blobs/none")
    assert list(found_below(tmp_path)) == [tmp_path / "model.safetensors"]


def test_links_are_followed_once_and_never_upwards(tmp_path):
    root, disk = tmp_path / "home" / "runs", tmp_path / "disk"
    torch.save({}, folders.weights(root / "a" / "m.safetensors").with_name("x.pt"))
    folders.weights(disk / "big.safetensors")
    folders.weights(tmp_path / "home" / "outside.safetensors")
    (root / "loop").symlink_to("..")
    (root / "self").symlink_to(".")
    (root / "0").symlink_to("a")
    (root / "b").symlink_to(disk)
    (disk / "back").symlink_to(root)
    assert list(found_below(root)) == [
        *(root / "a" / "m.safetensors", root / "a" / "x.pt"),
        root / "b" / "big.safetensors",
    ]


def test_folders_that_hold_no_checkpoints_are_skipped(tmp_path):
    for name in (".git", ".venv", "node_modules", "__pycache__", "runs"):
        folders.weights(tmp_path / name / "deep" / "m.safetensors")
    assert list(found_below(tmp_path)) == [tmp_path / "runs" / "deep" / "m.safetensors"]


def test_what_cannot_be_looked_into_is_told_and_the_rest_is_found(tmp_path, monkeypatch):
    folders.weights(tmp_path / "open" / "m.safetensors")
    (tmp_path / "shut").mkdir()
    scandir = os.scandir

    def refuse(folder):
        if folder == tmp_path / "shut":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    found = found_below(tmp_path, tmp_path / "nowhere")
    assert found[tmp_path / "shut"].remark == "it cannot be looked into: Permission denied"
    assert "No such file" in found[tmp_path / "nowhere"].remark
    assert found[tmp_path / "shut"].files == ()
    assert tmp_path / "open" / "m.safetensors" in found


def test_a_file_may_be_named_itself(tmp_path):
    path = folders.weights(tmp_path / "m.safetensors")
    assert list(found_below(path)) == [path]


def test_no_more_folders_are_looked_into_than_allowed(tmp_path):
    for number in range(6):
        folders.weights(tmp_path / f"{number}" / "m.safetensors")
    assert list(found_below(tmp_path, most_folders=3)) == [tmp_path / f"{n}" / "m.safetensors" for n in range(2)]
