import ctypes
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mobile_vla.checkpoint import Checkpoint, save
from mobile_vla.checkpoint.manifest import MANIFEST
from mobile_vla.checkpoint.pull import pull
from mobile_vla.checkpoint.store import CONFIG, WEIGHTS
from mobile_vla.checkpoint.verify import State
from mobile_vla.core import ActionContract, CheckpointError, UnsafeCheckpointError

from .far_side import ALL, FarSide, everything, first

SIZE = 3_000_000
"""Bytes of the weights; the line is cut at parts of it."""
CUT = first(SIZE // 2)
DETACH = 2
STALL = f"{CUT}; exec sleep 60"
NOTHING = first(0)


@pytest.fixture
def far_side(tmp_path, monkeypatch):
    far_side = FarSide(tmp_path / "far")
    monkeypatch.setenv("RSYNC_RSH", far_side.shell)
    return far_side


def weights(seed):
    return np.random.default_rng(seed).integers(0, 256, SIZE, np.uint8)


def save_one(folder, seed):
    save(folder, Checkpoint("compact", {}, ActionContract(), {}, {"a": weights(seed), "b": np.ones(9, np.float32)}))


@pytest.fixture
def source(tmp_path):
    save_one(tmp_path / "source", seed=1)
    return tmp_path / "source"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def staging(target):
    return target.with_name(f".{target.name}.pull")


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    about = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


@pytest.mark.parametrize("host", ["", "host:"])
def test_a_folder_comes_over_whole_and_the_source_is_untouched(far_side, source, tmp_path, host):
    before, reports = everything(source), []
    target = tmp_path / "made" / "here"
    pulled = pull(f"{host}{source}/", target, progress=lambda *report: reports.append(report))
    assert contents(target) == contents(source)
    assert everything(source) == before
    size = sum(path.stat().st_size for path in source.iterdir())
    assert (pulled.target, pulled.bytes_total, pulled.bytes_sent, pulled.resumed) == (target, size, size, False)
    assert pulled.verdict.state is State.WHOLE
    assert pulled.verdict.path == target
    assert {finding.tensor.run.file for finding in pulled.verdict.findings} == {target / WEIGHTS}
    assert all(check.run.file.is_file() for check in pulled.verdict.loose)
    assert pulled.damage == ""
    assert reports[-1] == (size, size)
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("host", ["", "host:"])
def test_a_file_comes_over_alone(far_side, source, tmp_path, host):
    pulled = pull(f"{host}{source / WEIGHTS}", tmp_path / "copy.safetensors")
    assert pulled.target.read_bytes() == (source / WEIGHTS).read_bytes()
    assert pulled.verdict.state in (State.WHOLE, State.UNPROVEN)
    assert not staging(pulled.target).exists()


def test_links_become_what_they_point_to(far_side, source, tmp_path):
    (tmp_path / "snapshot").mkdir()
    for path in source.iterdir():
        (tmp_path / "snapshot" / path.name).symlink_to(path)
    (tmp_path / "last").symlink_to(tmp_path / "snapshot")
    pull(f"host:{tmp_path / 'last'}", tmp_path / "copy")
    assert contents(tmp_path / "copy") == contents(source)
    assert not any(path.is_symlink() for path in [tmp_path / "copy", *(tmp_path / "copy").iterdir()])


def test_a_read_only_source_gives_a_copy_that_can_be_resumed_and_removed(far_side, source, tmp_path):
    for path in (*source.iterdir(), source):
        path.chmod(path.stat().st_mode & ~0o222)
    pull(f"host:{source}", tmp_path / "copy")
    assert all(path.stat().st_mode & 0o200 for path in [tmp_path / "copy", *(tmp_path / "copy").iterdir()])


def test_a_broken_line_is_taken_up_again_where_it_broke(far_side, source, tmp_path):
    far_side.plan(ALL, CUT, first(SIZE // 3))
    pulled = pull(f"host:{source}", tmp_path / "copy")
    assert far_side.connections == 5
    assert contents(tmp_path / "copy") == contents(source)
    assert pulled.bytes_sent < 1.1 * pulled.bytes_total


def test_a_line_that_stays_broken_leaves_what_has_arrived_for_the_next_time(far_side, source, tmp_path):
    target = tmp_path / "copy"
    far_side.plan(ALL, CUT, NOTHING)
    with pytest.raises(CheckpointError, match=r"broke off at 1\.\d MB of 3\.0 MB .*goes on from there"):
        pull(f"host:{source}", target, attempts=2)
    assert not target.exists()
    pulled = pull(f"host:{source}", target)
    assert pulled.resumed
    assert pulled.bytes_sent < 0.6 * pulled.bytes_total
    assert contents(target) == contents(source)
    assert not staging(target).exists()


def test_a_line_that_breaks_while_hashes_are_compared_is_tried_again(far_side, source, tmp_path):
    far_side.plan(ALL, ALL, first(20))
    assert pull(f"host:{source}", tmp_path / "copy").verdict.state is State.WHOLE
    assert far_side.connections == 4


PULL = """
import sys
from pathlib import Path
from mobile_vla.checkpoint.pull import pull
pull(sys.argv[1], Path(sys.argv[2]))
"""


@contextmanager
def a_pull_that_hangs_in_the_middle(far_side, source, target):
    """In a process group of its own, with half of the bytes here and the other half never coming."""
    far_side.plan(ALL, STALL)
    process = subprocess.Popen([sys.executable, "-c", PULL, f"host:{source}", str(target)], start_new_session=True)
    try:
        arrived = staging(target) / target.name / WEIGHTS
        until = time.monotonic() + 60
        while not arrived.exists() or arrived.stat().st_size < SIZE / 3:
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.01)
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_killed_pull_is_taken_up_again(far_side, source, tmp_path):
    target = tmp_path / "copy"
    with a_pull_that_hangs_in_the_middle(far_side, source, target):
        pass
    assert not target.exists()
    pulled = pull(f"host:{source}", target)
    assert pulled.resumed
    assert pulled.bytes_sent < 0.8 * pulled.bytes_total
    assert contents(target) == contents(source)


def test_two_pulls_to_one_name_do_not_meet_even_when_only_an_rsync_is_left_of_the_first(far_side, source, tmp_path):
    target = tmp_path / "copy"
    with a_pull_that_hangs_in_the_middle(far_side, source, target) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with pytest.raises(CheckpointError, match="another copy is on its way"):
            pull(f"host:{source}", target)
    assert pull(f"host:{source}", target).resumed


def test_an_interrupted_pull_leaves_no_rsync_behind(far_side, source, tmp_path):
    def interrupt(done, total):
        raise KeyboardInterrupt

    far_side.plan(ALL, STALL)
    with pytest.raises(KeyboardInterrupt):
        pull(f"host:{source}", tmp_path / "copy", progress=interrupt)
    assert pull(f"host:{source}", tmp_path / "copy").verdict.state is State.WHOLE  # no lock is held


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kept=st.integers(0, SIZE), flips=st.lists(st.integers(0, SIZE - 1), max_size=3), longer=st.integers(0, 5000))
def test_whatever_lies_there_half_copied_is_mended(source, tmp_path, kept, flips, longer):
    target = tmp_path / "copy"
    shutil.rmtree(target, ignore_errors=True)
    arrived = staging(target) / target.name
    arrived.mkdir(parents=True)
    (arrived / WEIGHTS).write_bytes((source / WEIGHTS).read_bytes()[:kept] + bytes(longer))
    (arrived / "of another pull").touch()
    for place in flips:
        if place < kept:
            flip(arrived / WEIGHTS, place)
    pulled = pull(str(source), target)
    assert contents(target) == contents(source)
    assert pulled.resumed == (kept + longer > 0)
    assert pulled.bytes_sent < pulled.bytes_total - kept + 20_000 * (len(flips) + 1)


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG])
def test_a_flipped_bit_is_mended_even_where_size_and_date_fit(far_side, source, tmp_path, name):
    arrived = staging(tmp_path / "copy") / "copy"
    shutil.copytree(source, arrived)
    flip(arrived / name, 200)
    pulled = pull(f"host:{source}", tmp_path / "copy")
    assert contents(tmp_path / "copy") == contents(source)
    assert pulled.bytes_sent < 20_000


