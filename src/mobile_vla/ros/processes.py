"""Starts processes from a table, watches them, and starts them again by the rule of their row.

The kernel tells every child to end when its parent dies, so that nothing of a crashed ``up`` goes on driving.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mobile_vla.core.backports import StrEnum

PARENT_VARIABLE = "MOBILE_VLA_PARENT"
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """For a child of ``Processes``: SIGTERM when the parent dies, at once if it has died already. Linux alone."""
    parent = os.environ.get(PARENT_VARIABLE)
    if parent is None:
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):
        os.kill(os.getpid(), signal.SIGTERM)


class Restart(StrEnum):
    """What follows when a process ends by itself or is killed."""

    ALWAYS = "always"  # start it again, after a pause that doubles
    NEVER = "never"  # its end ends everything


@dataclass(frozen=True, slots=True)
class Row:
    """One process: ``arguments`` of ``python -m mobile_vla``.

    ``period_s``: how often it says on /diagnostics that it lives. One that is silent for ``silent_after_s`` hangs: it
    is killed, and started again by its rule; it has ``start_s`` to say the first word. At most
    ``max_restarts`` within ``window_s``; one more ends everything.
    ``stop_s``: how long it may take to end when asked to.
    """

    name: str
    arguments: tuple[str, ...]
    restart: Restart = Restart.ALWAYS
    period_s: float = 1.0
    silent_after_s: float = 5.0
    start_s: float = 60.0
    max_restarts: int = 5
    window_s: float = 60.0
    stop_s: float = 5.0


@dataclass(slots=True)
class _Child:
    row: Row
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    heard_s: float | None = None
    restart_at_s: float | None = None
    restarts: deque[float] = field(default_factory=deque)


class Processes:
    """The processes of a table. ``start``, then ``watch`` again and again, ``stop`` at the end.

    ``say`` is told in one sentence each time a process starts, ends, or is killed.
    """

    def __init__(self, rows: Sequence[Row], say: Callable[[str], None], clock: Callable[[], float] = time.monotonic):
        self._children = {row.name: _Child(row) for row in rows}
        self._say, self._clock = say, clock

    def pid(self, name: str) -> int | None:
        """The process's number while it runs."""
        process = self._children[name].process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Start every row, in the order of the table."""
        for child in self._children.values():
            self._launch(child)

    def heard(self, name: str) -> None:
        """The process has given a sign of life; names that are not in the table are ignored."""
        if name in self._children:
            self._children[name].heard_s = self._clock()

    def watch(self) -> str | None:
        """Restart what ended or hangs, where its rule and count allow it; else the sentence that says why all ends."""
        now_s = self._clock()
        for child in self._children.values():
            if child.process is None:
                if child.restart_at_s is not None and now_s >= child.restart_at_s:
                    self._launch(child)
                continue
            code = child.process.poll()
            if code is None:
                silence_s = now_s - (child.heard_s if child.heard_s is not None else child.started_s)
                allowed_s = child.row.silent_after_s if child.heard_s is not None else child.row.start_s
                if silence_s <= allowed_s:
                    continue
                self._say(f"{child.row.name} has said nothing for {silence_s:.1f} s: killed")
                child.process.kill()
                code = child.process.wait()
            ending = self._after_end(child, code, now_s)
            if ending is not None:
                return ending
        return None

    def stop(self) -> None:
        """Ask all to end, the last first, and kill those that take longer than their row allows."""
        for child in reversed(self._children.values()):
            process, child.process, child.restart_at_s = child.process, None, None
            if process is None or process.poll() is not None:
                continue
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGCONT)  # one that was stopped has to run to end
            try:
                process.wait(child.row.stop_s)
            except subprocess.TimeoutExpired:
                self._say(f"{child.row.name} did not end within {child.row.stop_s:g} s: killed")
                process.kill()
                process.wait()

    def _launch(self, child: _Child) -> None:
        command = [sys.executable, "-m", "mobile_vla", *child.row.arguments]
        environment = os.environ | {PARENT_VARIABLE: str(os.getpid())}
        child.process = subprocess.Popen(command, start_new_session=True, env=environment)
        child.started_s, child.heard_s, child.restart_at_s = self._clock(), None, None
        self._say(f"{child.row.name} started, process {child.process.pid}")

    def _after_end(self, child: _Child, code: int, now_s: float) -> str | None:
        name, row = child.row.name, child.row
        child.process = None
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        if row.restart is Restart.NEVER:
            return f"{name} {how}"
        while child.restarts and now_s - child.restarts[0] > row.window_s:
            child.restarts.popleft()
        if len(child.restarts) == row.max_restarts:
            return f"{name} {how}, and was started again {row.max_restarts} times within {row.window_s:g} s already"
        pause_s = 0.5 * 2.0 ** len(child.restarts)
        child.restarts.append(now_s)
        child.restart_at_s = now_s + pause_s
        self._say(f"{name} {how}: started again in {pause_s:g} s")
        return None
