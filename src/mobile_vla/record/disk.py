"""How much longer there is room to record."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from mobile_vla.data.writer import MIN_FREE_BYTES

FIRST_GUESS_BYTES = 1.0
"""A pixel's share of a JPEG file of a busy picture: used before anything was recorded."""


@dataclass(frozen=True, slots=True)
class Room:
    """``usable_bytes`` are free beyond what recording keeps; ``minutes`` of them at the present size of a frame."""

    usable_bytes: int
    minutes: float

    @property
    def sentence(self) -> str:
        """For people."""
        if self.minutes >= 600:
            return f"room for {self.minutes / 60:.0f} h"
        return f"room for {self.minutes:.0f} min" if self.minutes >= 10 else f"room for {self.minutes:.1f} min"


class DiskGuard:
    """Watches the disk of ``root`` while frames of ``pixels`` pixels come ``rate_hz`` times a second."""

    def __init__(self, root: Path, pixels: int, rate_hz: float, min_free_bytes: int = MIN_FREE_BYTES) -> None:
        self._root, self._rate_hz, self._min_free_bytes = root, rate_hz, min_free_bytes
        self._frame_bytes = max(1.0, pixels * FIRST_GUESS_BYTES)

    def saw(self, frames: int, size_bytes: int) -> None:
        """So many frames took so many bytes."""
        if frames > 0:
            self._frame_bytes = max(1.0, size_bytes / frames)

    def room(self, open_bytes: int = 0) -> Room:
        """What is left when ``open_bytes`` that are still in memory are written, too. OSError when the disk is gone."""
        free = shutil.disk_usage(self._root).free
        usable = max(0, free - self._min_free_bytes - open_bytes)
        return Room(usable, usable / (self._frame_bytes * self._rate_hz * 60))
