"""Questions whose answer may crash or never come: each is asked in a Python process of its own, with a time limit."""

import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_LAST_WORDS = 300
PIP = shlex.join([sys.executable, "-m", "pip"])
"""pip of this very Python, as it stands in a shell line."""


@dataclass(frozen=True, slots=True)
class Answer:
    """``values`` of a probe that finished; else None, and ``trouble`` says in one sentence what happened to it."""

    values: Mapping[str, Any] | None
    trouble: str = ""


def ask(probe: str, arguments: Mapping[str, Any], timeout_s: float) -> Answer:
    """Run a probe of ``probes.py`` in another process; killed after ``timeout_s``. Never raises for what it does."""
    try:
        done = subprocess.run(
            command(probe, arguments), capture_output=True, text=True, timeout=timeout_s, errors="replace"
        )
    except subprocess.TimeoutExpired:
        return Answer(None, f"no answer within {timeout_s:g} s")
    except OSError as error:
        return Answer(None, f"no process could be started: {error}")
    return read_answer(done.returncode, done.stdout, done.stderr)


def command(probe: str, arguments: Mapping[str, Any]) -> list[str]:
    """What starts a probe."""
    return [sys.executable, "-m", "mobile_vla.doctor.probes", probe, json.dumps(arguments)]


def read_answer(code: int, out: str, err: str) -> Answer:
    """What a probe's exit code and output say; its answer is the last line that it prints."""
    if code < 0:
        return Answer(None, f"the process was ended by {_signal_name(-code)}")
    try:
        values = json.loads(out.strip().splitlines()[-1])
        if code == 0 and isinstance(values, dict):
            return Answer(values)
    except (IndexError, ValueError):
        pass
    said = err.strip().splitlines()
    return Answer(None, said[-1][:_LAST_WORDS] if said else f"the process ended with code {code} and said nothing")


def output_of(line: Sequence[str], timeout_s: float = 5.0) -> str | None:
    """What a program prints; None where it is not installed, fails, or does not end within ``timeout_s``."""
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=timeout_s, errors="replace")
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
