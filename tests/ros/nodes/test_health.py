import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobile_vla.core import NS_PER_S
from mobile_vla.ros import topics
from mobile_vla.ros.connect import connect
from mobile_vla.ros.messages import Level, diagnoses
from mobile_vla.ros.nodes.health import Diagnoser, Health, Pace
from mobile_vla.ros.transport import NodeConfig

from .world import Outside, wait_until

periods_ns = st.integers(1_000_000, 2 * NS_PER_S)


@settings(deadline=None)
@given(periods_ns, st.integers(2, 300), st.integers(0, 10**15))
def test_the_pace_of_even_events_is_their_rate(period_ns, count, began_ns):
    pace = Pace()
    for number in range(count):
        pace.add(began_ns + number * period_ns)
    last_ns = began_ns + (count - 1) * period_ns
    assert pace.rate_hz(last_ns) == pytest.approx(NS_PER_S / period_ns)
    assert pace.rate_hz(last_ns + period_ns) == pytest.approx(NS_PER_S / period_ns)


@settings(deadline=None)
@given(periods_ns, st.integers(2, 50), st.integers(3, 1000))
def test_silence_lowers_the_pace_and_more_silence_lowers_it_more(period_ns, count, silent_periods):
    pace = Pace()
    for number in range(count):
        pace.add(number * period_ns)
    last_ns = (count - 1) * period_ns
    rates = [pace.rate_hz(last_ns + silent * period_ns) for silent in (0, silent_periods, 2 * silent_periods)]
    assert rates == sorted(rates, reverse=True)
    assert len(set(rates)) == 3
    assert rates[1] == pytest.approx((count - 1) / (count - 1 + silent_periods) * NS_PER_S / period_ns)


def test_there_is_no_pace_before_the_second_event():
    pace = Pace()
    assert pace.rate_hz(5) == 0.0
    pace.add(5)
    assert pace.rate_hz(10) == 0.0
    pace.add(5)
    assert pace.rate_hz(5) == 0.0  # two at the same moment are no rate


def test_only_the_newest_events_count():
    pace = Pace(length=3)
    for stamp_ns in (0, 100 * NS_PER_S, 101 * NS_PER_S, 102 * NS_PER_S):
        pace.add(stamp_ns)
    assert pace.rate_hz(102 * NS_PER_S) == pytest.approx(1.0)


def test_a_node_says_once_a_second_how_it_does(namespace, domain):
    asked = []

    def ask():
        asked.append(time.monotonic_ns())
        return Health(Level.WARN, "it limps", {"legs": 3})

    with Outside(namespace, domain) as outside:
        outside.listen(topics.DIAGNOSTICS)
        transport = connect(NodeConfig("limping", namespace, domain=domain, localhost_only=True))
        try:
            diagnoser = Diagnoser(transport, ask)
            assert transport.wait_for_readers(topics.DIAGNOSTICS, 1, 60.0)
            before_ns = time.time_ns()

            def heard():
                diagnoser.turn()
                found = [one for each in outside.heard[topics.DIAGNOSTICS.name] for one in diagnoses(each)]
                return [one for one in found if one.name == f"{namespace}/limping"]

            wait_until(lambda: len(heard()) == 3, "three diagnoses")
        finally:
            transport.close()
    assert all(after - before >= NS_PER_S for before, after in pairwise(asked))
    newest = diagnoses(outside.newest(topics.DIAGNOSTICS))[0]
    assert (newest.level, newest.message) == (Level.WARN, "it limps")
    assert newest.values == {"legs": "3", "unreadable or failed messages": "0"}
    stamp = outside.newest(topics.DIAGNOSTICS).header.stamp
    assert before_ns <= stamp.sec * NS_PER_S + stamp.nanosec <= time.time_ns()
