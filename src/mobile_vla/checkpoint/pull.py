"""A checkpoint from another disk or machine: a copy that goes on where it was cut off, and is proven to be the same.

The bytes gather in a hidden folder beside the target; the target's name appears only when both sides' hashes agree, so
a file that bears it is never half of one.
"""

import fcntl
import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from mobile_vla.checkpoint.atomic import readable, sync_folder
from mobile_vla.checkpoint.layout import Run
from mobile_vla.checkpoint.rsync import Ended, Origin, Rsync, is_remote
from mobile_vla.checkpoint.verify import State, Verdict, verify
from mobile_vla.core import CheckpointError, UnsafeCheckpointError

Progress = Callable[[int, int], None]
"""Called with the bytes that have arrived and the bytes of the whole, five times a second."""

_ROUNDS = 3  # a source that still differs after so many copies is being written to
_LINGER_S = 3.0  # after a broken line, the last of rsync's processes outlives the first by a moment
_FINE = (State.WHOLE, State.UNPROVEN)


@dataclass(frozen=True)
class Pulled:
    """A copy that holds the bytes of its source, each compared by hash, and what ``verify`` says of them.

    ``bytes_sent`` is what the files' contents took on the line this time, ``bytes_total`` their size; ``resumed`` tells
    that an earlier pull had left something to go on from.
    """

    target: Path
    bytes_total: int
    bytes_sent: int
    resumed: bool
    verdict: Verdict

    @property
    def damage(self) -> str:
        """What is wrong with the source, and so with the copy, in one sentence; empty where nothing is."""
        if self.verdict.state in _FINE:
            return ""
        what = self.verdict.damage or "whole sectors of zeros lie where no checksum proves them"
        looks = "looks" if self.verdict.state is State.DOUBTFUL else "is"
        return f"the source itself {looks} damaged: {what}; {self.target} is the same, byte for byte"


def pull(
    source: str,
    target: Path,
    *,
    progress: Progress | None = None,
    attempts: int = 10,
    timeout_s: int = 60,
    workers: int = 2,
    opaque: Collection[str] = (),
) -> Pulled:
    """Copy ``source``, a file or folder as rsync takes it ("PATH" or "[USER@]HOST:PATH"), to the name ``target``.

    After a kill or a lost line the next call goes on from what has arrived, and mends what has changed since. Links
    are followed, so that the copy stands on its own. The source is only read; a target that exists is left as it is.
    ``attempts`` bounds how often a broken line is tried again, ``timeout_s`` how long one may be silent. Options for
    ssh (a port, a key) belong into ssh's own configuration; ``RSYNC_RSH`` replaces the call of ssh as a whole. Without
    a terminal ours asks for no password. ``workers`` and ``opaque`` are those of ``verify``.

    CheckpointError: no rsync, no such source, not enough space, a target that differs, a line that stays broken, a
    source that changes all the while. A damaged source is copied as it is, and ``Pulled.damage`` says so; one that
    ``verify`` refuses, being no checkpoint or a hostile one, is copied too, and then its error is raised.
    """
    target = Path(os.path.abspath(target))
    if not target.name:
        raise CheckpointError(f"{target} is not a name to copy to: give the new file or folder a name")
    rsync = Rsync.installed(attempts, timeout_s)
    origin = rsync.look(source)
    if not is_remote(source) and Path(os.path.realpath(target)).is_relative_to(os.path.realpath(source)):
        raise CheckpointError(f"{target} is {source}, or lies inside of it: copy to a place outside")
    if os.path.lexists(target):
        _require_equal(rsync, origin, target)
        shutil.rmtree(_staging(target), ignore_errors=True)
        return Pulled(target, origin.size, 0, False, _judge(target, workers, opaque))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(_staging(target)) as lock:
            copy = _staging(target) / target.name
            before = _size(copy)
            _require_space(target.parent, origin.size - before)
            sent, verdict = _Line(replace(rsync, lock=lock), origin, copy, progress).carry(workers, opaque)
            _settle(copy, target)
    except OSError as error:
        raise CheckpointError(f"cannot copy to {target}: {error}") from error
    fine = verdict is not None and verdict.state in _FINE
    verdict = _moved(verdict, copy, target) if verdict and fine else _judge(target, workers, opaque)
    return Pulled(target, origin.size, sent, before > 0, verdict)


