import pytest

from mobile_vla.checkpoint import atomic, load
from mobile_vla.checkpoint.backup import back_up, backup_offer, disk_bytes
from mobile_vla.core import CheckpointError


def test_a_folder_and_a_file_are_copied_under_free_names(tmp_path, ours):
    first, second = (back_up(ours, tmp_path / "safe") for _ in range(2))
    assert (first.name, second.name) == ("ours.backup", "ours.backup-2")
    assert load(first).tensors.keys() == load(ours).tensors.keys()
    copy = back_up(ours / "weights.safetensors", tmp_path / "safe")
    assert copy.read_bytes() == (ours / "weights.safetensors").read_bytes()


def test_the_offer_says_what_it_needs_and_what_is_free(tmp_path, ours):
    assert atomic.readable(disk_bytes(ours)) in backup_offer(ours)
    with pytest.raises(CheckpointError, match="nothing at"):
        backup_offer(tmp_path / "nowhere")


def test_a_disk_that_is_too_small_is_foreseen_and_nothing_is_left(tmp_path, ours, monkeypatch):
    usage = atomic.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(atomic.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(CheckpointError, match="free space"):
        back_up(ours, tmp_path / "safe")
    assert list((tmp_path / "safe").iterdir()) == []
    assert "too little" in backup_offer(ours)
