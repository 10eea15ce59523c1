"""Keeps the interpreter's own work off a control thread: cyclic garbage, and the lock that all threads share."""

import gc
import sys
import threading
import time
from types import TracebackType

from typing_extensions import Self

SWITCH_S = 0.0005
"""After how long a thread that computes in Python hands the interpreter's lock to one that waits for it; else 5 ms."""
OVERDUE = 10
"""A collection waits for spare time until so many times as much has come together as Python itself would wait for."""
MARGIN_NS = 1_000_000
"""To be left of the spare time after a collection that takes twice as long as the longest one before."""

_in_use = threading.Lock()


class QuietInterpreter:
    """While the ``with`` block lasts, cyclic garbage is collected by ``turn``, in time that its caller has to spare.

    What is there at the start is taken for permanent (``gc.freeze``), so that a collection looks at what came since
    alone. The interpreter's own counts and thresholds (``gc.get_threshold``) say when a generation is due; one for
    which there never is time is collected all the same at ``OVERDUE`` times its threshold, so that nothing leaks.
    Afterwards all is as before. It is for the whole process: a second one at a time leaves everything as it is.
    """

    def __init__(self) -> None:
        self._holds = False
        self._was_enabled = False
        self._switch_s = 0.0
        self._longest_ns = [0, 0, 0]

    def __enter__(self) -> Self:
        gc.collect()  # takes long, and Ctrl-C may end it: nothing is changed yet
        self._holds = _in_use.acquire(blocking=False)
        if self._holds:
            self._was_enabled, self._switch_s = gc.isenabled(), sys.getswitchinterval()
            gc.disable()
            gc.freeze()
            sys.setswitchinterval(min(SWITCH_S, self._switch_s))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._holds:
            return
        sys.setswitchinterval(self._switch_s)
        gc.unfreeze()
        if self._was_enabled:
            gc.enable()
        self._holds = False
        _in_use.release()

    def turn(self, spare_ns: int) -> None:
        """Collect what is due, if anything is, and if ``spare_ns`` are enough for it or it cannot wait any longer."""
        if not self._holds:
            return
        for generation in (2, 1, 0):
            count, threshold = gc.get_count()[generation], gc.get_threshold()[generation]
            if not 0 < threshold < count:
                continue
            if spare_ns > 2 * self._longest_ns[generation] + MARGIN_NS or count > OVERDUE * threshold:
                began_ns = time.monotonic_ns()
                gc.collect(generation)
                self._longest_ns[generation] = max(self._longest_ns[generation], time.monotonic_ns() - began_ns)
                return