def test_a_source_that_was_saved_anew_in_between_gives_the_new_one(far_side, source, tmp_path):
    far_side.plan(ALL, CUT)
    with pytest.raises(CheckpointError):
        pull(f"host:{source}", tmp_path / "copy", attempts=1)
    shutil.rmtree(source)
    save_one(source, seed=2)
    pulled = pull(f"host:{source}", tmp_path / "copy")
    assert pulled.verdict.state is State.WHOLE
    assert contents(tmp_path / "copy") == contents(source)


def test_a_source_of_another_kind_in_between_gives_the_new_one(far_side, source, tmp_path):
    far_side.plan(ALL, CUT, ALL, CUT)
    with pytest.raises(CheckpointError):
        pull(f"host:{source}", tmp_path / "copy", attempts=1)
    with pytest.raises(CheckpointError):
        pull(f"host:{source / WEIGHTS}", tmp_path / "copy", attempts=1)
    assert (staging(tmp_path / "copy") / "copy").is_file()
    pull(f"host:{source}", tmp_path / "copy")
    assert contents(tmp_path / "copy") == contents(source)


def test_a_source_that_changes_while_it_is_copied_is_copied_again(far_side, source, tmp_path):
    save_one(tmp_path / "newer", seed=2)
    far_side.plan(ALL, f"{ALL}; cp -p '{tmp_path}'/newer/* '{source}'")
    assert pull(f"host:{source}", tmp_path / "copy").verdict.state is State.WHOLE
    assert contents(tmp_path / "copy") == contents(tmp_path / "newer")


