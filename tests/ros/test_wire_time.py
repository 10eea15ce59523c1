import time

from mobile_vla.ros.wire_time import from_wire, to_wire

TOLERANCE_NS = 50_000_000
"""Between two readings another process may have had the processor."""


def test_now_is_now_on_both_clocks():
    assert abs(to_wire(time.monotonic_ns()) - time.time_ns()) < TOLERANCE_NS
    assert abs(from_wire(time.time_ns()) - time.monotonic_ns()) < TOLERANCE_NS


def test_stamps_keep_their_distances_to_the_nanosecond():
    """Where the clocks do not move against one another meanwhile, of which there are many in a hundred tries."""
    now = time.monotonic_ns()
    assert any(to_wire(now + 7) - to_wire(now) == 7 for _ in range(100))
    assert any(from_wire(to_wire(now)) == now for _ in range(100))


def test_there_and_back_is_the_same_stamp():
    for stamp in (0, 1, time.monotonic_ns()):
        assert abs(from_wire(to_wire(stamp)) - stamp) < TOLERANCE_NS
