"""What a source holds, as far as a mapping has to know it, and the episodes that come out of it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobile_vla.data.store import Extras

Pictures = Callable[[], Iterator[NDArray[np.uint8]]]


class Role(Enum):
    """What a part of a source can be used for."""

    CAMERA = "camera"
    NUMBERS = "numbers"
    TEXT = "text"
    OTHER = "not used"


@dataclass(frozen=True, slots=True)
class Part:
    """A column, data set or topic. ``what``: type, shape and rate for people. ``elements``: its numbers, in order."""

    name: str
    role: Role
    what: str
    elements: tuple[str, ...] = ()

    def __str__(self) -> str:
        numbers = f": {', '.join(self.elements)}" if self.role is Role.NUMBERS else ""
        return f"{self.name} ({self.what}{numbers})"


@dataclass(frozen=True, slots=True)
class Contents:
    """``rate_hz``: of the frames, None where nothing in the source says so. ``attributes``: of the first file."""

    kind: str
    path: Path
    episodes: int
    parts: tuple[Part, ...]
    rate_hz: float | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def part(self, name: str) -> Part | None:
        """By its name."""
        return next((part for part in self.parts if part.name == name), None)

    def of(self, *roles: Role) -> list[Part]:
        """Those with one of ``roles``."""
        return [part for part in self.parts if part.role in roles]

    def sentence(self, *roles: Role) -> str:
        """What it has of ``roles``, for an error."""
        return "; ".join(map(str, self.of(*roles))) or f"no {' or '.join(role.value for role in roles)}"


@dataclass(frozen=True, slots=True, eq=False)
class SourceEpisode:
    """N frames that were taken, their numbers ready, their pictures still in the source.

    ``key`` tells it from every other, in any run. ``actions`` and ``states`` float32 (N, 3) in the contract's units;
    ``chunks`` float32 (N, horizon, 3), NaN past the end. ``pictures`` gives N times RGB uint8 (H, W, 3).
    ``clipped``: frames whose action had to be brought within the limits. ``left_out``: frames by the reason.
    """

    name: str
    key: str
    instruction: str
    capture_ns: NDArray[np.int64]
    sequence: NDArray[np.int64]
    actions: NDArray[np.float32]
    chunks: NDArray[np.float32]
    states: NDArray[np.float32]
    extras: Extras
    pictures: Pictures
    clipped: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)


Counter = Callable[[str, int, int], None]
"""Is told how far a long work is: what is being done, how much of how much."""


def quiet(what: str, done: int, total: int) -> None:
    """A ``Counter`` that tells nobody."""


def fingerprint(*paths: Path) -> str:
    """Of size, first and last MiB of each file: enough to tell recordings apart without reading all of them."""
    digest, mebibyte = sha256(), 1 << 20
    for path in paths:
        size = path.stat().st_size
        digest.update(f"{size} ".encode())
        with path.open("rb") as file:
            digest.update(file.read(mebibyte))
            file.seek(max(0, size - mebibyte))
            digest.update(file.read(mebibyte))
    return digest.hexdigest()[:24]
