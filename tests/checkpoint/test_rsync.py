import os
import pty
import shutil
import string
import sys
import time

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mobile_vla.checkpoint.rsync import Ended, Rsync, address, is_remote
from mobile_vla.core import CheckpointError

from .far_side import FarSide, everything

NAMES = [
    "plain.pt",
    "-rf",
    "--delete",
    "a b",
    "a'b\"c",
    "line\nbreak",
    "host:path",
    "~",
    "~root",
    "$(touch made)",
    "`touch made`",
    "; touch made",
    "epoch=3[1].ckpt",
    "*",
    "**",
    "?",
    "[!a]",
    "[",
    "{a,b}",
    "back\\slash",
    "\\",
    "#not a comment",
    "모델.pt",
]
ODD = "*?[]\\-~:;'\"`$&|<>(){}#!= \n\tabé한" + string.digits


@pytest.fixture
def far_side(tmp_path, monkeypatch):
    far_side = FarSide(tmp_path / "far")
    monkeypatch.setenv("RSYNC_RSH", far_side.shell)
    return far_side


@pytest.fixture
def rsync(far_side):
    return Rsync.installed(attempts=1, timeout_s=20)


def copied(rsync, source, copy):
    origin = rsync.look(source)
    ended = rsync.update(origin, copy, by_hash=False, meanwhile=lambda: None)
    assert ended.complete, ended
    assert rsync.compare(origin, copy) == []
    return origin


def copy_named(rsync, place, name, remote):
    """A file of this name, and one in a folder of this name, among others that wildcards would take too."""
    source, out = place / "source", place / "out"
    source.mkdir(parents=True)
    out.mkdir()
    for decoy in ("a", "b", "aa", "epoch=31.ckpt", "ab"):
        if decoy != name:
            (source / decoy).write_text("decoy")
    (source / name).write_text("right")
    folder = place / "folder" / name
    folder.mkdir(parents=True)
    (folder / name).write_text("right")
    (place / "folder" / "a").touch()
    host = "host:" if remote else ""
    before = everything(source), everything(folder)
    if remote and "\\" in name and set(name) & set("*?[]"):
        for each in (source / name, folder):
            with pytest.raises(CheckpointError, match="copy the folder it is in"):
                rsync.look(f"{host}{each}")
        copied(rsync, f"{host}{folder.parent}", out / "folder")
        assert (out / "folder" / name / name).read_text() == "right"
    else:
        copied(rsync, f"{host}{source / name}", out / "file")
        assert (out / "file").read_text() == "right"
        copied(rsync, f"{host}{folder}", out / "folder")
        assert {path.name: path.read_text() for path in (out / "folder").iterdir()} == {name: "right"}
    assert (everything(source), everything(folder)) == before


@pytest.mark.parametrize("remote", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_taken_as_it_is(rsync, tmp_path, monkeypatch, name, remote):
    monkeypatch.chdir(tmp_path)
    copy_named(rsync, tmp_path / "place", name, remote)
    assert not (tmp_path / "made").exists()


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(ODD, min_size=1, max_size=20))
@example("\\]")
def test_so_is_any_other(rsync, tmp_path, name):
    place = tmp_path / "place"
    shutil.rmtree(place, ignore_errors=True)
    copy_named(rsync, place, name, remote=True)


def test_relative_names_begin_where_the_far_shell_begins(rsync, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "a.pt").write_text("right")
    (tmp_path / "-x").write_text("right")
    for number, source in enumerate(("host:runs/a.pt", "me@host:./runs/a.pt", "host:~/runs/a.pt", "host:-x", "-x")):
        copied(rsync, source, tmp_path / f"copy{number}")
        assert (tmp_path / f"copy{number}").read_text() == "right"


def test_a_local_name_with_a_colon_needs_a_slash_before_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run:1").touch()
    assert is_remote("run:1")
    assert not is_remote("./run:1")
    assert address("./run:1") == str(tmp_path / "run:1")


@pytest.mark.parametrize("source", ["-oProxyCommand=touch:x", "me@-oProxyCommand=touch:x", "-lme@host:x"])
def test_a_host_that_ssh_takes_for_an_option_is_refused(source):
    with pytest.raises(CheckpointError, match="option of ssh"):
        address(source)


