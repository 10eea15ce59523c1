import os

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from mobile_vla.checkpoint.layout import Format
from mobile_vla.checkpoint.manifest import read_manifest
from mobile_vla.checkpoint.verify import State, verify
from mobile_vla.core import CheckpointError


def states(verdict):
    return {finding.tensor.name: finding.state for finding in verdict.findings}


def test_a_folder_of_ours_is_proven_to_the_last_byte(ours, arrays):
    verdict = verify(ours)
    assert (verdict.state, verdict.format, verdict.problems) == (State.WHOLE, Format.OURS, ())
    assert states(verdict) == dict.fromkeys([*arrays, *(f"training.exp_avg.{name}" for name in arrays)], State.WHOLE)
    files = [path for path in ours.iterdir() if path.name != "manifest.json"]
    assert verdict.bytes_read == sum(path.stat().st_size for path in files)
    assert verdict.damage == ""


def test_a_flipped_bit_names_its_tensor_and_no_other(ours, flip):
    record = read_manifest(ours).files["weights.safetensors"].tensors["memory.weight"]
    flip(ours / "weights.safetensors", record.offset + 100)
    verdict = verify(ours)
    assert verdict.state is State.DAMAGED
    assert [name for name, state in states(verdict).items() if state is not State.WHOLE] == ["memory.weight"]
    assert "memory.weight" in verdict.damage
    assert "SHA-256" in next(each.proof for each in verdict.findings if each.state is State.DAMAGED)


@pytest.mark.parametrize("name", ["weights.safetensors", "training.safetensors", "config.json", "manifest.json"])
def test_any_flipped_bit_of_ours_is_found(ours, flip, name):
    for place in range(0, (ours / name).stat().st_size, 211):
        flip(ours / name, place)
        assert verify(ours).state is State.DAMAGED
        flip(ours / name, place)
    assert verify(ours).state is State.WHOLE


@pytest.mark.parametrize("name", ["weights.safetensors", "training.safetensors", "config.json", "manifest.json"])
def test_a_missing_file_of_ours_is_damage(ours, name):
    (ours / name).unlink()
    if name == "weights.safetensors":
        assert {s for n, s in states(verify(ours)).items() if not n.startswith("training")} == {State.MISSING}
    assert verify(ours).state is State.DAMAGED


def test_without_the_manifest_the_weights_still_prove_themselves(ours, arrays):
    (ours / "manifest.json").unlink()
    verdict = verify(ours)
    assert verdict.state is State.DAMAGED
    assert states(verdict) == dict.fromkeys([*arrays, *(f"training.exp_avg.{name}" for name in arrays)], State.WHOLE)


def test_a_format_without_checksums_is_never_called_whole(tmp_path, arrays):
    save_file(arrays, tmp_path / "x.safetensors")
    verdict = verify(tmp_path / "x.safetensors")
    assert verdict.state is State.UNPROVEN
    assert set(states(verdict).values()) == {State.UNPROVEN}
    assert verdict.unknowable


def test_torch_zip_is_proven_by_the_checksums_that_torch_skips(tmp_path, arrays, flip):
    path = tmp_path / "x.pth"
    torch.save({name: torch.from_numpy(array.copy()) for name, array in arrays.items()}, path)
    assert verify(path).state is State.WHOLE
    place = path.read_bytes().index(arrays["eye.bias"].tobytes())
    flip(path, place + 5)
    torch.load(path, weights_only=True)  # says nothing
    verdict = verify(path)
    assert [name for name, state in states(verdict).items() if state is not State.WHOLE] == ["eye.bias"]
    assert "CRC-32" in next(each.proof for each in verdict.findings if each.state is State.DAMAGED)


def test_a_lost_block_is_doubtful_where_nothing_can_prove_it(tmp_path):
    rng = np.random.default_rng(2)
    arrays = {f"t{number}": rng.normal(size=4096).astype(np.float32) for number in range(4)}
    arrays["zero"] = np.zeros(4096, np.float32)
    path = tmp_path / "x.safetensors"
    save_file(arrays, path)
    assert set(states(verify(path)).values()) == {State.UNPROVEN}
    with path.open("r+b") as file:
        place = path.read_bytes().index(arrays["t1"].tobytes()) // 4096 * 4096 + 8192
        os.pwrite(file.fileno(), bytes(4096), place)
    verdict = verify(path)
    assert verdict.state is State.DOUBTFUL
    assert [name for name, state in states(verdict).items() if state is State.DOUBTFUL] == ["t1"]


def test_zeros_over_several_tensors_make_all_of_them_doubtful(tmp_path):
    rng = np.random.default_rng(2)
    arrays = {f"t{number}": rng.normal(size=1024).astype(np.float32) for number in range(6)}
    path = tmp_path / "x.safetensors"
    save_file(arrays, path)
    with path.open("r+b") as file:
        place = path.read_bytes().index(arrays["t1"].tobytes()) // 512 * 512 + 1024
        os.pwrite(file.fileno(), bytes(10 * 1024), place)
    doubtful = [name for name, state in states(verify(path)).items() if state is State.DOUBTFUL]
    assert doubtful == ["t1", "t2", "t3"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 7100000000\n", "LFS"),
        (b"<!DOCTYPE html><html><body>Not found</body></html>", "web page"),
    ],
)
def test_what_is_no_checkpoint_is_said_to_be_what_it_is(tmp_path, content, says):
    (tmp_path / "model.pth").write_bytes(content)
    verdict = verify(tmp_path / "model.pth")
    assert verdict.state is State.DAMAGED
    assert says in verdict.damage


def test_nothing_there_is_a_sentence(tmp_path):
    with pytest.raises(CheckpointError):
        verify(tmp_path / "nowhere.pth")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        verify(tmp_path)
