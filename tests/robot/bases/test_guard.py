import os
import select
import signal
import socket
import time

import pytest

from mobile_vla.robot.bases.guard import STOP_TIMES, Guard


@pytest.fixture
def line():
    """A device that takes messages: what is written at one end is read at the other."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        theirs.settimeout(10)
        yield ours, theirs


def silent(theirs, seconds):
    return not select.select([theirs], [], [], seconds)[0]


def read_stop(theirs):
    return [theirs.recv(100) for _ in range(2 * STOP_TIMES)]


STOP = [b"first", b"second"]


@pytest.fixture
def guard(line):
    guard = Guard(line[0].fileno(), STOP, 0.2)
    yield guard
    guard.close()


def test_it_waits_for_the_first_sign_of_life(guard, line):
    assert silent(line[1], 0.5)


def test_without_a_sign_of_life_it_writes_the_stop_and_then_is_quiet_until_the_next(guard, line):
    assert guard.alive()
    assert read_stop(line[1]) == STOP * STOP_TIMES
    assert silent(line[1], 0.4)
    assert guard.alive()
    assert read_stop(line[1]) == STOP * STOP_TIMES


def test_it_stops_when_the_driver_is_gone(guard, line):
    guard.alive()
    guard._process.stdin.close()
    assert read_stop(line[1]) == STOP * STOP_TIMES
    assert guard._process.wait(10) == 0


def test_after_goodbye_it_writes_nothing(guard, line):
    guard.alive()
    guard.close()
    guard.close()
    assert silent(line[1], 0.3)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_it_outlives_the_signals_that_end_its_driver(guard, line, name):
    guard.alive()
    assert read_stop(line[1])  # it runs
    os.kill(guard.pid, getattr(signal, name))
    time.sleep(0.1)
    assert guard.alive()
    assert read_stop(line[1]) == STOP * STOP_TIMES


def test_a_guard_that_was_killed_is_noticed(guard, until):
    os.kill(guard.pid, signal.SIGKILL)
    assert until(lambda: not guard.alive())


def test_a_device_that_is_gone_does_not_hold_it(guard, line):
    line[1].close()
    guard.alive()
    time.sleep(0.5)
    assert guard.alive()


def test_thousands_of_unread_signs_of_life_hold_nobody_up(guard):
    os.kill(guard.pid, signal.SIGSTOP)
    for _ in range(100_000):
        assert guard.alive()
    os.kill(guard.pid, signal.SIGCONT)
