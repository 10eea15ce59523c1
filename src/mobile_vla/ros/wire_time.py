"""Time on the wire. Inside a process stamps are monotonic; messages carry ROS system time, nanoseconds since 1970.

A stamp is converted where it enters or leaves the process, with the difference of the two clocks at that moment. The
age of a frame is therefore judged on a clock that nobody sets: when NTP steps the system clock, at most the messages
under way at that moment get a wrong age. Between machines the system clocks must agree (chrony); ``mobile-vla doctor``
looks at that, and a frame from the future stops the robot.
"""

import time


def to_wire(monotonic_ns: int) -> int:
    """System time of a stamp of ``MonotonicClock``."""
    return monotonic_ns + _offset_ns()


def from_wire(system_ns: int) -> int:
    """Stamp on ``MonotonicClock`` of a system time."""
    return system_ns - _offset_ns()


def _offset_ns() -> int:
    """System clock less monotonic clock; the reading of the system clock is put between two of the other."""
    before = time.monotonic_ns()
    system = time.time_ns()
    return system - (before + time.monotonic_ns()) // 2
