"""What a control thread asks of the system, so that it runs when it is due beside programs that use all they get.

Linux alone; elsewhere nothing is asked for. Asked for is the strongest of three that the system grants, see
``Precedence``, and timers without the 50 us of slack that they have otherwise. Ask for the thread with the control
step, never for one that thinks or sees: a real-time thread runs before everything else for as long as it likes. A
control step is short. What bounds a broken one is the kernel, which keeps some 5 % of each core for ordinary threads
(``sched_rt_runtime_us``; from Linux 6.12 on the fair server), and the base's own timeout.

Sources: sched(7), sched_setattr(2), PR_SET_TIMERSLACK(2const); that the kernel heeds ``sched_runtime`` of an ordinary
thread as its slice: Documentation/scheduler/sched-eevdf.rst, since Linux 6.12.
"""

import contextlib
import ctypes
import os
import platform
import struct
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mobile_vla.core.backports import StrEnum

FIFO_PRIORITY = 10
"""Of 1 to 99: above every ordinary thread, below the kernel's own threads for interrupts (50)."""
NICE = -10
SLICE_NS = 100_000
"""The shortest that the kernel knows. A woken thread goes before a running one whose slice ends later than its own."""

_SYSCALLS = {"x86_64": (314, 315), "aarch64": (274, 275)}
"""Numbers of sched_setattr and sched_getattr; the C library has no functions for them before glibc 2.41."""
_ATTRIBUTES = struct.Struct("=IIQiIQQQII")  # struct sched_attr of linux/sched/types.h, 56 bytes
_SCHED_OTHER, _SCHED_FIFO = 0, 1
_REAL_TIME = (_SCHED_FIFO, 2, 6)  # SCHED_RR, SCHED_DEADLINE
_RESET_ON_FORK = 0x01
_PR_SET_TIMERSLACK, _PR_GET_TIMERSLACK = 29, 30
_LONGEST_NAME = 15  # bytes; TASK_COMM_LEN less the closing zero


class Precedence(StrEnum):
    """How a thread stands against others, the strongest first."""

    REAL_TIME = "real-time"  # SCHED_FIFO: at once, before every ordinary thread; needs RLIMIT_RTPRIO or CAP_SYS_NICE
    RAISED = "raised"  # nice -10 and the shortest slice; needs RLIMIT_NICE or CAP_SYS_NICE
    SHORT_SLICE = "short slice"  # the shortest slice, to which everybody has the right, from Linux 6.12 on
    ORDINARY = "ordinary"  # as every other thread


@dataclass(frozen=True, slots=True)
class _Attributes:
    """As in sched_setattr(2). ``slice_ns`` 0: the kernel's own."""

    policy: int
    nice: int
    priority: int
    slice_ns: int
    flags: int


@contextlib.contextmanager
def urgent() -> Iterator[Precedence]:
    """The calling thread takes precedence while the ``with`` block lasts; gives what was granted, never fails.

    Threads and processes that it starts meanwhile are ordinary ones. Afterwards the thread is what it was, but that
    what it starts stays ordinary where it has not the right to take that back.
    """
    if not _is_known_linux():
        yield Precedence.ORDINARY
        return
    before, slack_ns = _attributes(), _prctl(_PR_GET_TIMERSLACK, 0)
    try:
        _prctl(_PR_SET_TIMERSLACK, 1)
        yield _strongest(before)
    finally:
        _restore(before)
        _prctl(_PR_SET_TIMERSLACK, slack_ns)


def attainable() -> Precedence:
    """What ``urgent`` would be granted here; tried in a thread of its own, of which nothing is left."""
    granted = [Precedence.ORDINARY]

    def ask() -> None:
        with urgent() as precedence:
            granted[0] = precedence

    thread = threading.Thread(target=ask, name="precedence")
    thread.start()
    thread.join()
    return granted[0]


def show_names(main: str | None = None) -> None:
    """Give every thread of this process its Python name in the system's eyes (top -H, perf, gdb), cut to 15 bytes.

    ``main``: the name of the main thread, which is the process's in ps; None leaves it as it is. Linux alone; Python
    does so by itself from 3.14 on, but for the main thread.
    """
    for thread in threading.enumerate():
        name = main if thread is threading.main_thread() else thread.name
        if name is None or not sys.platform.startswith("linux"):
            continue
        with contextlib.suppress(OSError):  # it has ended
            Path(f"/proc/self/task/{thread.native_id}/comm").write_bytes(name.encode()[:_LONGEST_NAME])


def _strongest(before: _Attributes) -> Precedence:
    """Ask for one after the other, until the system grants one. Whom somebody made real-time keeps what he has."""
    if before.policy in _REAL_TIME:
        return Precedence.REAL_TIME
    asked = (
        (Precedence.REAL_TIME, _Attributes(_SCHED_FIFO, 0, FIFO_PRIORITY, 0, _RESET_ON_FORK)),
        (Precedence.RAISED, _Attributes(_SCHED_OTHER, min(NICE, before.nice), 0, SLICE_NS, _RESET_ON_FORK)),
        (Precedence.SHORT_SLICE, _Attributes(_SCHED_OTHER, before.nice, 0, SLICE_NS, _RESET_ON_FORK)),
    )
    for precedence, attributes in asked:
        try:
            _set(attributes)
        except OSError:  # no right to it, or the container forbids the call
            continue
        if precedence is Precedence.SHORT_SLICE and _attributes().slice_ns != SLICE_NS:
            return Precedence.ORDINARY  # a kernel before 6.12 takes the slice and ignores it
        return precedence
    return Precedence.ORDINARY


def _restore(before: _Attributes) -> None:
    try:
        _set(before)
    except OSError:  # who has no right to it cannot take _RESET_ON_FORK back
        with contextlib.suppress(OSError):
            _set(_Attributes(before.policy, before.nice, before.priority, before.slice_ns, _RESET_ON_FORK))


def _is_known_linux() -> bool:
    return sys.platform.startswith("linux") and platform.machine() in _SYSCALLS and sys.maxsize > 2**32


def _attributes() -> _Attributes:
    """Of the calling thread; ordinary ones where the system does not tell."""
    raw = ctypes.create_string_buffer(_ATTRIBUTES.size)
    try:
        _syscall(_SYSCALLS[platform.machine()][1], raw, ctypes.c_uint(_ATTRIBUTES.size), ctypes.c_uint(0))
    except OSError:
        return _Attributes(_SCHED_OTHER, 0, 0, 0, 0)
    _, policy, flags, nice, priority, runtime_ns, *_ = _ATTRIBUTES.unpack(raw.raw)
    return _Attributes(policy, nice, priority, runtime_ns, flags)


def _set(wanted: _Attributes) -> None:
    """For the calling thread. OSError when the system refuses."""
    raw = _ATTRIBUTES.pack(
        _ATTRIBUTES.size, wanted.policy, wanted.flags, wanted.nice, wanted.priority, wanted.slice_ns, 0, 0, 0, 0
    )
    _syscall(_SYSCALLS[platform.machine()][0], raw, ctypes.c_uint(0))


def _syscall(number: int, data: object, *more: ctypes.c_uint) -> None:
    """One that speaks of the calling thread, 0."""
    if ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), ctypes.c_int(0), data, *more) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _prctl(option: int, value: int) -> int:
    result: int = ctypes.CDLL(None, use_errno=True).prctl(
        ctypes.c_int(option), *(map(ctypes.c_ulong, (value, 0, 0, 0)))
    )
    return result
