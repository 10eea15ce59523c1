import hashlib
import json

import numpy as np
import pytest

from mobile_vla.checkpoint import Checkpoint, load, save, store
from mobile_vla.checkpoint.store import CONFIG, MANIFEST, WEIGHTS
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
    with pytest.raises(CheckpointError, match=f"{name} is damaged"):
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
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*train it again"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize("content", ["[]", "null", '{"files": {}}', '{"files": []}', "{}"])
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
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][CONFIG] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize("key", ["policy", "network", "contract", "origin"])
def test_a_config_that_lacks_a_key_is_no_checkpoint_of_ours(folder, key):
    rewrite_config(folder, lambda config: config.pop(key))
    with pytest.raises(CheckpointError, match=f"no checkpoint of mobile-vla.*{key}"):
        load(folder)


def test_a_contract_of_another_version_is_named_as_such(folder):
    rewrite_config(folder, lambda config: config["contract"].update(clutch="pressed"))
    with pytest.raises(ContractMismatchError, match="clutch"):
        load(folder)


def test_a_kill_while_saving_is_noticed_when_it_is_loaded(folder, checkpoint, monkeypatch):
    replace, replaced = store.os.replace, []

    def die_at_the_second(source, target):
        if replaced:
            raise KeyboardInterrupt
        replaced.append(target)
        replace(source, target)

    monkeypatch.setattr(store.os, "replace", die_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        save(folder, Checkpoint("compact", {}, ActionContract(), {}, {"w": np.ones(9, np.float32)}))
    with pytest.raises(CheckpointError, match="damaged"):
        load(folder)
