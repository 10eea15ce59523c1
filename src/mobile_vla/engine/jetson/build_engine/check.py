"""An engine against PyTorch's float32 answers for real frames, and its time. What runs is whatever has ``run``."""

import gc
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .cuda import BuildError

INPUT, WHICH, OUTPUT = "input.", "which.", "output."


class Runner(Protocol):
    """An engine, whatever it is."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """One decision of all sessions, by the names of the graph."""


class References:
    """Inputs, and what PyTorch made of them. BuildError for a file that is not as it was exported."""

    def __init__(self, path: Path) -> None:
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        except (OSError, ValueError, KeyError) as error:
            raise BuildError(f"{path} cannot be read ({error}): copy the folder again") from error
        self._inputs = {name[len(INPUT) :]: each for name, each in arrays.items() if name.startswith(INPUT)}
        self._which = {name[len(WHICH) :]: each for name, each in arrays.items() if name.startswith(WHICH)}
        self.outputs = {name[len(OUTPUT) :]: each for name, each in arrays.items() if name.startswith(OUTPUT)}
        if not self.outputs or self._inputs.keys() != self._which.keys():
            raise BuildError(f"{path} holds no references: copy the folder again")

    def __len__(self) -> int:
        return len(next(iter(self.outputs.values())))

    def inputs(self, place: int) -> dict[str, NDArray[Any]]:
        """Of one decision."""
        return {name: each[self._which[name][place]] for name, each in self._inputs.items()}

    def __iter__(self) -> Iterator[dict[str, NDArray[Any]]]:
        return (self.inputs(place) for place in range(len(self)))


def compare(runner: Runner, references: References) -> dict[str, float]:
    """How far the engine's answers are from PyTorch's.

    ``chunk_worst`` and ``chunk_p99``: of all rows and axes, in shares of the limits. ``chunk_cosine``: the least of any
    decision. ``status_equal``: share of decisions. ``bearing_p99_rad``. ``history_worst``. BuildError for an answer
    that is not finite or of another shape.
    """
    answers = [runner.run(inputs) for inputs in references]
    given = {name: np.stack([each[name] for each in answers]) for name in references.outputs}
    for name, wanted in references.outputs.items():
        if given[name].shape != wanted.shape:
            raise BuildError(f"the engine's {name} is {given[name].shape}, not {wanted.shape}: build it again")
        if not np.isfinite(given[name]).all():
            raise BuildError(
                f"the engine's {name} is not finite: its precision cannot hold this policy's numbers, export it in fp32"
            )
    apart = {name: np.abs(given[name].astype(np.float64) - wanted) for name, wanted in references.outputs.items()}
    wanted, got = (
        each["chunk"].reshape(len(references), -1).astype(np.float64) for each in (references.outputs, given)
    )
    sizes = np.linalg.norm(wanted, axis=1) * np.linalg.norm(got, axis=1)
    cosines = (wanted * got).sum(axis=1) / np.maximum(sizes, 1e-12)
    still = np.maximum(np.linalg.norm(wanted, axis=1), np.linalg.norm(got, axis=1)) < 1e-3
    same = given["status"].argmax(axis=-1) == references.outputs["status"].argmax(axis=-1)
    return {
        "chunk_worst": float(apart["chunk"].max()),
        "chunk_p99": float(np.percentile(apart["chunk"], 99)),
        "chunk_cosine": float(np.where(still, 1.0, cosines).min()),
        "status_equal": float(same.mean()),
        "bearing_p99_rad": float(np.percentile(apart["belief"][..., 6], 99)),
        "history_worst": float(apart["next_history"].max()),
    }


def exceeded(found: Mapping[str, float], tolerances: Mapping[str, float]) -> list[str]:
    """In words, each tolerance that is not kept; of ``status_equal`` and ``chunk_cosine`` the least is allowed."""
    least = ("status_equal", "chunk_cosine")
    return [
        f"{name} is {found[name]:.4g}, allowed is {'at least' if name in least else 'at most'} {limit:.4g}"
        for name, limit in tolerances.items()
        if (found[name] < limit if name in least else not found[name] <= limit)
    ]


def timed(runner: Runner, references: References, warm_up: int, times: int) -> dict[str, Any]:
    """Milliseconds of decisions one after another, inputs copied up and answers copied down; the warm-up apart."""
    frames = [references.inputs(place) for place in range(min(len(references), 16))]
    collecting = gc.isenabled()
    gc.disable()
    try:
        taken = [_time(runner, frames[place % len(frames)]) for place in range(warm_up + times)]
    finally:
        if collecting:
            gc.enable()
    return {"warm_up": _summary(taken[:warm_up]) if warm_up else None, "steady": _summary(taken[warm_up:])}


def _time(runner: Runner, inputs: Mapping[str, NDArray[Any]]) -> float:
    began = time.perf_counter_ns()
    runner.run(inputs)
    return (time.perf_counter_ns() - began) * 1e-6


def _summary(taken: list[float]) -> dict[str, float]:
    p50, p90, p99 = np.percentile(taken, [50, 90, 99]).tolist()
    return {
        "times": len(taken),
        "p50_ms": p50,
        "p90_ms": p90,
        "p99_ms": p99,
        "max_ms": max(taken),
        "mean_ms": sum(taken) / len(taken),
        "jitter_ms": p99 - p50,
    }