def test_files_of_two_saves_are_not_taken_for_damage_while_the_source_goes_on(far_side, source, tmp_path):
    save_one(tmp_path / "newer", seed=2)
    shutil.copy2(tmp_path / "newer" / WEIGHTS, source)  # the manifest follows after both sides were found equal
    far_side.plan(ALL, ALL, f"{ALL}; cp -p '{tmp_path}'/newer/* '{source}'")
    pulled = pull(f"host:{source}", tmp_path / "copy")
    assert pulled.verdict.state is State.WHOLE
    assert contents(tmp_path / "copy") == contents(tmp_path / "newer")


def test_a_source_that_changes_all_the_while_is_given_up(far_side, source, tmp_path):
    far_side.plan(ALL, *[f"{ALL}; echo >>'{source / CONFIG}'"] * 9)
    with pytest.raises(CheckpointError, match=rf"differ again and again \({CONFIG}\): something writes to it"):
        pull(f"host:{source}", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    assert staging(tmp_path / "copy").exists()


def test_what_is_there_already_and_the_same_is_left_alone(far_side, source, tmp_path):
    shutil.copytree(source, tmp_path / "copy")
    staging(tmp_path / "copy").mkdir()  # of a kill just after the copy had got its name
    before = everything(tmp_path / "copy")
    pulled = pull(f"host:{source}", tmp_path / "copy")
    assert (pulled.bytes_sent, pulled.verdict.state) == (0, State.WHOLE)
    assert everything(tmp_path / "copy") == before
    assert not staging(tmp_path / "copy").exists()


def other_bytes(target):
    flip(target / WEIGHTS, -1)


def one_file_more(target):
    (target / "evaluation.json").write_text("{}")


def one_file_less(target):
    (target / CONFIG).unlink()


def a_file_instead(target):
    shutil.rmtree(target)
    target.write_text("mine")


def a_link_to_nothing_instead(target):
    shutil.rmtree(target)
    target.symlink_to("nothing")


@pytest.mark.parametrize("host", ["", "host:"])
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (other_bytes, WEIGHTS),
        (one_file_more, "evaluation.json"),
        (one_file_less, CONFIG),
        (a_file_instead, "copy"),
        (a_link_to_nothing_instead, "copy"),
    ],
)
def test_what_is_there_already_and_differs_is_not_overwritten(far_side, source, tmp_path, change, named, host):
    shutil.copytree(source, tmp_path / "copy")
    change(tmp_path / "copy")
    before = everything(tmp_path)
    with pytest.raises(CheckpointError, match=rf"exists and differs from .*\({named}\): nothing was copied"):
        pull(f"{host}{source}", tmp_path / "copy")
    kept = {str(tmp_path / name) for name in ("copy", "source")}
    assert {key: value for key, value in before.items() if any(map(key.startswith, kept))} == {
        key: value for key, value in everything(tmp_path).items() if any(map(key.startswith, kept))
    }


def test_a_name_that_appears_meanwhile_is_not_overwritten(far_side, source, tmp_path):
    far_side.plan(ALL, ALL, f"{ALL}; echo mine >'{tmp_path / 'copy'}'")
    with pytest.raises(CheckpointError, match="has appeared"):
        pull(f"host:{source}", tmp_path / "copy")
    assert (tmp_path / "copy").read_text() == "mine\n"


