import hashlib
import json
import os
from dataclasses import replace

import numpy as np
import pytest
from safetensors import safe_open

from mobile_vla.checkpoint import Checkpoint, Metric, atomic, load, save
from mobile_vla.checkpoint.manifest import MANIFEST, read_manifest
from mobile_vla.checkpoint.store import BF16, CONFIG, TRAINING, WEIGHTS
from mobile_vla.core import ActionContract, CheckpointError, ContractMismatchError

FILES = (WEIGHTS, CONFIG, MANIFEST)


@pytest.fixture
def checkpoint():
    rng = np.random.default_rng(1)
    tensors = {"head.weight": rng.normal(size=(4, 3)).astype(np.float32), "count": np.array(7, dtype=np.int64)}
    return Checkpoint(
        "compact", {"words": 96}, ActionContract(limits=(0.5, 0.4, 1.0)), {"seed": 1, "말": "한국어"}, tensors
    )


@pytest.fixture
def folder(tmp_path, checkpoint):
    save(tmp_path / "made" / "here", checkpoint)
    return tmp_path / "made" / "here"


def test_what_was_saved_comes_back(folder, checkpoint):
    back = load(folder)
    assert (back.policy, back.network, back.contract, back.origin) == (
        checkpoint.policy,
        checkpoint.network,
        checkpoint.contract,
        checkpoint.origin,
    )
    assert back.tensors.keys() == checkpoint.tensors.keys()
    for name, tensor in checkpoint.tensors.items():
        assert back.tensors[name].dtype == tensor.dtype
        np.testing.assert_array_equal(back.tensors[name], tensor)


def test_nothing_is_left_beside_the_three_files(folder):
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)


def test_saving_again_replaces_it(folder, checkpoint):
    save(folder, Checkpoint("compact", {}, ActionContract(), {}, {"w": np.ones(2, np.float32)}))
    assert load(folder).tensors.keys() == {"w"}


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG])
@pytest.mark.parametrize("place", [0.0, 0.5, 0.999])
def test_a_flipped_bit_is_found_wherever_it_is(folder, name, place):
    data = bytearray((folder / name).read_bytes())
    data[int(place * len(data))] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(CheckpointError, match=f"damaged: {name} holds other bytes"):
        load(folder)


def test_any_flipped_byte_of_any_file_is_found(folder):
    for name in FILES:
        data = (folder / name).read_bytes()
        for place in range(0, len(data), 7):
            (folder / name).write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
            with pytest.raises(CheckpointError):
                load(folder)
        (folder / name).write_bytes(data)
    load(folder)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kept", [0, 1, -1])
def test_a_cut_file_is_found(folder, name, kept):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data.rstrip()) - 1] if kept < 0 else data[:kept])
    with pytest.raises(CheckpointError, match=name):
        load(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name} cannot be read"):
        load(folder)


def test_a_folder_that_is_not_there_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize("content", ["[]", "null", '{"format": 2}', '{"format": 2, "files": []}', "{}"])
def test_a_manifest_of_another_form_is_refused(folder, content):
    (folder / MANIFEST).write_text(content)
    with pytest.raises(CheckpointError, match=MANIFEST):
        load(folder)


def rewrite_config(folder, change):
    """Change the config and let the manifest know, as another version of the program might have written it."""
    config = json.loads((folder / CONFIG).read_text())
    change(config)
    data = json.dumps(config).encode()
    (folder / CONFIG).write_bytes(data)
    manifest = read_manifest(folder)
    known = replace(manifest.files[CONFIG], size=len(data), sha256=hashlib.sha256(data).hexdigest())
    manifest = replace(manifest, files={**manifest.files, CONFIG: known})
    (folder / MANIFEST).write_bytes(manifest.to_json())


@pytest.mark.parametrize("key", ["policy", "network", "contract", "origin"])
def test_a_config_that_lacks_a_key_is_no_checkpoint_of_ours(folder, key):
    rewrite_config(folder, lambda config: config.pop(key))
    with pytest.raises(CheckpointError, match=f"no checkpoint of this version of mobile-vla.*{key}"):
        load(folder)


def test_a_contract_of_another_version_is_named_as_such(folder):
    rewrite_config(folder, lambda config: config["contract"].update(clutch="pressed"))
    with pytest.raises(ContractMismatchError, match="clutch"):
        load(folder)


def test_step_metric_and_optimizer_come_back_when_asked_for(tmp_path, checkpoint):
    moments = {"exp_avg.0": np.arange(5, dtype=np.float32), "steps": np.array(3, np.int64)}
    more = replace(checkpoint, training=moments, step=500, metric=Metric("loss", 0.25, "lower"), missing=("b",))
    save(tmp_path, more)
    assert load(tmp_path).training == {}
    back = load(tmp_path, training=True)
    assert (back.step, back.metric, back.missing, back.unproven) == (500, more.metric, ("b",), ())
    np.testing.assert_array_equal(back.training["exp_avg.0"], moments["exp_avg.0"])
    assert back.training["steps"].shape == ()


def test_the_manifest_says_what_the_weights_were_made_from(tmp_path, checkpoint):
    origin = {"git_commit": "abc", "data": {"survey": {"data_hash": "1", "split_hash": "2"}}}
    save(tmp_path, replace(checkpoint, origin=origin))
    made_from = read_manifest(tmp_path).made_from
    assert made_from["git_commit"] == "abc"
    assert made_from["data"] == origin["data"]
    assert len(made_from["contract_sha256"]) == 64


