"""The chunk queue: which velocity of which chunk is meant for now."""

import threading
from dataclasses import dataclass

from mobile_vla.core import ActionChunk, Twist


@dataclass(frozen=True, slots=True)
class Plan:
    """What a chunk says for now. ``twist`` is None when no row is meant for now, ``capture_ns`` before any chunk."""

    twist: Twist | None
    capture_ns: int | None


@dataclass(frozen=True, slots=True)
class _Rows:
    chunk: ActionChunk
    twists: tuple[Twist, ...]


class ChunkQueue:
    """Holds the newest chunk alone; safe to use from several threads.

    Rows belong to times, counted from the capture of the frame that the chunk was decided on. What was executed in the
    meantime was the chunk before, so a chunk that comes late begins at the row for now, and rows whose time has passed
    are never made up for. A newer chunk takes over at once and whole: its rows answer the newer frame, a mean of two
    plans (one round the left, one round the right) may be worse than either, and the envelope, which knows what was
    really sent, smooths the change.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: _Rows | None = None

    def offer(self, chunk: ActionChunk) -> bool:
        """Take ``chunk`` unless it is older than the one held; tells whether it was taken.

        Its velocities are read here and now, so that the control step touches no array.
        """
        rows = _Rows(chunk, tuple(Twist(*row) for row in chunk.velocities.tolist()))
        with self._lock:
            if self._newest is not None and chunk.stamp_ns < self._newest.chunk.stamp_ns:
                return False
            self._newest = rows
            return True

    def clear(self) -> None:
        """Forget the chunk: what it answered no longer holds."""
        with self._lock:
            self._newest = None

    def plan(self, now_ns: int) -> Plan:
        """What the newest chunk says for ``now_ns``: nothing before its first row and once it is exhausted."""
        with self._lock:
            newest = self._newest
        if newest is None:
            return Plan(None, None)
        row = newest.chunk.row_at(now_ns)
        return Plan(newest.twists[row] if 0 <= row < len(newest.twists) else None, newest.chunk.stamp_ns)
