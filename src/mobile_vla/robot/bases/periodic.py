"""Something done again and again beside the thread that drives, until told to end."""

import logging
import threading
from collections.abc import Callable

_JOIN_LIMIT_S = 2.0
_log = logging.getLogger(__name__)


class Periodic:
    """Calls ``action`` every ``period_s`` in a thread of its own until ``close``, or until it returns False.

    What it raises ends it too, and is logged. Rounds that were missed are left out, never caught up.
    """

    def __init__(self, name: str, period_s: float, action: Callable[[], bool | None]) -> None:
        self._action, self._period_s = action, period_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End, and wait for the round under way, 2 s at most. May be called from within ``action``."""
        self._over.set()
        if self._thread is not threading.current_thread():
            self._thread.join(_JOIN_LIMIT_S)

    def _run(self) -> None:
        try:
            while not self._over.wait(self._period_s):
                if self._action() is False:
                    return
        except Exception:
            _log.exception("%s ended", self._thread.name)
