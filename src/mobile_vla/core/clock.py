"""Time in integer nanoseconds, with the clock named."""

import time
from typing import Protocol

NS_PER_S = 1_000_000_000


class Clock(Protocol):
    """Tells time; whoever drives passes one in, so that a simulation can run faster or slower than life."""

    name: str

    def now_ns(self) -> int:
        """Nanoseconds since this clock's own beginning; never decreases."""
        ...

    def sleep_until(self, stamp_ns: int) -> None:
        """Return once ``now_ns() >= stamp_ns``."""
        ...


class MonotonicClock:
    """The machine's monotonic clock."""

    name = "monotonic"

    def now_ns(self) -> int:
        """Nanoseconds of ``CLOCK_MONOTONIC``."""
        return time.monotonic_ns()

    def sleep_until(self, stamp_ns: int) -> None:
        """Sleep until the monotonic clock reads ``stamp_ns``; returns at once when that has passed."""
        remaining = stamp_ns - time.monotonic_ns()
        if remaining > 0:
            time.sleep(remaining / NS_PER_S)


class ManualClock:
    """A clock that only moves when told to: the simulator's time, and the tests'."""

    def __init__(self, name: str = "simulation", now_ns: int = 0) -> None:
        self.name = name
        self._now_ns = now_ns

    def now_ns(self) -> int:
        """Nanoseconds as last set."""
        return self._now_ns

    def advance(self, duration_ns: int) -> None:
        """Move forward by ``duration_ns``; ValueError when that is negative."""
        if duration_ns < 0:
            raise ValueError(f"a clock cannot go back by {-duration_ns} ns")
        self._now_ns += duration_ns

    def sleep_until(self, stamp_ns: int) -> None:
        """Jump to ``stamp_ns`` when that lies ahead."""
        self._now_ns = max(self._now_ns, stamp_ns)
