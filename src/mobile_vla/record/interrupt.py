"""Signals that ask a program to end, as an event that a loop looks at."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, kill, and a terminal that was closed."""


@contextmanager
def interruptible(over: threading.Event) -> Iterator[None]:
    """Within the block the first of ``SIGNALS`` sets ``over``, and a second Ctrl-C is a KeyboardInterrupt.

    The handlers of before come back at the end. Outside the main thread, where Python takes no signals, nothing is
    changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and over.is_set():
            raise KeyboardInterrupt
        over.set()

    before = {number: signal.signal(number, ask) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
