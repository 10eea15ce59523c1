"""The control node's step in steady state, without a wire: what it publishes is thrown away."""

import gc
import sys
from collections import deque

from mobile_vla.core import NS_PER_S, ManualClock, MonotonicClock
from mobile_vla.robot.bases.ideal import Ideal
from mobile_vla.ros.messages import diagnoses
from mobile_vla.ros.nodes.control import ControlNode
from mobile_vla.ros.topics import DIAGNOSTICS
from mobile_vla.runtime.realtime import Precedence
from mobile_vla.safety import Supervisor

STEPS = 500
A_FEW = 30
"""Blocks that the interpreter's own caches and free lists may take or give back meanwhile."""


class Nowhere:
    """A transport without anybody at the other end; ``newest`` keeps the newest message of each topic, or nothing."""

    node = "/control"
    failures = 0

    def __init__(self, newest=None):
        self.newest = newest

    def publisher(self, topic):
        newest = self.newest

        class Publisher:
            readers = 0

            def publish(self, message):
                if newest is not None:
                    newest[topic.name] = message

        return Publisher()

    def subscribe(self, topic, callback, *, type_name=None):
        pass


def test_five_hundred_steps_leave_no_more_blocks_than_there_were():
    clock = ManualClock(now_ns=NS_PER_S)
    base = Ideal().build(clock)
    node = ControlNode(Nowhere(), base, Supervisor())
    node._clock = clock
    node._base.open()
    node._lateness_ms, node._period_errors_ms = deque(maxlen=50), deque(maxlen=50)  # full after the warm-up
    blocks = []
    next_ns = clock.now_ns()
    for step in range(6 * STEPS + 1):
        node._turn()
        next_ns = node._wait(next_ns)
        if step and step % STEPS == 0:
            gc.collect()
            blocks.append(sys.getallocatedblocks())
    node._base.close()
    _, _, warm, *later = blocks  # by then the interpreter's free lists are full, Python 3.10's too
    assert len(later) == 3
    assert max(later) - warm <= A_FEW


def test_the_error_of_a_period_is_told_from_lateness():
    """Each second step comes 3 ms late: every period is wrong by 3 ms, and half of the steps are late."""

    class Oversleeping(ManualClock):
        turns = 0

        def sleep_until(self, stamp_ns):
            self.turns += 1
            super().sleep_until(stamp_ns + (self.turns % 2) * 3_000_000)

    clock = Oversleeping(now_ns=NS_PER_S)
    node = ControlNode(Nowhere(), Ideal().build(clock), Supervisor())
    node._clock = clock
    next_ns = clock.now_ns()
    for _ in range(11):
        next_ns = node._wait(next_ns)
    assert list(node._period_errors_ms) == [3.0] * 10
    assert sorted(node._lateness_ms) == [0.0] * 5 + [3.0] * 6


def test_it_says_what_precedence_it_has_and_how_even_its_period_is():
    transport = Nowhere({})
    node = ControlNode(transport, Ideal().build(MonotonicClock()), Supervisor())

    class AfterAWhile:
        turns = 0

        def is_set(self):
            self.turns += 1
            return self.turns > 60  # a little more than a second: it speaks of itself twice

    node.run(AfterAWhile())
    values = diagnoses(transport.newest[DIAGNOSTICS.name])[0].values
    assert values["precedence"] in set(Precedence)
    assert float(values["period_error_p99_ms"]) >= 0.0
    assert gc.isenabled()
