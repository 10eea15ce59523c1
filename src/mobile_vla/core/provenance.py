"""Where an artefact comes from: the commit and the machine that made it."""

import os
import platform
import subprocess
from pathlib import Path


def git_commit() -> str | None:
    """The commit of the checkout this runs in, with "+changes" where files differ from it; None outside one."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run([*command, "--dirty=+changes"], capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def machine() -> str:
    """System, processor and number of logical cores."""
    return f"{platform.system()} {platform.machine()}, {processor()}, {os.cpu_count()} logical cores"


def processor() -> str:
    """The processor's own name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown processor"
