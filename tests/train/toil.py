"""Small work for workers in other processes; each task notes in a folder that it was begun. Imports no torch."""

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mobile_vla.core import ConfigError
from mobile_vla.train.workers import fan_out


@dataclass(frozen=True)
class Task:
    """``kills``: its worker, so many times."""

    number: int
    kills: int = 0
    refuses: bool = False

    def __str__(self) -> str:
        return f"task {self.number}"


@dataclass(frozen=True)
class Toil:
    """Opens a workshop that squares numbers; ``never_opens``: it kills the worker that tries."""

    notes: Path
    never_opens: bool = False

    def __call__(self) -> Callable[[Task], int]:
        if self.never_opens:
            os._exit(3)
        self.note("opened", os.getpid())
        return self.square

    def square(self, task: Task) -> int:
        self.note("begun", task.number)
        if task.kills and len(self.noted("begun", task.number)) <= task.kills:
            os.kill(os.getpid(), signal.SIGKILL)
        if task.refuses:
            raise ConfigError(f"{task} cannot be done")
        time.sleep(0.01)
        return task.number**2

    def note(self, what: str, number: int) -> None:
        """One file a note: a kill tears none, and no two processes write one."""
        (self.notes / f"{what}-{number}-{time.monotonic_ns()}").touch()

    def noted(self, what: str, number: int | str = "*") -> list[Path]:
        return list(self.notes.glob(f"{what}-{number}-*"))


if __name__ == "__main__":
    toil, address = Toil(Path(sys.argv[1])), sys.argv[2] if len(sys.argv) > 2 else None
    for result in fan_out(toil, [Task(number) for number in range(10_000)], 2, address):
        print(result, flush=True)