@pytest.mark.parametrize("source", ["host:", "host:~", "host:~/", "me@host:"])
def test_a_host_alone_is_no_source(source):
    with pytest.raises(CheckpointError, match="names no file"):
        address(source)


@pytest.mark.parametrize("source", ["rsync://host/module/x", "host::module/x", "me@host::module", "[::1]::module"])
def test_servers_without_ssh_are_refused(source):
    with pytest.raises(CheckpointError, match="not supported"):
        address(source)


def test_an_ipv6_host_is_one(far_side):
    assert address("me@[fe80::1%eth0]:/x") == "me@[fe80::1%eth0]:/x"


def test_what_is_not_there_is_named(rsync, tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no file or folder .*gone"):
        rsync.look(str(tmp_path / "gone"))
    with pytest.raises(CheckpointError, match=r"cannot read host:.*gone: .*No such file"):
        rsync.look(f"host:{tmp_path / 'gone'}")


def test_a_pipe_is_no_source(rsync, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="neither a file nor a folder"):
        rsync.look(f"host:{tmp_path / 'pipe'}")


def test_without_rsync_it_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CheckpointError, match="apt-get install rsync"):
        Rsync.installed(1, 1)


@pytest.mark.parametrize(
    "said", ["openrsync: protocol version 29", "rsync  version 3.0.9  protocol version 30", "rsync  version 2.6.9", ""]
)
def test_another_rsync_is_not_taken_for_it(tmp_path, monkeypatch, said):
    (tmp_path / "rsync").write_text(f"#!/bin/sh\necho '{said}'\n")
    (tmp_path / "rsync").chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"3\.1 or newer.*apt-get install rsync"):
        Rsync.installed(1, 1)


def test_without_rsync_on_the_far_side_it_says_so(rsync, far_side, tmp_path):
    far_side.program.write_text("#!/bin/sh\necho 'sh: 1: rsync: command not found' >&2\nexit 127\n")
    with pytest.raises(CheckpointError, match="install rsync on that machine"):
        rsync.look(f"host:{tmp_path}")


def test_a_silent_line_does_not_hold_for_ever(far_side, tmp_path):
    far_side.program.write_text("#!/bin/sh\nexec sleep 60\n")
    began = time.monotonic()
    with pytest.raises(CheckpointError, match="cannot read"):
        Rsync.installed(attempts=1, timeout_s=1).look(f"host:{tmp_path}")
    assert time.monotonic() - began < 50


def test_a_line_is_tried_so_often_and_no_more(far_side, monkeypatch):
    rsync, pauses = Rsync.installed(attempts=4, timeout_s=1), []
    monkeypatch.setattr(time, "sleep", pauses.append)
    ends = iter([12, 255, 30, 12, 0])
    assert rsync.steadily(lambda: Ended(next(ends), "", "")).code == 12
    assert next(ends) == 0
    assert pauses == [1, 2, 4]
    ends = iter([12, 0])
    assert rsync.steadily(lambda: Ended(next(ends), "", "")).complete
    ends = iter([23, 0])
    assert rsync.steadily(lambda: Ended(next(ends), "", "")).code == 23


@pytest.fixture
def ssh(tmp_path, monkeypatch):
    """An ssh that notes what it is asked and fails; rsync itself stays."""
    rsync = shutil.which("rsync")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "rsync").symlink_to(rsync)
    program = tmp_path / "bin" / "ssh"
    program.write_text(
        f"#!/bin/sh\necho \"$*\" >{tmp_path}/asked\necho 'Permission denied (publickey).' >&2\nexit 255\n"
    )
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.delenv("RSYNC_RSH", raising=False)
    return tmp_path / "asked"


def test_without_a_terminal_ssh_asks_nothing(ssh, monkeypatch):
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        with pytest.raises(CheckpointError, match="Permission denied"):
            Rsync.installed(9, 9).look("host:x")
    assert "-o BatchMode=yes" in ssh.read_text()
    assert "-o ServerAliveInterval=15" in ssh.read_text()


def test_at_a_terminal_ssh_may_ask(ssh, monkeypatch):
    ours, theirs = pty.openpty()
    with os.fdopen(ours), os.fdopen(theirs) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        with pytest.raises(CheckpointError, match="Permission denied"):
            Rsync.installed(9, 9).look("host:x")
    assert "BatchMode" not in ssh.read_text()
    assert "-o ServerAliveInterval=15" in ssh.read_text()
