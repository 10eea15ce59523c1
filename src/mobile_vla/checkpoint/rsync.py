"""The program rsync as the carrier of a checkpoint: what to hand it, how long to wait for it, what its end means."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mobile_vla.core import CheckpointError

_OLDEST = (3, 1)
_LONGEST_PAUSE_S = 30.0
_POLL_S = 0.2
_SLOW_DISK_BYTES_PER_S = 20e6  # at which a side that hashes may read; it says nothing until a file is done
_BROKEN = {10, 12, 30, 35, 255}  # rsync's codes for sockets, the data stream and time limits; 255 is ssh's own
_VANISHED = 24  # a file that was listed was gone when its turn came
_SSH = "ssh -o ConnectTimeout=30 -o ServerAliveInterval=15 -o ServerAliveCountMax=4"
_REMOTE = re.compile(r"(?:(?P<user>[^@:/]+)@)?(?P<host>\[[^\]/]+\]|[^:/\[\]@]+):(?P<path>.*)", re.DOTALL)
_WILD = re.compile(r"[*?\[]")
_LISTED = re.compile(r"([-d])\S{9,10}\s+(\d+)\s")


@dataclass(frozen=True)
class Origin:
    """What is copied: ``spoken`` as the user wrote it, ``address`` as rsync takes it; ``size`` in bytes."""

    spoken: str
    address: str
    is_folder: bool
    size: int


@dataclass(frozen=True)
class Ended:
    """A run of rsync that is over."""

    code: int
    output: str
    errors: str

    @property
    def complete(self) -> bool:
        """It did its work, but for files that vanished while it did."""
        return self.code in (0, _VANISHED)

    def complain(self, doing: str) -> CheckpointError:
        """The error to raise, in the words of rsync or ssh."""
        if "No space left on device" in self.errors or "Disk quota exceeded" in self.errors:
            return CheckpointError(f"{doing}: the disk is full; make room and run it again")
        lines = [line.strip() for line in self.errors.splitlines() if line.strip()]
        noise = ("rsync error:", "Warning:", "rsync: [Receiver] write error: Broken pipe")
        said = [line for line in lines if not line.startswith(noise)] or lines
        advice = "; install rsync on that machine" if "rsync: command not found" in self.errors else ""
        return CheckpointError(f"{doing}: {' / '.join(said[-3:]) or f'rsync ended with code {self.code}'}{advice}")


@dataclass(frozen=True)
class Rsync:
    """The program. ``attempts`` bounds how often a broken line is tried, ``timeout_s`` how long one may be silent.

    ``lock`` is a file that stays locked as long as any rsync runs, even one that has outlived its parent.
    """

    program: str
    attempts: int
    timeout_s: int
    lock: int | None = None

    @classmethod
    def installed(cls, attempts: int, timeout_s: int) -> "Rsync":
        """CheckpointError that says how to install it where it is missing or too old."""
        advice = "apt-get install rsync, brew install rsync, or the like"
        program = shutil.which("rsync")
        if program is None:
            raise CheckpointError(f"rsync is needed to copy checkpoints and is not installed: {advice}")
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, timeout=30).stdout
        found = re.match(r"rsync\s+version v?(\d+)\.(\d+)", said)
        if not found or (int(found[1]), int(found[2])) < _OLDEST:
            name = said.partition("\n")[0].strip() or "it does not tell its version"
            raise CheckpointError(f"rsync 3.1 or newer is needed, and {program} is not ({name}): {advice}")
        return cls(program, attempts, timeout_s)

    def look(self, source: str) -> Origin:
        """Whether ``source`` is a file or a folder, and its bytes. CheckpointError where it cannot be read."""
        place = address(source)
        ended = self.run(self.timeout_s, "--list-only", "--no-human-readable", "--", place)
        if ended.code:
            raise ended.complain(f"cannot read {source}")
        entries = [found for found in map(_LISTED.match, ended.output.splitlines()) if found]
        if not entries:
            raise CheckpointError(f"{source} is neither a file nor a folder")
        is_folder = entries[0][1] == "d"
        size = sum(int(found[2]) for found in entries if found[1] == "-")
        return Origin(source, place.rstrip("/") + "/" if is_folder else place, is_folder, size)

    def compare(self, origin: Origin, copy: Path) -> list[str]:
        """Names whose bytes differ between the two, by hashes that each side makes of all of its own."""
        options = ("--checksum", "--dry-run", "--delete", "--out-format=%n", "--", origin.address, str(copy))
        ended = self.steadily(lambda: self.run(self.patience_s(origin), *options))
        if not ended.complete:
            raise ended.complain(f"cannot compare {origin.spoken} with its copy")
        changes = [line.removeprefix("deleting ") for line in ended.output.splitlines() if line not in ("", "./")]
        return changes or (["a file that vanished"] if ended.code else [])

    def update(self, origin: Origin, copy: Path, *, by_hash: bool, meanwhile: Callable[[], None]) -> Ended:
        """One attempt to make ``copy`` like ``origin``.

        It goes on at the end of what has arrived before, and leaves it to ``compare`` to see whether that was right;
        ``by_hash`` goes through files that differ block by block instead, which mends them wherever that is.
        """
        # both write in place: what has arrived is where the next run looks for it, even after a kill
        how = ["--checksum", "--inplace", "--no-whole-file"] if by_hash else ["--append"]
        options = [*how, "--times", "--chmod=Du+rwx,Fu+rw", "--delete", "--stats", "--no-human-readable"]
        silence_s = self.patience_s(origin) if by_hash else self.timeout_s
        return self.run(silence_s, *options, "--", origin.address, str(copy), meanwhile=meanwhile)

    def patience_s(self, origin: Origin) -> int:
        """How long a side may be silent while it reads all of the source."""
        return self.timeout_s + int(origin.size / _SLOW_DISK_BYTES_PER_S)

    def steadily(self, attempt: Callable[[], Ended]) -> Ended:
        """The end of the first attempt during which the line held, or of the last."""
        for number in range(self.attempts - 1):
            ended = attempt()
            if ended.code not in _BROKEN:
                return ended
            time.sleep(min(2.0**number, _LONGEST_PAUSE_S))
        return attempt()

    def run(self, silence_s: int, *arguments: str, meanwhile: Callable[[], None] | None = None) -> Ended:
        """rsync to its end; ``meanwhile`` is called while it runs. No rsync is left behind by an interruption."""
        # -s keeps the far shell away from names; -r without owners and devices; -L because a link is no copy
        command = [self.program, "-s", "-r", "-L", f"--timeout={silence_s}", *arguments]
        environment = {"RSYNC_RSH": _remote_shell(), **os.environ, "LC_ALL": "C"}
        locked = () if self.lock is None else (self.lock,)
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, env=environment, pass_fds=locked
            )
            try:
                while (code := _ended(process)) is None:
                    if meanwhile:
                        meanwhile()
            finally:
                _end(process)
            return Ended(code, _text(output), _text(errors))


def address(source: str) -> str:
    """``source`` ("PATH" or "[USER@]HOST:PATH") as rsync takes it, whatever characters stand in its name.

    CheckpointError for what is neither, for a local path that is not there, for a host that ssh would take for an
    option, and for the rare names that rsync cannot ask for.
    """
    if source.startswith("rsync://") or "::" in source.partition("/")[0].rpartition("]")[2]:
        raise CheckpointError(f"{source}: rsync's own servers are not supported; name it as HOST:PATH, for ssh")
    remote = _REMOTE.fullmatch(source)
    if not remote:
        if not os.path.exists(source):
            raise CheckpointError(f"there is no file or folder {source}")
        return os.path.abspath(source)
    user, host = remote["user"], remote["host"]
    if any(each.startswith("-") for each in (user or "", host)):
        raise CheckpointError(f"{source}: a host or user that begins with - would be an option of ssh")
    path = remote["path"].rstrip("/") or remote["path"][:1]
    # names are taken as they are, so no shell there knows "~": but home is where relative paths begin
    path = path.removeprefix("~/")
    if path in ("", "~"):
        raise CheckpointError(f"{source} names no file or folder: put its path after the colon")
    if "\\" in (name := path.rpartition("/")[2]) and set(name) & set("*?[]"):
        advice = "copy the folder it is in"
        raise CheckpointError(f"{source}: rsync cannot ask for a name with \\ and one of *?[]: {advice}")
    if not path.startswith("/"):
        path = f"./{path}"
    return f"{f'{user}@' if user else ''}{host}:{'/'.join(map(_literally, path.split('/')))}"


def is_remote(source: str) -> bool:
    """The colon stands before the first slash, as for rsync and scp."""
    return _REMOTE.fullmatch(source) is not None


def _literally(name: str) -> str:
    """rsync on the far side expands wildcards, and takes a backslash as a character only where there are none."""
    return re.sub(r"([\\*?\[])", r"\\\1", name) if _WILD.search(name) else name


def _remote_shell() -> str:
    """ssh that notices a dead line, and that asks nothing where nobody could answer."""
    return _SSH if sys.stdin is not None and sys.stdin.isatty() else f"{_SSH} -o BatchMode=yes"


def _ended(process: "subprocess.Popen[bytes]") -> int | None:
    try:
        return process.wait(_POLL_S)
    except subprocess.TimeoutExpired:
        return None


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
