"""What every repair must be: a line that a shell takes, of a program that exists."""

import re
import shlex
import subprocess
from functools import cache

PROGRAMS = {
    # program: Debian's, Jetson Linux's or the shell's own
    "apt-get", "cat", "chown", "cpupower", "du", "echo", "export", "fuser", "head", "ip", "jetson_clocks", "ls",
    "mobile-vla", "modprobe", "nvidia-smi", "nvpmodel", "ps", "sort", "source", "systemctl", "sysctl", "tail", "tee",
    "timedatectl", "top", "ufw", "unset", "usermod",
}  # fmt: skip


@cache
def fault(line: str) -> str:
    """Why a line is no repair; empty when it is one."""
    if "\n" in line or not line.strip():
        return "not one line"
    said = subprocess.run(["bash", "-n", "-c", line], capture_output=True, text=True, timeout=20).stderr
    if said:
        return said
    for part in re.split(r"\s(?:\||&&)\s", line):
        words = shlex.split(part)
        words = words[1:] if words[0] == "sudo" else words
        while "=" in words[0]:
            words = words[1:]
        is_pip = words[1:4] == ["-m", "pip", "install"] and "python" in words[0]
        if not is_pip and words[0] not in PROGRAMS:
            return f"{words[0]} is no program that is known here"
    return ""


def sound(check) -> None:
    """A row that a person can use: words, and repairs that are real lines, where there is something to repair."""
    assert check.found
    assert "\n" not in check.found
    for line in check.repairs:
        assert fault(line) == "", line
    if check.repairs:
        assert check.state.value in ("warn", "fail")
