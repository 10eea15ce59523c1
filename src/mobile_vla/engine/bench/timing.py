"""How long a call takes, over and over: the warm-up apart, several candidates in turn, and the peak of memory.

A mean hides what a robot suffers from, so percentiles stand beside it. Garbage collection is put off while a call is
timed, as the loop that drives does too, and done between two calls.
"""

import gc
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mobile_vla.core import ConfigError


@dataclass(frozen=True)
class Latency:
    """Of ``times`` calls, in milliseconds; percentiles between two samples by linear interpolation.

    ``jitter_ms`` is how much later the 99th percentile is than the median.
    """

    times: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    mean_ms: float
    jitter_ms: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def latency(ns: Sequence[int]) -> Latency:
    """Of calls whose durations are given in nanoseconds. ConfigError where there are none."""
    if len(ns) == 0:
        raise ConfigError("no call was timed: choose at least one")
    taken = np.asarray(ns, dtype=np.float64) * 1e-6
    p50, p90, p99 = (float(value) for value in np.percentile(taken, (50, 90, 99)))
    return Latency(len(ns), p50, p90, p99, float(taken.max()), float(taken.mean()), p99 - p50)


@dataclass(frozen=True)
class Taken:
    """``warm_up``: the first calls, which compile, allocate and fill caches; ``steady``: all that follow.

    ``samples_ms`` are of the steady ones, in the order in which they were made.
    """

    warm_up: Latency
    steady: Latency
    samples_ms: tuple[float, ...]


def take(
    call: Callable[[], object],
    times: int,
    warm_up: int,
    *,
    synchronise: Callable[[], object] | None = None,
) -> Taken:
    """``times`` calls after ``warm_up`` others; each needs at least 1, ConfigError for fewer.

    ``synchronise`` waits until a device has done what it was asked for (``torch.cuda.synchronize``): before a call
    begins, and before it counts as ended.
    """
    return interleave({"call": call}, times, warm_up, synchronise=synchronise)["call"]


def interleave(
    calls: Mapping[str, Callable[[], object]],
    times: int,
    warm_up: int,
    *,
    synchronise: Callable[[], object] | None = None,
) -> dict[str, Taken]:
    """As ``take``, of several calls in turn: what else the machine does hits all alike, so that ratios hold.

    In each round another one begins, so that none always follows the same other one.
    """
    if times < 1 or warm_up < 1:
        raise ConfigError(f"times={times}, warm_up={warm_up}: choose at least 1 of each")
    names = list(calls)
    taken: dict[str, list[int]] = {name: [0] * (warm_up + times) for name in names}
    with _garbage_kept():
        for turn in range(warm_up + times):
            gc.collect(0)
            first = turn % max(1, len(names))
            for name in names[first:] + names[:first]:
                taken[name][turn] = _once(calls[name], synchronise)
    return {
        name: Taken(latency(ns[:warm_up]), latency(ns[warm_up:]), tuple(each * 1e-6 for each in ns[warm_up:]))
        for name, ns in taken.items()
    }


def _once(call: Callable[[], object], synchronise: Callable[[], object] | None) -> int:
    """Nanoseconds."""
    clock = time.perf_counter_ns
    if synchronise is None:
        begin = clock()
        call()
        return clock() - begin
    synchronise()
    begin = clock()
    call()
    synchronise()
    return clock() - begin


@contextmanager
def _garbage_kept() -> Iterator[None]:
    """No garbage collection but where it is asked for."""
    was = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@dataclass(frozen=True)
class Memory:
    """Peaks: resident memory of this process; and what torch held on the CUDA device, None without one."""

    process_bytes: int
    device_bytes: int | None

    def to_dict(self) -> dict[str, int | None]:
        """Plain values."""
        return asdict(self)


_STATUS, _FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def forget_peak_memory() -> bool:
    """Let the peaks begin anew from what is held now; False where the system lets only the device's begin anew."""
    if _on_cuda():
        torch.cuda.reset_peak_memory_stats()
    try:
        _FORGET.write_text("5", encoding="ascii")  # see proc(5)
    except OSError:
        return False
    return True


def _on_cuda() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def peak_memory() -> Memory:
    """Since the process began, or since ``forget_peak_memory`` said True."""
    held = torch.cuda.max_memory_allocated() if _on_cuda() else None
    return Memory(_process_peak(), held)


def _process_peak() -> int:
    try:
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, kibibytes elsewhere
