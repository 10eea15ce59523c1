"""What machine this is. ``fingerprint`` says the same as ``mobile_vla.engine.fingerprint`` does of a CPU's engine."""

import platform
import re
import subprocess
from collections.abc import Collection
from pathlib import Path
from typing import Any

_RELEASE = re.compile(r"R(\d+) \(release\), REVISION: ([\d.]+)")


def fingerprint(instructions: Collection[str]) -> dict[str, Any]:
    """As it stands in ``engine.json``; ``instructions``: those that are looked for."""
    lines = _read("/proc/cpuinfo").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = [line.partition(":")[2].split() for line in lines if line.lower().startswith(("flags", "features"))]
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "processor": names[0] if names else platform.processor() or "unknown processor",
        "instructions": sorted(set(instructions).intersection(flags[0] if flags else ())),
        "device": "",
        "libraries": {},
    }


def board() -> dict[str, str]:
    """What a Jetson says of itself, "unknown" where it does not: a container may hide it."""
    release = _RELEASE.search(_read("/etc/nv_tegra_release"))
    return {
        "model": _read("/proc/device-tree/model").strip("\0\n ") or "unknown",
        "jetson_linux": f"R{release[1]}.{release[2]}" if release else "unknown",
        "power_mode": power_mode(),
    }


def power_mode() -> str:
    """By nvpmodel's own name."""
    try:
        answer = subprocess.run(["nvpmodel", "-q"], capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    found = re.search(r"NV Power Mode:\s*(\S+)", answer.stdout)
    return found[1] if found else "unknown"


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
