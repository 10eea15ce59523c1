from dataclasses import replace

import numpy as np
import pytest

from mobile_vla.checkpoint import Checkpoint, save
from mobile_vla.checkpoint.manifest import MANIFEST, read_manifest
from mobile_vla.core import ActionContract, CheckpointError, DamagedCheckpointError


@pytest.fixture
def folder(tmp_path):
    save(tmp_path, Checkpoint("compact", {}, ActionContract(), {}, {"w": np.ones((2, 3), np.float32)}, step=4))
    return tmp_path


def test_it_says_where_every_tensor_is(folder):
    manifest = read_manifest(folder)
    weights = manifest.files[manifest.weights]
    record = weights.tensors["w"]
    data = (folder / manifest.weights).read_bytes()
    assert data[record.offset :][: record.size] == np.ones((2, 3), np.float32).tobytes()
    assert (record.dtype, record.shape, manifest.step, manifest.complete) == ("F32", (2, 3), 4, True)


def test_every_changed_byte_is_found(folder):
    data = (folder / MANIFEST).read_bytes()
    for place in range(len(data)):
        for bit in (1, 32):
            (folder / MANIFEST).write_bytes(data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :])
            with pytest.raises(CheckpointError):
                read_manifest(folder)


@pytest.mark.parametrize("name", ["../weights.safetensors", "/etc/passwd", "a/b"])
def test_it_cannot_point_out_of_its_folder(folder, name):
    manifest = read_manifest(folder)
    files = {name if key == manifest.weights else key: record for key, record in manifest.files.items()}
    (folder / MANIFEST).write_bytes(replace(manifest, weights=name, files=files).to_json())
    with pytest.raises(DamagedCheckpointError, match="lists other files"):
        read_manifest(folder)


def test_none_there_is_no_damage(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint at") as caught:
        read_manifest(tmp_path)
    assert not isinstance(caught.value, DamagedCheckpointError)
