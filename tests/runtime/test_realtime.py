"""What the system grants depends on who asks: the tests ask as who they are, and as somebody without rights."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mobile_vla.runtime import realtime
from mobile_vla.runtime.realtime import Precedence, attainable, show_names, urgent

ROOT = os.geteuid() == 0
NOBODY = 65534
WITHIN = """
import os, resource
from mobile_vla.runtime.realtime import attainable

def drop(name, value):
    number = getattr(resource, name)
    try:
        resource.setrlimit(number, (value, value))
    except ValueError:
        value = min(value, resource.getrlimit(number)[1])
        resource.setrlimit(number, (value, value))

{}
print(attainable(), *(resource.getrlimit(name)[0] for name in (resource.RLIMIT_RTPRIO, resource.RLIMIT_NICE)), sep=",")
"""


def standing():
    """Policy, nice value, priority, slice and timer slack of this thread, whatever it passes on."""
    attributes = realtime._attributes()
    slack_ns = realtime._prctl(realtime._PR_GET_TIMERSLACK, 0)
    return attributes.policy, attributes.nice, attributes.priority, attributes.slice_ns, slack_ns


def in_a_thread(work):
    """What ``work`` returns in a thread of its own, so that the one of the tests stays what it is."""
    results = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    return results[0]


def test_the_thread_is_afterwards_what_it_was():
    def work():
        before = standing()
        with urgent() as precedence:
            during = standing()
        return precedence, before, during, standing()

    precedence, before, during, after = in_a_thread(work)
    assert precedence in Precedence
    assert after == before
    if precedence is not Precedence.ORDINARY:
        assert during != before


def test_what_was_granted_is_what_the_kernel_says():
    def work():
        with urgent() as precedence:
            return precedence, standing(), os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK

    before = in_a_thread(standing)
    precedence, (policy, nice, priority, slice_ns, slack_ns), asked = in_a_thread(work)
    assert policy == asked
    assert (precedence is Precedence.REAL_TIME) == (policy == os.SCHED_FIFO)
    if precedence is Precedence.REAL_TIME:
        assert priority == realtime.FIFO_PRIORITY
        assert slack_ns == 0  # the kernel gives real-time threads none
    elif precedence is not Precedence.ORDINARY:
        assert slice_ns == realtime.SLICE_NS
        assert slack_ns == 1
        assert (precedence is Precedence.RAISED) == (nice < before[1])


def test_a_thread_or_process_that_it_starts_is_an_ordinary_one():
    def work():
        with urgent():
            child = subprocess.run(
                [sys.executable, "-c", "import os; print(os.sched_getscheduler(0), os.nice(0))"],
                capture_output=True,
                text=True,
                check=True,
            )
            return in_a_thread(standing), child.stdout.split()

    ordinary = in_a_thread(standing)
    thread, process = in_a_thread(work)
    for policy, nice in (thread[:2], map(int, process)):
        assert policy == os.SCHED_OTHER
        assert nice in (0, ordinary[1])
    assert thread[3] == ordinary[3]


def test_an_error_within_ends_it_too():
    def work():
        before = standing()
        with pytest.raises(ZeroDivisionError), urgent():
            raise ZeroDivisionError
        return before, standing()

    before, after = in_a_thread(work)
    assert after == before


def granted_within(rtprio, nice):
    """What a process without rights is granted that has these limits, as far as it may have them; and its limits."""
    words = [f"drop('RLIMIT_RTPRIO', {rtprio}); drop('RLIMIT_NICE', {nice})"]
    words += [f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})"] if ROOT else []
    done = subprocess.run(
        [sys.executable, "-c", WITHIN.format("; ".join(words))], capture_output=True, text=True, check=True
    )
    granted, *limits = done.stdout.split(",")
    return granted, *map(int, limits)


def kernel_knows_slices():
    return tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 12)


@pytest.mark.parametrize(
    ("rtprio", "nice"),
    [(0, 0), (realtime.FIFO_PRIORITY, 0), (0, 20 - realtime.NICE), (realtime.FIFO_PRIORITY - 1, 19 - realtime.NICE)],
)
def test_who_has_no_rights_has_what_the_limits_allow(rtprio, nice):
    """Where not even root may raise its limits, as in some containers, they stay at zero."""
    granted, rtprio, nice = granted_within(rtprio, nice)
    if rtprio >= realtime.FIFO_PRIORITY:
        assert granted == Precedence.REAL_TIME
    elif nice >= 20 - realtime.NICE:
        assert granted == Precedence.RAISED
    else:
        assert granted == (Precedence.SHORT_SLICE if kernel_knows_slices() else Precedence.ORDINARY)


def test_a_thread_that_somebody_made_real_time_is_left_so(monkeypatch):
    asked = []
    monkeypatch.setattr(realtime, "_set", asked.append)
    assert realtime._strongest(realtime._Attributes(2, 0, 50, 0, 0)) is Precedence.REAL_TIME
    assert asked == []


@pytest.mark.parametrize("refused", range(4))
def test_the_strongest_that_is_not_refused_is_taken(monkeypatch, refused):
    """Of three wishes the first ``refused`` are refused, as a container may refuse the call itself."""
    asked = []

    def set_(attributes):
        asked.append(attributes)
        if len(asked) <= refused:
            raise PermissionError(1, "no")

    monkeypatch.setattr(realtime, "_set", set_)
    monkeypatch.setattr(realtime, "_attributes", lambda: asked[-1])
    before = realtime._Attributes(0, 5, 0, 1_400_000, 0)
    assert realtime._strongest(before) is list(Precedence)[refused]
    assert len(asked) == min(refused + 1, 3)
    assert all(attributes.flags & realtime._RESET_ON_FORK for attributes in asked)


def test_a_kernel_that_ignores_the_slice_grants_nothing(monkeypatch):
    def set_(attributes):
        if attributes.priority or attributes.nice < 0:
            raise PermissionError(1, "no")

    before = realtime._Attributes(0, 0, 0, 0, 0)
    monkeypatch.setattr(realtime, "_set", set_)
    monkeypatch.setattr(realtime, "_attributes", lambda: before)
    assert realtime._strongest(before) is Precedence.ORDINARY


def test_elsewhere_nothing_is_asked_for(monkeypatch):
    monkeypatch.setattr(realtime.platform, "machine", lambda: "riscv64")
    monkeypatch.setattr(realtime, "_set", lambda attributes: pytest.fail("asked"))
    assert attainable() is Precedence.ORDINARY


def test_threads_bear_their_names():
    began, over = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: (began.set(), over.wait()), name="a-name-of-more-than-15-bytes")
    thread.start()
    try:
        began.wait()
        names = Path(f"/proc/self/task/{thread.native_id}/comm")
        main = Path(f"/proc/self/task/{threading.main_thread().native_id}/comm")
        before = main.read_text()
        show_names()
        assert names.read_text().strip() == "a-name-of-more-than-15-bytes"[:15]
        assert main.read_text() == before
        show_names(main="control")
        assert main.read_text().strip() == "control"
        show_names(main=before.strip())
    finally:
        over.set()
        thread.join()
