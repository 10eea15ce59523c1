"""Room on the disks that a drive, a training and a recording write to."""

import os
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mobile_vla.doctor.check import Check, Problem, State, checked

FOLDERS = ("runs", "data", "out")
"""Below the working folder: trainings, recordings, films of drives."""
LITTLE, TOO_LITTLE = 5 << 30, 512 << 20
"""Bytes: an hour of recording; what recording leaves free at the least (``data.writer``)."""


@dataclass(frozen=True, slots=True)
class Room:
    """``exists``: the nearest folder above ``folder`` that is there already, to which the other two belong."""

    folder: Path
    exists: Path
    free: int
    writable: bool


def look_at_disk(folders: Sequence[Path]) -> tuple[Room, ...]:
    """Of the file systems on which these folders are, or would be made."""
    rooms = []
    for folder in folders:
        exists = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
        rooms.append(Room(folder, exists, shutil.disk_usage(exists).free, os.access(exists, os.W_OK | os.X_OK)))
    return tuple(rooms)


def judge_disk(seen: Sequence[Room]) -> Check:
    """Enough for a film at least?"""
    problems = []
    for room in seen:
        if not room.writable:
            line = f'sudo chown "$USER" {_quoted(room.exists)}'
            problems.append(Problem(State.FAIL, f"{room.folder} cannot be written to", (line,)))
        elif room.free < LITTLE:
            state = State.FAIL if room.free < TOO_LITTLE else State.WARN
            line = f"du -xh --max-depth=2 {_quoted(room.exists)} | sort -h | tail -n 15"
            problems.append(Problem(state, f"only {_gib(room.free)} are free for {room.folder}", (line,)))
    free = {room.free for room in seen}
    if len(free) == 1:
        return checked("disk", f"{_gib(free.pop())} free for {', '.join(str(room.folder) for room in seen)}", problems)
    return checked("disk", ", ".join(f"{_gib(room.free)} free for {room.folder}" for room in seen), problems)


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
