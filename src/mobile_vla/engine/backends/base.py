"""What an engine is to everyone else: words brought, a history begun, decisions made. And how it is made and opened."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mobile_vla.policy.step import DecisionStep, Inputs


class Decided(NamedTuple):
    """Of n sessions: the fields of ``policy.step.Decision`` as float32 arrays, and a history for each session."""

    chunk: NDArray[np.float32]
    status: NDArray[np.float32]
    belief: NDArray[np.float32]
    histories: Sequence[Any]


class Engine(ABC):
    """A decision that is ready to run, for up to ``sessions`` sessions at once.

    Words and histories are the engine's own: they stay where it computes, and whoever drives only keeps them. What
    it gives is never written to again.
    """

    sessions: int

    @abstractmethod
    def bring(self, words: tuple[Tensor, ...]) -> Any:
        """The words of one session as from ``DecisionStep.read``: once an instruction."""

    @abstractmethod
    def start(self) -> Any:
        """The history of a session before its first frame."""

    @abstractmethod
    def decide(
        self, pixels: NDArray[np.uint8], words: Sequence[Any], motion: NDArray[np.float32], histories: Sequence[Any]
    ) -> Decided:
        """One decision of n sessions, 1 <= n <= ``sessions``: (n, H, W, 3), n words, (n, MOTION_SIZE), n histories."""

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Give back what it holds."""


@dataclass(frozen=True)
class Making:
    """What an engine's files are made from. ``calibration``: real inputs of one session each, for int8 alone."""

    step: DecisionStep
    precision: str
    sessions: int
    folder: Path
    calibration: Sequence[Inputs] = ()


@dataclass(frozen=True)
class Opening:
    """What a loaded engine is made from: the files that ``write`` left, and the step they were made from, in float32.

    ``step`` may be changed and kept by the engine. ``threads``: of a CPU.
    """

    step: DecisionStep
    precision: str
    sessions: int
    folder: Path
    threads: int = 1


class Backend(ABC):
    """One way to run decisions. ``needs``: modules, and ``extra`` the optional part of this package that brings them.

    ``device``: "cpu" or "cuda". ``libraries``: distributions whose versions belong to the machine's fingerprint.
    """

    name: ClassVar[str]
    device: ClassVar[str] = "cpu"
    precisions: ClassVar[tuple[str, ...]]
    needs: ClassVar[tuple[str, ...]] = ("torch",)
    extra: ClassVar[str] = "policy"
    libraries: ClassVar[tuple[str, ...]] = ("torch",)

    def unusable(self, precision: str) -> str:
        """Why this machine cannot run it in this precision, in a clause; empty where it can."""
        return ""

    def write(self, making: Making) -> None:  # noqa: B027 - some need no files
        """Write this engine's files below ``making.folder``."""

    @abstractmethod
    def open(self, opening: Opening) -> Engine:
        """Load. CheckpointError where the files cannot be used."""


class ArrayEngine(Engine):
    """For engines that take and give numpy arrays with a fixed number of sessions."""

    def __init__(self, step: DecisionStep, sessions: int) -> None:
        self.sessions = sessions
        example = step.example(1)
        self._none = Inputs(*(None if isinstance(part, tuple) else as_array(part) for part in example))  # type: ignore[arg-type]
        self._no_words = tuple(as_array(part) for part in example.words)
        self._start = as_array(step.start())

    @abstractmethod
    def run(
        self,
        pixels: NDArray[np.uint8],
        words: tuple[NDArray[Any], ...],
        motion: NDArray[np.float32],
        history: NDArray[Any],
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[Any]]:
        """Exactly ``sessions`` sessions: chunk, status, belief, history; all of them new arrays."""

    def bring(self, words: tuple[Tensor, ...]) -> tuple[NDArray[Any], ...]:
        """As arrays."""
        return tuple(as_array(part) for part in words)

    def start(self) -> NDArray[Any]:
        """As the step begins."""
        return self._start

    def decide(
        self, pixels: NDArray[np.uint8], words: Sequence[Any], motion: NDArray[np.float32], histories: Sequence[Any]
    ) -> Decided:
        """See ``Engine``; room that no session needs is filled with inputs of nothing."""
        if self.sessions == 1:
            chunk, status, belief, history = self.run(pixels, words[0], motion, histories[0])
            return Decided(chunk, status, belief, (history,))
        count = len(pixels)
        spare = self.sessions - count
        filled = tuple(
            np.concatenate([*parts, *[nothing] * spare])
            for parts, nothing in zip(zip(*words, strict=True), self._no_words, strict=True)
        )
        chunk, status, belief, history = self.run(
            np.concatenate([pixels, *[as_array(self._none.pixels)] * spare]),
            filled,
            np.concatenate([motion, *[as_array(self._none.motion)] * spare]),
            np.concatenate([*histories, *[self._start] * spare]),
        )
        kept = [history[place : place + 1] for place in range(count)]
        return Decided(chunk[:count], status[:count], belief[:count], kept)


def as_array(value: Any) -> NDArray[Any]:
    """A tensor as an array of its own; arrays as they are. bfloat16, which numpy has not, as float32."""
    if isinstance(value, np.ndarray):
        return value
    tensor = value.detach().cpu()
    result: NDArray[Any] = (tensor.float() if tensor.dtype.itemsize == 2 else tensor).numpy().copy()
    return result
