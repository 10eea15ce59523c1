"""The clocks: is the time of day that of the network, and do both clocks run evenly."""

import ctypes
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from mobile_vla.doctor.check import Check, Problem, State, checked
from mobile_vla.doctor.purpose import Purpose

SECONDS, INTERVAL_S = 0.3, 0.01
BIGGEST_STEP_NS = 50_000_000
EARLIEST_YEAR = 2025
"""A board without a battery for its clock, as most Jetsons are, wakes up in its past."""
_STA_UNSYNC = 0x40  # linux/timex.h


@dataclass(frozen=True, slots=True)
class Clocks:
    """``synchronised`` None where the system does not tell; ``largest_error_s`` is the kernel's own estimate.

    ``samples``: (monotonic, time of day) in ns, some hundredths of a second apart.
    """

    synchronised: bool | None
    largest_error_s: float | None
    samples: Sequence[tuple[int, int]]


def look_at_clocks() -> Clocks:
    """Asks the kernel, and watches both clocks for a third of a second."""
    samples = []
    for _ in range(round(SECONDS / INTERVAL_S)):
        samples.append((time.monotonic_ns(), time.time_ns()))
        time.sleep(INTERVAL_S)
    synchronised, error_s = _kernel()
    return Clocks(synchronised, error_s, tuple(samples))


def judge_clocks(seen: Clocks, purpose: Purpose) -> Check:
    """Driving on one machine needs the monotonic clock alone; several machines have to agree on the time of day."""
    problems = []
    pairs = list(zip(seen.samples, seen.samples[1:], strict=False))
    if any(later[0] <= earlier[0] for earlier, later in pairs):
        sentence = "the monotonic clock stands still or goes back: what waits would wait for ever"
        line = "cat /sys/devices/system/clocksource/clocksource0/current_clocksource"
        problems.append(Problem(State.FAIL, sentence, (line,)))
    step_ns = max((abs((b[1] - a[1]) - (b[0] - a[0])) for a, b in pairs), default=0)
    if step_ns > BIGGEST_STEP_NS:
        sentence = f"the time of day is being set: it jumped by {step_ns / 1e9:.2f} s"
        problems.append(Problem(State.WARN, sentence, ("timedatectl timesync-status",)))
    year = time.gmtime(seen.samples[-1][1] / 1e9).tm_year
    if year < EARLIEST_YEAR:
        sentence = f"the year is {year} here: recordings get wrong names, and no server's certificate holds"
        problems.append(Problem(State.WARN, sentence, ("sudo timedatectl set-ntp true",)))
    elif seen.synchronised is False:
        others = not purpose.needs_policy
        sentence = "the time of day is not kept by the network"
        sentence += ", and the policy's machine compares its stamps with ours" if others else ""
        lines = ("sudo apt-get install -y systemd-timesyncd", "sudo timedatectl set-ntp true")
        problems.append(Problem(State.WARN if others else State.NOT_NEEDED, sentence, lines if others else ()))
    facts = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seen.samples[-1][1] / 1e9))
    if seen.synchronised and seen.largest_error_s is not None:
        facts += f", kept by the network to {seen.largest_error_s:.2f} s"
    return checked("clock", facts, problems)


class _Timex(ctypes.Structure):
    """struct timex of linux/timex.h on a system of 64 bits, as far as it is read; the rest is room."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


def _kernel() -> tuple[bool | None, float | None]:
    """Whether a program keeps the clock in time, and the largest error it can have; adjtimex(2), which reads alone."""
    if not sys.platform.startswith("linux") or sys.maxsize <= 2**32:
        return None, None
    values = _Timex()
    try:
        if ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(values)) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    except (OSError, AttributeError):
        return None, None
    return not values.status & _STA_UNSYNC, values.maxerror / 1e6
