"""What a figure was measured on, and how rates and latencies are printed."""

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable

import numpy as np

from mobile_vla.core.provenance import processor


def describe() -> None:
    """Print processor, memory, system and the versions that matter."""
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("torch", "mujoco", "numpy", "pyarrow")
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = os.getloadavg()[0]
    print(f"{processor()}, {cores} cores, {_memory_gib():.0f} GiB; {platform.system()} {platform.release()}")
    print(f"Python {platform.python_version()}, {versions}; load before the run {load:.1f}")
    if load > 0.5:
        print("other work runs on this machine: the figures below are lower than it could reach alone")


def rate(name: str, unit: str, work: Callable[[], int], seconds: float = 3.0) -> float:
    """Repeat ``work``, which returns how many units it did, for ``seconds`` after one warm-up."""
    work()
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        done += work()
    result = done / (time.perf_counter() - began)
    print(f"{name:44} {result:12,.1f} {unit}/s")
    return result


def latencies(name: str, milliseconds: list[float]) -> None:
    """Print p50, p90 and p99 of a list of times."""
    p50, p90, p99 = np.percentile(milliseconds, [50, 90, 99])
    print(f"{name:44} p50 {p50:7.2f}  p90 {p90:7.2f}  p99 {p99:7.2f} ms  ({len(milliseconds)} times)")


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