def test_a_copy_into_its_own_source_is_refused(source):
    for target in (source, source / "copy", source / "below" / "copy"):
        with pytest.raises(CheckpointError, match="outside"):
            pull(str(source), target)
    assert not list(source.rglob("*.pull"))


def test_a_copy_without_a_name_is_refused(source):
    with pytest.raises(CheckpointError, match="give the new file or folder a name"):
        pull(str(source), Path("/"))


@pytest.mark.parametrize("place", [-1, SIZE // 2])
def test_a_damaged_source_is_copied_as_it_is_and_called_so(far_side, source, tmp_path, place):
    flip(source / WEIGHTS, place)
    pulled = pull(f"host:{source}", tmp_path / "copy")
    assert contents(tmp_path / "copy") == contents(source)
    assert pulled.verdict.state is State.DAMAGED
    assert pulled.damage.startswith("the source itself is damaged: ")
    assert pulled.damage.endswith(f"{tmp_path / 'copy'} is the same, byte for byte")
    assert ".pull" not in repr(pulled)
    assert pull(f"host:{source}", tmp_path / "copy").damage == pulled.damage


def test_a_source_that_lost_a_file_is_called_damaged(far_side, source, tmp_path):
    (source / MANIFEST).unlink()
    assert MANIFEST in pull(f"host:{source}", tmp_path / "copy").damage


def test_a_pointer_of_git_lfs_is_no_checkpoint(far_side, tmp_path):
    pointer = tmp_path / "model.safetensors"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 400\n")
    assert "LFS" in pull(f"host:{pointer}", tmp_path / "copy.safetensors").damage


def test_a_folder_without_a_checkpoint_is_copied_and_called_so(far_side, source, tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    source.rename(tmp_path / "run" / "checkpoints" / "1")
    with pytest.raises(CheckpointError, match=r"is there and is the same as its source, but .*no checkpoint"):
        pull(f"host:{tmp_path / 'run'}", tmp_path / "copy")
    assert contents(tmp_path / "copy" / "checkpoints" / "1") == contents(tmp_path / "run" / "checkpoints" / "1")


class Evil:
    def __reduce__(self):
        return os.system, ("true",)


def test_a_hostile_file_is_copied_and_refused(far_side, tmp_path):
    torch.save({"weights": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(UnsafeCheckpointError, match="system") as caught:
        pull(f"host:{tmp_path / 'evil.pt'}", tmp_path / "copy.pt")
    assert ".pull" not in str(caught.value)
    assert (tmp_path / "copy.pt").read_bytes() == (tmp_path / "evil.pt").read_bytes()


def test_too_little_space_is_foreseen(far_side, tmp_path):
    huge = tmp_path / "huge.pt"
    with huge.open("wb") as file:
        file.truncate(shutil.disk_usage(tmp_path).total + 10**9)  # takes no room itself
    with pytest.raises(CheckpointError, match=r"needs \d+\.\d GB more in .* where \d+\.\d .B are free: make room"):
        pull(f"host:{huge}", tmp_path / "copy.pt")
    assert not list(tmp_path.glob("*copy*"))
    assert far_side.connections == 1


@contextmanager
def small_disk(folder):
    """A disk of 4 MB at ``folder``, or where none can be mounted a process whose files end at 1 MB."""
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, b"size=4m") == 0:
        try:
            yield
        finally:
            libc.umount2(os.fsencode(folder), DETACH)
    else:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_up_on_the_way_leaves_what_has_arrived(far_side, source, tmp_path):
    disk = tmp_path / "disk"
    target = disk / "copy"
    with small_disk(disk):
        far_side.plan(ALL, f"{first(500_000)}; head -c 3000000 /dev/zero >'{disk / 'other'}'; {ALL}")
        with pytest.raises(CheckpointError, match=r"broke off at .*run it again") as caught:
            pull(f"host:{source}", target)
        assert not target.exists()
        if os.path.ismount(disk):
            assert "the disk is full" in str(caught.value)
            with pytest.raises(CheckpointError, match=r"needs .* more in .*disk"):
                pull(f"host:{source}", target)
            (disk / "other").unlink()
            assert pull(f"host:{source}", target).resumed
    if not os.path.ismount(disk) and not target.exists():
        assert pull(f"host:{source}", target).verdict.state is State.WHOLE
