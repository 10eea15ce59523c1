import gc
import statistics
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.core import ConfigError
from mobile_vla.engine.bench import timing
from mobile_vla.engine.bench.timing import Latency, forget_peak_memory, interleave, latency, peak_memory, take

MIB = 2**20
TIMES = st.lists(st.integers(1, 10**9), min_size=1, max_size=300)


class Clock:
    """Nanoseconds that pass only where they are told to."""

    def __init__(self):
        self.now = 0

    def perf_counter_ns(self):
        return self.now

    def passing(self, ns):
        def call():
            self.now += ns

        return call


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    return clock


@given(TIMES)
def test_percentiles_are_in_order_and_among_the_samples(ns):
    taken = latency(ns)

    low, high = min(ns) * 1e-6, max(ns) * 1e-6
    order = [low, taken.p50_ms, taken.p90_ms, taken.p99_ms, taken.max_ms]
    assert order == pytest.approx(sorted(order))
    assert taken.max_ms == pytest.approx(high)
    assert taken.times == len(ns)
    assert taken.p50_ms == pytest.approx(statistics.median(ns) * 1e-6)
    assert taken.mean_ms == pytest.approx(statistics.fmean(ns) * 1e-6)
    assert taken.jitter_ms == pytest.approx(taken.p99_ms - taken.p50_ms, abs=1e-12)


@given(TIMES, st.integers(2, 9))
def test_calls_that_take_longer_are_longer_in_every_figure(ns, times):
    one, longer = latency(ns), latency([times * each for each in ns])

    assert [*longer.to_dict().values()][1:] == pytest.approx([times * each for each in [*one.to_dict().values()][1:]])


def test_one_in_a_hundred_shows_in_the_tail_alone():
    taken = latency([1_000_000] * 197 + [50_000_000] * 3)

    assert taken.p50_ms == taken.p90_ms == 1.0
    assert taken.p99_ms > 40.0
    assert taken.jitter_ms == pytest.approx(taken.p99_ms - 1.0)


def test_nothing_timed_is_refused_in_words():
    with pytest.raises(ConfigError, match="no call was timed"):
        latency([])


@pytest.mark.parametrize(("times", "warm_up"), [(0, 1), (1, 0), (-1, 5)])
def test_too_few_calls_are_refused_in_words(times, warm_up):
    with pytest.raises(ConfigError, match="choose at least 1 of each"):
        take(lambda: None, times, warm_up)


def test_the_warm_up_stands_apart(clock):
    spans = iter([9_000_000, 5_000_000, *[1_000_000] * 10])

    def call():
        clock.now += next(spans)

    taken = take(call, times=10, warm_up=2)

    assert taken.warm_up == Latency(2, 7.0, pytest.approx(8.6), pytest.approx(8.96), 9.0, 7.0, pytest.approx(1.96))
    assert taken.steady == Latency(10, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0)
    assert taken.samples_ms == (1.0,) * 10
    assert next(spans, None) is None  # called as often as said


def test_samples_stay_in_order(clock):
    spans = iter([1_000_000 * number for number in range(1, 8)])

    def call():
        clock.now += next(spans)

    assert take(call, times=6, warm_up=1).samples_ms == pytest.approx((2, 3, 4, 5, 6, 7))


def test_what_a_device_still_has_to_do_belongs_to_the_call(clock):
    waiting = []

    def call():
        waiting.append(3_000_000)

    def synchronise():
        clock.now += sum(waiting)
        waiting.clear()

    waiting.append(500_000_000)  # of somebody else, before
    taken = take(call, times=4, warm_up=1, synchronise=synchronise)

    assert taken.warm_up.max_ms == taken.steady.max_ms == 3.0


def test_candidates_take_turns_and_none_always_follows_the_same(clock):
    made = []
    spans = {"a": 1_000_000, "b": 2_000_000, "c": 3_000_000}

    def candidate(name):
        def call():
            made.append(name)
            clock.now += spans[name]

        return call

    taken = interleave({name: candidate(name) for name in spans}, times=5, warm_up=1)

    rounds = [made[turn : turn + 3] for turn in range(0, len(made), 3)]
    assert all(sorted(each) == ["a", "b", "c"] for each in rounds)
    assert {each[0] for each in rounds} == {"a", "b", "c"}
    assert {name: each.steady.p50_ms for name, each in taken.items()} == {"a": 1.0, "b": 2.0, "c": 3.0}
    assert all(each.steady.times == 5 for each in taken.values())


def test_a_real_wait_is_seen():
    taken = take(lambda: time.sleep(0.003), times=5, warm_up=1)

    assert min(taken.samples_ms) >= 3.0
    assert taken.steady.p50_ms <= taken.steady.max_ms


def test_garbage_is_kept_while_timing_and_the_setting_put_back():
    seen = []

    take(lambda: seen.append(gc.isenabled()), times=3, warm_up=1)
    assert seen == [False] * 4
    assert gc.isenabled()

    with pytest.raises(ZeroDivisionError):
        take(lambda: 1 / 0, times=1, warm_up=1)
    assert gc.isenabled()

    gc.disable()
    try:
        take(lambda: None, times=1, warm_up=1)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_the_peak_of_memory_outlives_what_was_held():
    began_anew = forget_peak_memory()
    before = peak_memory()
    held = np.ones(96 * MIB, dtype=np.uint8)
    del held
    after = peak_memory()

    assert after.process_bytes >= before.process_bytes
    if began_anew:
        assert after.process_bytes - before.process_bytes > 64 * MIB
        forget_peak_memory()
        assert peak_memory().process_bytes < after.process_bytes - 64 * MIB
    assert after.device_bytes is None
    assert after.to_dict() == {"process_bytes": after.process_bytes, "device_bytes": None}


def test_the_peak_where_linux_does_not_tell_it(monkeypatch, tmp_path):
    told = peak_memory().process_bytes
    monkeypatch.setattr(timing, "_STATUS", tmp_path / "not-there")
    monkeypatch.setattr(timing, "_FORGET", tmp_path / "neither" / "there")

    assert peak_memory().process_bytes >= told // 2
    assert forget_peak_memory() is False
