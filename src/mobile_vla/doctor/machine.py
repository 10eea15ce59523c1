"""Python, the packages, the processor and the memory."""

import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from mobile_vla.doctor.check import Check, Problem, State, checked, serious
from mobile_vla.doctor.process import PIP
from mobile_vla.doctor.purpose import Purpose

OLDEST_PYTHON = (3, 10)
ROBOT_SIDE = (
    "av", "can", "dacite", "mcap", "numpy", "PIL", "pyarrow", "rapidfuzz", "rosbags", "safetensors", "serial",
    "simplejpeg", "yaml",
)  # fmt: skip
"""Modules that every installation has."""
SIMULATOR = ("gymnasium", "matplotlib", "mujoco", "OpenGL", "scipy", "skfmm")
"""Modules of the extra ``sim``."""
LEAST_MEMORY = 1 << 30
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Python:
    """``bits`` of a pointer; ``missing`` modules of those named above."""

    version: tuple[int, int, int]
    machine: str
    bits: int
    missing: frozenset[str]


def look_at_python() -> Python:
    """This process's own."""
    missing = frozenset(name for name in ROBOT_SIDE + SIMULATOR if find_spec(name) is None)
    return Python(sys.version_info[:3], platform.machine(), 64 if sys.maxsize > 2**32 else 32, missing)


def judge_python(seen: Python) -> Check:
    """Old, or of 32 bits, for which no wheels exist."""
    problems = []
    if seen.version[:2] < OLDEST_PYTHON:
        problems.append(
            Problem(
                State.FAIL,
                "Python 3.10 or newer is needed",
                ("sudo apt-get install -y python3.10 python3.10-venv",),
            )
        )
    if seen.bits != 64:
        problems.append(Problem(State.FAIL, "a system of 64 bits is needed: torch and pyarrow have no wheels for 32"))
    return checked("Python", f"{'.'.join(map(str, seen.version))} on {seen.machine}", problems)


def judge_packages(seen: Python, purpose: Purpose) -> Check:
    """Those of the robot side, and of the simulator where the drive is a simulated one. torch has its own check."""
    problems = []
    if lost := sorted(seen.missing & set(ROBOT_SIDE)):
        problems.append(
            Problem(State.FAIL, f"{', '.join(lost)} cannot be found", (f"{PIP} install --upgrade mobile-vla",))
        )
    if lost := sorted(seen.missing & set(SIMULATOR)):
        what = "the simulator" if set(lost) == set(SIMULATOR) else f"{', '.join(lost)} of the simulator"
        problems.append(
            Problem(
                serious(purpose.needs_simulator),
                f"{what} is not installed",
                (f'{PIP} install -e ".[sim]"  # in the checkout',) if purpose.needs_simulator else (),
            )
        )
    return checked("packages", "" if problems else "the robot side and the simulator are there", problems)


@dataclass(frozen=True, slots=True)
class Processor:
    """``load`` of the last minute; ``governors`` and ``drivers`` of the cores as Linux names them, none where unknown.

    ``available``: bytes of memory to be had without swapping, None where unknown.
    """

    cores: int
    load: float
    governors: frozenset[str]
    drivers: frozenset[str]
    available: int | None
    jetson: bool


def look_at_processor(root: Path, jetson: bool) -> Processor:
    """From /sys and /proc below ``root``."""
    frequency = sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq"))
    memory = _meminfo(_text(root / "proc/meminfo"))
    return Processor(
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        load=os.getloadavg()[0],
        governors=frozenset(filter(None, (_text(folder / "scaling_governor") for folder in frequency))),
        drivers=frozenset(filter(None, (_text(folder / "scaling_driver") for folder in frequency))),
        available=memory.get("MemAvailable"),
        jetson=jetson,
    )


def judge_processor(seen: Processor) -> Check:
    """Slowed down to save power, busy with something else, or short of memory: drives, but not as it could."""
    problems = []
    # the powersave of these two drivers is not the slowest speed but one that follows the load
    # https://docs.kernel.org/admin-guide/pm/intel_pstate.html
    adapts = seen.drivers <= {"intel_pstate", "amd-pstate-epp"} and bool(seen.drivers)
    if "powersave" in seen.governors and not adapts:
        line = "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
        fast = ("sudo nvpmodel -m 0", "sudo jetson_clocks") if seen.jetson else (line,)
        problems.append(Problem(State.WARN, "the processor is held at its slowest to save power", fast))
    if seen.load > 1.5 * seen.cores:
        sentence = f"busy: {seen.load:.1f} programs wait for {seen.cores} cores"
        problems.append(Problem(State.WARN, sentence, ("top -b -n 1 -o %CPU | head -n 15",)))
    if seen.available is not None and seen.available < LEAST_MEMORY:
        sentence = f"only {seen.available / _GIB:.1f} GiB of memory are free"
        problems.append(Problem(State.WARN, sentence, ("ps -eo rss,pid,comm --sort=-rss | head -n 10",)))
    facts = [f"{seen.cores} cores", f"load {seen.load:.1f}"]
    if seen.available is not None:
        facts.append(f"{seen.available / _GIB:.1f} GiB of memory free")
    facts += [f"governor {', '.join(sorted(seen.governors))}"] if seen.governors else []
    return checked("processor", ", ".join(facts), problems)


def _meminfo(text: str) -> Mapping[str, int]:
    """Bytes by name, of /proc/meminfo."""
    values = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            values[name] = int(words[0]) * 1024
    return values


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
