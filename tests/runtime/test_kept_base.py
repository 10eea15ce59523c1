import logging
import math
import threading
import time

import pytest

from mobile_vla.core import NS_PER_S, ZERO_TWIST, BaseError, ManualClock, Twist
from mobile_vla.robot.bases.ideal import Ideal
from mobile_vla.runtime.kept_base import KeptBase

GO = Twist(0.2, 0.0, 0.0)


class Wobbly:
    """An ideal base that fails when told to. ``slow``: opening it waits until the event is set."""

    def __init__(self, clock):
        self._base = Ideal(lag_s=0.01).build(clock)
        self.error = None
        self.slow = None
        self.calls = []
        self.sent = []

    command_timeout_s = 0.25
    has_feedback = True

    @property
    def feedback_ns(self):
        return self._base.feedback_ns

    @property
    def odometry(self):
        return self._base.odometry

    def _call(self, name):
        self.calls.append((name, threading.current_thread()))
        if self.error is not None and name in ("open", "send", "velocity"):
            raise self.error

    def open(self):
        if self.slow is not None:
            assert self.slow.wait(60.0)
        self._call("open")
        self._base.open()

    def close(self):
        self._call("close")
        self._base.close()

    def stop(self):
        self._call("stop")
        self._base.stop()

    def send(self, twist):
        self._call("send")
        self.sent.append(twist)
        return self._base.send(twist)

    def velocity(self):
        self._call("velocity")
        return self._base.velocity()


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def base(clock):
    return Wobbly(clock)


@pytest.fixture
def told():
    return []


@pytest.fixture
def kept(base, clock, told, caplog):
    caplog.set_level(logging.CRITICAL)
    kept = KeptBase(base, clock, told.append, retry_s=1.0)
    kept.open()
    yield kept
    kept.close()


def until(holds):
    end = time.monotonic() + 60.0
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def again(kept, clock):
    """One try to open it, from beginning to end."""
    clock.advance(NS_PER_S)
    kept.send(GO)
    until(lambda: not any(thread.name == "base-again" for thread in threading.enumerate()))
    kept.send(GO)


def test_while_all_is_well_everything_passes_through(kept, base, clock, told):
    assert kept.command_timeout_s == 0.25
    assert kept.send(GO) == GO
    clock.advance(NS_PER_S // 10)
    assert kept.velocity().vx == pytest.approx(0.2, rel=1e-3)
    assert kept.feedback_ns == clock.now_ns()
    assert kept.odometry.x == pytest.approx(0.018, rel=0.1)
    assert not kept.is_away
    kept.stop()
    assert base.calls[-1][0] == "stop"
    assert told == []


def test_what_a_base_does_not_have_is_not_there(clock, told):
    class Bare:
        command_timeout_s = 0.5

    kept = KeptBase(Bare(), clock, told.append)
    assert kept.feedback_ns is None
    assert kept.odometry is None


@pytest.mark.parametrize("call", ["send", "velocity"])
@pytest.mark.parametrize("error", [BaseError("the bus is gone"), OSError("unplugged")])
def test_a_failure_is_told_once_and_the_base_is_stopped(kept, base, told, call, error):
    base.error = error
    for _ in range(5):
        if call == "velocity":
            assert math.isnan(kept.velocity().vx)
        else:
            assert kept.send(GO) == ZERO_TWIST
    assert len(told) == 1
    assert str(error) in told[0]
    assert type(error).__name__ in told[0]
    assert kept.is_away
    assert [name for name, _ in base.calls].count("stop") == 1


def test_while_it_is_away_nothing_is_sent_and_nobody_takes_it_for_standing(kept, base):
    base.error = BaseError("gone")
    kept.send(GO)
    base.error = None
    sent = len(base.sent)
    for _ in range(5):
        assert kept.send(GO) == ZERO_TWIST
        assert not kept.velocity().is_finite
    assert len(base.sent) == sent


def test_it_is_opened_again_after_a_while_and_starts_nothing(kept, base, clock, told):
    base.error = BaseError("gone")
    kept.send(GO)
    clock.advance(NS_PER_S - 1)
    kept.send(GO)
    assert [name for name, _ in base.calls].count("open") == 1
    clock.advance(1)
    base.error = None
    sent = len(base.sent)
    again(kept, clock)
    assert not kept.is_away
    assert len(base.sent) == sent  # the step in which it is found to be back sends nothing
    assert kept.velocity() == ZERO_TWIST
    assert kept.send(GO) == GO
    assert len(told) == 1


def test_it_is_tried_again_and_again_and_told_once_each_time_it_fails(kept, base, clock, told):
    base.error = BaseError("gone")
    kept.send(GO)
    for _ in range(3):
        again(kept, clock)
        assert kept.is_away
    assert [name for name, _ in base.calls].count("open") == 4
    base.error = None
    again(kept, clock)
    assert not kept.is_away
    base.error = BaseError("gone again")
    kept.send(GO)
    assert len(told) == 2


def test_a_base_that_takes_long_to_open_holds_up_nobody(kept, base, clock):
    base.error = BaseError("gone")
    kept.send(GO)
    base.error, base.slow = None, threading.Event()
    clock.advance(NS_PER_S)
    for _ in range(50):
        assert kept.send(GO) == ZERO_TWIST  # would never return, were it opened here
        assert kept.is_away
        clock.advance(NS_PER_S)
    base.slow.set()
    until(lambda: kept.send(GO) == GO)
    opened = [thread for name, thread in base.calls if name == "open"]
    assert len(opened) == 2
    assert opened[1] is not threading.current_thread()


def test_closing_waits_for_one_that_is_being_opened_and_not_for_ever(kept, base, clock, monkeypatch):
    monkeypatch.setattr("mobile_vla.runtime.kept_base.CLOSE_LIMIT_S", 0.1)
    base.error = BaseError("gone")
    kept.send(GO)
    base.error, base.slow = None, threading.Event()
    again_at = len(base.calls)
    clock.advance(NS_PER_S)
    kept.send(GO)
    kept.stop()
    kept.close()
    assert [name for name, _ in base.calls[again_at:]] == ["close"]  # the one before opening again
    base.slow.set()
    until(lambda: base.calls[-1][0] == "open")
    monkeypatch.undo()
    kept.close()
    assert base.calls[-1][0] == "close"


def test_that_a_base_was_never_there_is_an_error_of_the_set_up(base, clock, told):
    base.error = BaseError("there is no /dev/ttyUSB7")
    with pytest.raises(BaseError, match="ttyUSB7"):
        KeptBase(base, clock, told.append).open()
    assert told == []
