"""Calls that may wait, made beside a loop that must not: above all, writing to a terminal that stalls."""

import contextlib
import queue
import threading
from collections.abc import Callable
from types import TracebackType

from typing_extensions import Self

_MOST = 200
_CLOSE_S = 2.0


class Aside:
    """Carries out calls in order, in a thread of its own. Use as a context.

    ``do`` never waits; while ``_MOST`` calls are waiting, further ones are left out. An OSError of a call (a terminal
    that is gone) is told to ``lost``, and nothing is carried out any more. The end of the context waits for what is
    left, for two seconds at most.
    """

    def __init__(self, lost: Callable[[], None]) -> None:
        self._lost = lost
        self._calls: queue.Queue[Callable[[], None] | None] = queue.Queue(_MOST)
        self._thread = threading.Thread(target=self._run, name="record-aside", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(queue.Full):
            self._calls.put(None, timeout=_CLOSE_S)
        self._thread.join(_CLOSE_S)

    def do(self, call: Callable[[], None]) -> None:
        """Carry out ``call`` as soon as those before it are done."""
        with contextlib.suppress(queue.Full):
            self._calls.put_nowait(call)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            except OSError:
                self._lost()
                return