@dataclass(frozen=True)
class _Line:
    """One source on its way to one copy."""

    rsync: Rsync
    origin: Origin
    copy: Path
    progress: Progress | None

    def carry(self, workers: int, opaque: Collection[str]) -> tuple[int, Verdict | None]:
        """Until both sides hash the same: the bytes that were sent, and the verdict on the copy, if it has one."""
        if self.copy.exists() and self.copy.is_dir() != self.origin.is_folder:
            _remove(self.copy)  # of a pull of something else to the same name
        sent, changes = 0, [""]
        for number in range(_ROUNDS):
            sent += self._transfer(by_hash=number > 0)
            if changes := self.rsync.compare(self.origin, self.copy):
                continue
            verdict = None
            with suppress(CheckpointError):
                verdict = verify(self.copy, workers=workers, opaque=opaque)
            # a source that was saved over in between gives files of two saves: ask again before it is called damaged
            if (verdict and verdict.state in _FINE) or not (changes := self.rsync.compare(self.origin, self.copy)):
                return sent, verdict
        raise CheckpointError(
            f"{self.origin.spoken} and its copy differ again and again ({_some(changes)}): something writes to it; "
            "run it again when that has ended, it goes on where it was"
        )

    def _transfer(self, *, by_hash: bool) -> int:
        """Bring the copy up to date; returns the bytes of contents that were sent."""
        began = arrived = _size(self.copy)

        def attempt() -> Ended:
            nonlocal arrived
            arrived = _size(self.copy)
            return self.rsync.update(self.origin, self.copy, by_hash=by_hash, meanwhile=self._report)

        ended = self.rsync.steadily(attempt)
        if not ended.complete:
            raise ended.complain(
                f"copying {self.origin.spoken} broke off at {readable(_size(self.copy))} of "
                f"{readable(self.origin.size)} (run it again: it goes on from there)"
            )
        self._report()
        found = re.search(r"^Literal data: (\d+)", ended.output, re.MULTILINE)
        return max(0, arrived - began) + (int(found[1]) if found else 0)

    def _report(self) -> None:
        if self.progress:
            self.progress(min(_size(self.copy), self.origin.size), self.origin.size)


def _staging(target: Path) -> Path:
    return target.with_name(f".{target.name}.pull")


@contextmanager
def _locked(staging: Path) -> Iterator[int]:
    """The folder where a copy gathers, made if need be, for one pull alone; removed in the end if it is empty."""
    staging.mkdir(exist_ok=True)
    handle = os.open(staging, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if not _lock(handle):
            raise CheckpointError(
                f"another copy is on its way into {staging}: wait for it, or end that rsync, and run this again"
            )
        try:
            yield handle
        finally:
            with suppress(OSError):  # what has arrived stays
                staging.rmdir()
    finally:
        os.close(handle)


def _lock(handle: int) -> bool:
    until = time.monotonic() + _LINGER_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            time.sleep(0.1)


def _require_equal(rsync: Rsync, origin: Origin, target: Path) -> None:
    where = target.resolve()
    alike = where.exists() and where.is_dir() == origin.is_folder
    changes = rsync.compare(origin, where) if alike else [target.name]
    if changes:
        raise CheckpointError(
            f"{target} exists and differs from {origin.spoken} ({_some(changes)}): nothing was copied; "
            "choose another name, or move the old one away"
        )


def _require_space(folder: Path, needed_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed_bytes > free:
        raise CheckpointError(
            f"the copy needs {readable(needed_bytes)} more in {folder}, where {readable(free)} are free: "
            "make room, or copy to another disk; nothing was copied"
        )


def _settle(copy: Path, target: Path) -> None:
    """Give the finished copy its name, with all of it on the disk before."""
    for folder, _, names in _walk(copy):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(folder))
    if os.path.lexists(target):
        raise CheckpointError(f"{target} has appeared while it was copied: move it away and run this again")
    copy.rename(target)
    sync_folder(target.parent)


def _judge(target: Path, workers: int, opaque: Collection[str]) -> Verdict:
    try:
        return verify(target, workers=workers, opaque=opaque)
    except UnsafeCheckpointError:
        raise
    except CheckpointError as error:
        raise CheckpointError(f"{target} is there and is the same as its source, but {error}") from error


def _moved(verdict: Verdict, old: Path, new: Path) -> Verdict:
    """A verdict without complaint, of the same bytes under another name."""

    def moved(run: Run) -> Run:
        return replace(run, file=new / run.file.relative_to(old))

    findings = tuple(
        replace(each, tensor=replace(each.tensor, run=moved(each.tensor.run))) if each.tensor.run else each
        for each in verdict.findings
    )
    loose = tuple(replace(each, run=moved(each.run)) for each in verdict.loose)
    return replace(verdict, path=new, findings=findings, loose=loose)


def _size(path: Path) -> int:
    """Bytes of a file, or of all files of a folder; 0 where there is nothing. It may change while it is counted."""
    total = 0
    for folder, _, names in _walk(path):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total


def _walk(path: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """As os.walk, of a file too."""
    return os.walk(path) if path.is_dir() else iter([(str(path.parent), [], [path.name])])


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
