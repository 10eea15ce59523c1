import json
import os

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from mobile_vla.checkpoint import load, save
from mobile_vla.checkpoint.manifest import read_manifest
from mobile_vla.checkpoint.salvage import salvage
from mobile_vla.checkpoint.survey import survey
from mobile_vla.checkpoint.template import template_of
from mobile_vla.checkpoint.verify import State, verify
from mobile_vla.core import CheckpointError


@pytest.fixture
def torch_file(tmp_path, arrays):
    path = tmp_path / "x.pth"
    torch.save({name: torch.from_numpy(array.copy()) for name, array in arrays.items()}, path)
    return path


def test_a_file_cut_in_half_gives_its_first_half_bit_for_bit(tmp_path, torch_file, arrays):
    before = torch_file.read_bytes()
    os.truncate(torch_file, before.index(arrays["memory.weight"].tobytes()) + 10)
    cut = torch_file.read_bytes()
    rescue = salvage(torch_file, tmp_path / "out")
    assert torch_file.read_bytes() == cut
    back = load_file(tmp_path / "out" / "weights.safetensors")
    assert back.keys() == {"eye.weight", "eye.bias"}
    assert all(back[name].tobytes() == arrays[name].tobytes() for name in back)
    assert rescue.missing == ("memory.weight", "steps")
    assert all(finding.state is State.WHOLE and "CRC-32" in finding.proof for finding in rescue.recovered)


def test_the_report_has_a_proof_for_every_tensor(tmp_path, torch_file, arrays):
    os.truncate(torch_file, torch_file.stat().st_size - 1)
    salvage(torch_file, tmp_path / "out")
    report = json.loads((tmp_path / "out" / "salvage.json").read_text())
    assert {each["name"] for each in report["tensors"]} == set(arrays)
    assert all("CRC-32" in each["proof"] and each["in"] == "weights.safetensors" for each in report["tensors"])
    assert (report["missing"], report["unproven"]) == ([], [])
    assert verify(tmp_path / "out" / "weights.safetensors").state is State.WHOLE


def test_with_its_head_lost_a_sibling_gives_the_names_back(tmp_path, torch_file, arrays):
    sibling = tmp_path / "sibling.pth"
    torch.save({name: torch.from_numpy(np.array(array * 3)) for name, array in arrays.items()}, sibling)
    data = torch_file.read_bytes()
    torch_file.write_bytes(data[data.index(arrays["eye.bias"].tobytes()) - 20 :])
    bare = salvage(torch_file, tmp_path / "bare")
    assert not bare.recovered
    assert len(load_file(tmp_path / "bare" / "unnamed.safetensors")) == len(bare.unnamed) == 3
    salvage(torch_file, tmp_path / "named", template=template_of(survey(sibling)))
    back = load_file(tmp_path / "named" / "weights.safetensors")
    assert {name: array.tobytes() for name, array in back.items()} == {
        name: arrays[name].tobytes() for name in ("eye.bias", "memory.weight", "steps")
    }


def test_one_of_ours_stays_one_that_loads_and_says_what_is_missing(tmp_path, ours, arrays, flip):
    record = read_manifest(ours).files["weights.safetensors"].tensors["eye.bias"]
    flip(ours / "weights.safetensors", record.offset)
    rescue = salvage(ours, tmp_path / "out")
    back = load(tmp_path / "out", training=True)
    assert (back.missing, back.unproven, rescue.missing) == (("eye.bias",), (), ("eye.bias",))
    assert back.tensors.keys() == arrays.keys() - {"eye.bias"}
    assert len(back.training) == len(arrays)
    assert (back.network, back.step) == ({"words": 96}, 40)


def test_a_damaged_optimizer_costs_the_optimizer_alone(tmp_path, ours, arrays, flip):
    flip(ours / "training.safetensors", (ours / "training.safetensors").stat().st_size - 3)
    rescue = salvage(ours, tmp_path / "out")
    back = load(tmp_path / "out", training=True)
    assert (back.missing, back.training, back.tensors.keys()) == ((), {}, arrays.keys())
    assert "optimizer" in rescue.notes[0]
    left = load_file(tmp_path / "out" / "training-partial.safetensors")
    assert len(left) == len(arrays) - 1
    assert all(left[name].tobytes() == (arrays[name[8:]].astype(np.float32) * 0.5).tobytes() for name in left)


def test_without_its_manifest_the_config_is_unproven(tmp_path, ours):
    (ours / "manifest.json").unlink()
    salvage(ours, tmp_path / "out")
    assert load(tmp_path / "out").unproven == ("config.json",)


def test_without_its_config_it_can_start_a_training_only(tmp_path, ours, arrays):
    (ours / "config.json").unlink()
    rescue = salvage(ours, tmp_path / "out")
    assert load_file(tmp_path / "out" / "weights.safetensors").keys() == arrays.keys()
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert "--init-from" in " ".join(rescue.notes)


def test_doubtful_tensors_are_kept_apart(tmp_path):
    rng = np.random.default_rng(2)
    arrays = {f"t{number}": rng.normal(size=4096).astype(np.float32) for number in range(3)}
    save_file(arrays, tmp_path / "x.safetensors")
    with (tmp_path / "x.safetensors").open("r+b") as file:
        os.pwrite(file.fileno(), bytes(4096), 16384 + 8192)
    rescue = salvage(tmp_path / "x.safetensors", tmp_path / "out")
    assert load_file(tmp_path / "out" / "weights.safetensors").keys() == {"t0", "t2"}
    assert load_file(tmp_path / "out" / "doubtful.safetensors").keys() == {"t1"}
    assert rescue.missing == ("t1",)


def test_views_and_shared_storages_come_out_as_torch_reads_them(tmp_path):
    base = torch.arange(60.0).view(6, 10)
    state = {
        "base": base,
        "turned": base.T,
        "part": base[2:5, 1:7:2],
        "wide": base[0, :1].expand(4, 5),
        "none": base[:0],
    }
    torch.save(state, tmp_path / "x.pth")
    os.truncate(tmp_path / "x.pth", (tmp_path / "x.pth").stat().st_size - 30)
    salvage(tmp_path / "x.pth", tmp_path / "out")
    back = load_file(tmp_path / "out" / "weights.safetensors")
    for name, tensor in state.items():
        np.testing.assert_array_equal(back[name], tensor.numpy())


def test_a_folder_that_holds_something_is_never_written_to(tmp_path, torch_file):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("mine")
    with pytest.raises(CheckpointError, match="not empty"):
        salvage(torch_file, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["precious"]


@pytest.mark.parametrize("content", [b"", b"<html>", bytes(4000), b"version https://git-lfs.github.com/spec/v1\n"])
def test_where_nothing_is_left_it_says_so_and_writes_nothing(tmp_path, content):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match="recovered"):
        salvage(tmp_path / "x.pth", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_foreseen(tmp_path, torch_file, monkeypatch):
    from mobile_vla.checkpoint import atomic

    usage = atomic.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(atomic.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(CheckpointError, match="free space"):
        salvage(torch_file, tmp_path / "out")


def test_files_that_a_second_save_has_counted_are_found_without_the_manifest(tmp_path, ours, arrays):
    save(ours, load(ours, training=True))
    assert (ours / "weights-2.safetensors").exists()
    (ours / "manifest.json").unlink()
    salvage(ours, tmp_path / "out")
    assert load(tmp_path / "out").tensors.keys() == arrays.keys()
