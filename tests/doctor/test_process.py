import contextlib
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.doctor import process
from mobile_vla.doctor.process import ask, output_of, read_answer


@given(st.integers(0, 255), st.text(), st.text())
def test_whatever_a_process_says_becomes_an_answer_or_a_trouble(code, out, err):
    answer = read_answer(code, out, err)
    assert (answer.values is None) == bool(answer.trouble)


@pytest.mark.parametrize("number", [signal.SIGILL, signal.SIGSEGV, signal.SIGBUS])
def test_a_crash_is_told_by_its_signal(number, monkeypatch):
    crash = [sys.executable, "-c", f"import os; os.kill(os.getpid(), {int(number)})"]
    monkeypatch.setattr(process, "command", lambda probe, arguments: crash)
    assert ask("torch", {}, 30.0).trouble == f"the process was ended by {number.name}"


def test_signals_without_a_name_are_told_by_number():
    assert "signal 63" in read_answer(-63, "", "").trouble


def test_no_answer_is_a_trouble_too(monkeypatch):
    monkeypatch.setattr(
        process, "command", lambda probe, arguments: [sys.executable, "-c", "import time; time.sleep(99)"]
    )
    began = time.monotonic()
    assert ask("torch", {}, 0.3).trouble == "no answer within 0.3 s"
    assert time.monotonic() - began < 60


def test_the_last_line_counts_whatever_came_before():
    assert read_answer(0, 'warning: {"a": 1}\n{"b": 2}\n', "noise").values == {"b": 2}
    assert read_answer(1, '{"b": 2}', "ValueError: no").trouble == "ValueError: no"
    assert read_answer(3, "", "").trouble == "the process ended with code 3 and said nothing"


def test_a_program_that_is_not_there_says_nothing():
    assert output_of(["surely-no-such-program"]) is None
    assert output_of(["false"]) is None
    assert output_of(["sleep", "60"], 0.2) is None
    assert output_of(["echo", "here"]) == "here\n"


def test_an_unknown_probe_is_refused_by_the_process():
    assert "KeyError" in ask("astrology", {}, 60.0).trouble


def test_nothing_is_left_running():
    before = threading.active_count(), children()
    ask("astrology", {}, 60.0)
    assert (threading.active_count(), children()) == before


def children():
    """Process numbers of the children of this process; other tests' may still be among them."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    return {child for child, parent in parents.items() if parent == os.getpid()}
