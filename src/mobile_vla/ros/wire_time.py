"""Time on the wire. Inside a process stamps are monotonic; messages carry ROS system time, nanoseconds since 1970.

A stamp is converted where it enters or leaves the process, with the difference of the two clocks at that moment. The
age of a frame is therefore judged on a clock that nobody sets: when NTP steps the system clock, at most the messages
under way at that moment get a wrong age. Between machines the system clocks must agree (chrony); ``mobile-vla doctor``
looks at that, and a frame from the future stops the robot.
"""

import time

_FOLLOW_NS = 100_000
"""By so much may the difference of the clocks move before a conversion follows it.

Until then it is kept as it is, so that stamps keep their distances to the nanosecond."""

_kept_offset_ns: list[int] = []


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
    after = time.monotonic_ns()
    offset = system - (before + after) // 2
    if after - before < _FOLLOW_NS and (not _kept_offset_ns or abs(offset - _kept_offset_ns[0]) > _FOLLOW_NS):
        _kept_offset_ns[:] = [offset]
    return _kept_offset_ns[0] if _kept_offset_ns else offset
