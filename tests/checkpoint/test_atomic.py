import errno
import os

import pytest

from mobile_vla.checkpoint import atomic
from mobile_vla.checkpoint.atomic import readable, replacing, require_space, write_bytes
from mobile_vla.core import CheckpointError


def test_a_file_appears_whole_and_alone(tmp_path):
    with replacing(tmp_path / "a") as file:
        file.write(b"12")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a").read_bytes() == b"12"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def write_and_raise(path, error):
    with replacing(path) as file:
        file.write(b"new")
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, OSError(errno.EIO, "broken")])
def test_an_error_while_writing_leaves_the_old_one(tmp_path, error):
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises((KeyboardInterrupt, ValueError, CheckpointError)):
        write_and_raise(tmp_path / "a", error)
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_named_as_such(tmp_path, number):
    with pytest.raises(CheckpointError, match="is full"), replacing(tmp_path / "a"):
        raise OSError(number, os.strerror(number))


def test_the_name_changes_only_when_the_bytes_are_on_the_disk(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(atomic.os, "fsync", lambda handle: (calls.append("fsync"), fsync(handle))[1])
    monkeypatch.setattr(atomic.os, "replace", lambda *names: (calls.append("replace"), replace(*names))[1])
    with replacing(tmp_path / "a") as file:
        file.write(b"1")
    assert calls == ["fsync", "replace", "fsync"]


def test_small_files_give_their_hash(tmp_path):
    assert write_bytes(tmp_path / "a", b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert (tmp_path / "a").read_bytes() == b"abc"


def test_space_that_is_there_is_no_error(tmp_path):
    require_space(tmp_path, 1000)
    with pytest.raises(CheckpointError, match=r"needs 1000000000\.0 GB"):
        require_space(tmp_path, 10**18)


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 bytes"), (999, "999 bytes"), (6_447_568, "6.4 MB"), (7.1e12, "7100.0 GB")]
)
def test_sizes_for_people(size, text):
    assert readable(size) == text