def test_the_same_weights_have_the_same_identity_wherever_they_are_saved(tmp_path, checkpoint):
    save(tmp_path / "a", checkpoint)
    save(tmp_path / "b", replace(checkpoint, step=7, origin={}))
    save(tmp_path / "c", replace(checkpoint, tensors=checkpoint.tensors | {"count": np.array(8, dtype=np.int64)}))
    identities = [read_manifest(tmp_path / name).identity for name in "abc"]
    assert identities[0] == identities[1] != identities[2]


@pytest.mark.parametrize("number", range(12))
def test_wherever_a_save_is_cut_off_the_old_or_the_new_one_is_whole(folder, checkpoint, monkeypatch, number):
    new = replace(checkpoint, tensors={"w": np.ones(9, np.float32)}, training={"m": np.zeros(2, np.float32)})
    steps = []

    def dying(do):
        def step(*arguments):
            if len(steps) == number:
                raise KeyboardInterrupt
            steps.append(do)
            return do(*arguments)

        return step

    monkeypatch.setattr(atomic.os, "replace", dying(atomic.os.replace))
    monkeypatch.setattr(atomic.os, "fsync", dying(atomic.os.fsync))
    try:
        save(folder, new)
    except KeyboardInterrupt:
        pass
    else:
        assert number > 3
    monkeypatch.undo()
    assert load(folder).tensors.keys() in ({"w"}, checkpoint.tensors.keys())
    save(folder, new)
    assert load(folder).tensors.keys() == {"w"}
    assert len(list(folder.iterdir())) == 4


def test_saving_again_and_again_leaves_nothing_behind(folder, checkpoint):
    for _ in range(3):
        save(folder, replace(checkpoint, training={"m": np.zeros(2, np.float32)}))
    names = {path.name.replace("-2", "") for path in folder.iterdir()}
    assert names == {WEIGHTS, CONFIG, TRAINING, MANIFEST}


def test_a_disk_that_is_too_small_is_foreseen_and_the_old_one_stays(folder, checkpoint, monkeypatch):
    usage = atomic.shutil.disk_usage(folder)
    monkeypatch.setattr(atomic.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(CheckpointError, match=r"needs .* of free space and has 1.0 kB.*untouched"):
        save(folder, replace(checkpoint, tensors={"w": np.ones(9, np.float32)}))
    assert load(folder).tensors.keys() == checkpoint.tensors.keys()


def test_a_folder_that_cannot_be_written_is_an_error_in_a_sentence(tmp_path, checkpoint):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="cannot save to"):
        save(tmp_path / "file" / "below", checkpoint)


def test_a_manifest_of_the_first_format_is_named_as_such(folder):
    (folder / MANIFEST).write_text('{"files": {}}')
    with pytest.raises(CheckpointError, match="another version"):
        load(folder)


def test_a_dtype_that_cannot_be_stored_is_named(tmp_path, checkpoint):
    with pytest.raises(CheckpointError, match="complex128"):
        save(tmp_path, replace(checkpoint, tensors={"z": np.zeros(2, np.complex128)}))


def test_bytes_that_a_disk_changes_are_found_before_they_count(folder, checkpoint, monkeypatch):
    write = atomic.os.fsync

    def rotting(handle):
        write(handle)
        if os.fstat(handle).st_size > 200:
            os.pwrite(handle, b"?", 190)

    monkeypatch.setattr(atomic.os, "fsync", rotting)
    with pytest.raises(CheckpointError, match="gives back other bytes"):
        save(folder, checkpoint)
    monkeypatch.undo()
    load(folder)


def test_bits_of_bfloat16_come_back_as_they_were(tmp_path, checkpoint):
    bits = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    more = replace(checkpoint, tensors=checkpoint.tensors | {"half": bits.view(BF16)}, training={"m": bits.view(BF16)})
    save(tmp_path, more)
    record = read_manifest(tmp_path).files[WEIGHTS].tensors["half"]
    assert (record.dtype, record.size) == ("BF16", bits.nbytes)
    back = load(tmp_path, training=True)
    for value in (back.tensors["half"], back.training["m"]):
        assert value.dtype == BF16
        np.testing.assert_array_equal(value.view(np.uint16), bits)
    with safe_open(tmp_path / WEIGHTS, "numpy") as file:
        assert file.get_slice("half").get_dtype() == "BF16"


@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (5 * 2**20,)])
def test_tensors_of_all_sizes_are_read_into_memory_of_their_own(tmp_path, checkpoint, shape):
    rng = np.random.default_rng(2)
    value = rng.normal(size=shape).astype(np.float32)
    save(tmp_path, replace(checkpoint, tensors=checkpoint.tensors | {"value": value}))
    back = load(tmp_path).tensors
    np.testing.assert_array_equal(back["value"], value)
    assert back["value"].shape == shape
    assert all(each.flags.writeable for each in back.values())


@pytest.mark.parametrize(
    "change", [{"offset": 7}, {"size": 3}, {"dtype": "F8_E4M3"}, {"shape": (4, 4)}, {"offset": 1 << 40}]
)
def test_a_manifest_that_proves_itself_and_is_nonsense_is_refused(folder, change):
    manifest = read_manifest(folder)
    weights = manifest.files[WEIGHTS]
    tensors = dict(weights.tensors) | {"head.weight": replace(weights.tensors["head.weight"], **change)}
    manifest = replace(manifest, files={**manifest.files, WEIGHTS: replace(weights, tensors=tensors)})
    (folder / MANIFEST).write_bytes(manifest.to_json())
    with pytest.raises(CheckpointError, match=r"places head\.weight.*where it cannot be"):
        load(folder)
