import os
import signal
import subprocess
import sys
import time

import pytest

from mobile_vla.ros.processes import PARENT_VARIABLE, Processes, Restart, Row

LIMIT_S = 60.0


def wait_until(holds, limit_s=LIMIT_S):
    end = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < end, "it did not come to that in time"
        time.sleep(0.02)


def watch_until(processes, holds):
    def turn():
        ending = processes.watch()
        assert ending is None, ending
        return holds()

    wait_until(turn)


@pytest.fixture
def told():
    return []


@pytest.fixture
def started(told, monkeypatch):
    """Start rows whose process is a Python program instead of one of our commands."""
    running = []

    def start(*rows):
        processes = Processes(rows, told.append)
        running.append(processes)
        processes.start()
        return processes

    launch = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda command, **more: launch([sys.executable, "-c", command[-1]], **more)
    )
    yield start
    for processes in running:
        processes.stop()


SLEEP = "import time; time.sleep(1000)"


def test_a_killed_process_is_started_again(started, told):
    processes = started(Row("node", (SLEEP,)))
    first = processes.pid("node")
    os.kill(first, signal.SIGKILL)
    watch_until(processes, lambda: processes.pid("node") not in (None, first))
    assert any("killed by SIGKILL" in sentence for sentence in told)


def test_one_that_ends_again_and_again_ends_all(started):
    processes = started(Row("node", ("raise SystemExit(3)",), max_restarts=1))
    ending = None

    def over():
        nonlocal ending
        ending = processes.watch()
        return ending is not None

    wait_until(over)
    assert "ended with 3" in ending
    assert "1 times" in ending


def test_one_that_must_not_be_restarted_ends_all(started):
    processes = started(Row("node", (SLEEP,), restart=Restart.NEVER))
    os.kill(processes.pid("node"), signal.SIGKILL)
    wait_until(lambda: processes.pid("node") is None)
    assert "killed by SIGKILL" in processes.watch()


def test_one_that_lives_but_says_nothing_is_killed_and_started_again(started, told):
    processes = started(Row("node", (SLEEP,), silent_after_s=0.2))
    first = processes.pid("node")
    processes.heard("node")
    processes.heard("a node of another table")
    watch_until(processes, lambda: processes.pid("node") not in (None, first))
    assert any("said nothing" in sentence for sentence in told)


def test_one_that_speaks_is_left_alone(started):
    processes = started(Row("node", (SLEEP,), silent_after_s=5.0))
    first = processes.pid("node")
    for _ in range(20):
        processes.heard("node")
        assert processes.watch() is None
        time.sleep(0.01)
    assert processes.pid("node") == first


STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(1000)"
)


def test_stop_ends_all_even_one_that_hangs_or_refuses(started, told):
    processes = started(Row("stopped", (SLEEP,)), Row("stubborn", (STUBBORN,), stop_s=1.0))
    pids = [processes.pid("stopped"), processes.pid("stubborn")]
    os.kill(pids[0], signal.SIGSTOP)
    time.sleep(1.0)  # until the stubborn one has set its handler, or it simply ends: both are right
    processes.stop()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_child_ends_when_its_parent_is_killed():
    child = "\n".join(
        (
            "from mobile_vla.ros.processes import die_with_parent",
            "die_with_parent()",
            "print('child', flush=True)",
            "import time; time.sleep(1000)",
        )
    )
    parent = f"""
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {child!r}], env=os.environ | {{{PARENT_VARIABLE!r}: str(os.getpid())}})
print(child.pid, flush=True)
child.wait()
"""
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        pid = int(process.stdout.readline())
        assert process.stdout.readline().strip() == "child"
        process.kill()

        def gone():
            try:
                with open(f"/proc/{pid}/stat") as stat:
                    return stat.read().rpartition(")")[2].split()[0] == "Z"
            except FileNotFoundError:
                return True

        wait_until(gone)
