import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.core import NS_PER_S, ConfigError, ManualClock
from mobile_vla.teleop import NO_SHARES, Button, Keyboard
from mobile_vla.teleop.keyboard import BUTTONS, MOTIONS

MS = NS_PER_S // 1000
LIMIT_S = 60.0


@contextmanager
def terminal(**settings):
    """A keyboard on a pseudo-terminal; typing is writing to the master."""
    master, slave = pty.openpty()
    clock = ManualClock()
    keyboard = Keyboard(clock, Path(os.ttyname(slave)), **settings)
    try:
        keyboard.open()
        yield keyboard, clock, master, slave
    finally:
        keyboard.close()
        os.close(master)
        os.close(slave)


def typed(keyboard, master, keys):
    os.write(master, keys)
    deadline = time.monotonic() + LIMIT_S
    while not select.select([keyboard._fd], [], [], 0.01)[0]:
        assert time.monotonic() < deadline
    return keyboard.read()


@pytest.mark.parametrize(
    ("key", "share"),
    [
        (b"w", (0.5, 0, 0)),
        (b"S", (-0.5, 0, 0)),
        (b"a", (0, 0.5, 0)),
        (b"d", (0, -0.5, 0)),
        (b"q", (0, 0, 0.5)),
        (b"e", (0, 0, -0.5)),
        (b"\x1b[A", (0.5, 0, 0)),
        (b"\x1bOB", (-0.5, 0, 0)),
        (b"\x1b[D", (0, 0, 0.5)),
        (b"\x1b[C", (0, 0, -0.5)),
        (b"wa", (0.5, 0.5, 0)),
        (b"ws", (-0.5, 0, 0)),
        (b"9w", (0.9, 0, 0)),
        (b"0w", (1.0, 0, 0)),
    ],
)
def test_keys_drive(key, share):
    with terminal() as (keyboard, _, master, _):
        state = typed(keyboard, master, key)
        assert state.twist_share == share
        assert state.touched
        assert state.connected


def test_motion_lasts_for_a_moment_after_the_last_repeat():
    with terminal() as (keyboard, clock, master, _):
        typed(keyboard, master, b"w")
        clock.advance(200 * MS)
        typed(keyboard, master, b"w")
        clock.advance(299 * MS)
        assert keyboard.read().touched
        clock.advance(1 * MS)
        assert (keyboard.read().touched, keyboard.read().twist_share) == (False, NO_SHARES)


@pytest.mark.parametrize(("key", "button"), [pair for pair in BUTTONS.items() if pair[0] != b"\x1b"])
def test_keys_ask_once(key, button):
    with terminal() as (keyboard, _, master, _):
        assert typed(keyboard, master, key).pressed == {button}
        assert keyboard.read().pressed == frozenset()


def test_a_lone_escape_is_an_emergency_stop_and_a_split_arrow_is_not():
    with terminal() as (keyboard, clock, master, _):
        assert typed(keyboard, master, b"\x1b").pressed == frozenset()
        assert typed(keyboard, master, b"[A").twist_share == (0.5, 0, 0)
        assert typed(keyboard, master, b"\x1b").pressed == frozenset()
        clock.advance(60 * MS)
        assert keyboard.read().pressed == {Button.EMERGENCY_STOP}


def test_an_emergency_stop_ends_all_motion():
    with terminal() as (keyboard, _, master, _):
        state = typed(keyboard, master, b"w q ")
        assert (state.pressed, state.touched) == ({Button.EMERGENCY_STOP}, False)


KEYS = [*MOTIONS, *BUTTONS, b"1", b"0", b"\x1b[15~", b"\x1b[1;5A", b"\xe3\x85\x88"]


@given(st.lists(st.sampled_from(KEYS), max_size=12), st.binary(max_size=8))
def test_whatever_is_typed_the_shares_stay_within_the_speed_that_was_set(keys, noise):
    noise = bytes(
        byte for byte in noise if byte not in (0x03, 0x1A, 0x1C, 0x11, 0x13, 0x0F, 0x16)
    )  # the terminal's own
    with terminal() as (keyboard, clock, master, _):
        for key in (*keys, noise):
            if key:
                os.write(master, key)
        for _ in range(3):
            state = keyboard.read()
            assert all(share in (0.0, keyboard.share, -keyboard.share) for share in state.twist_share)
            assert state.touched == any(state.twist_share)
            clock.advance(400 * MS)
        assert not keyboard.read().touched


def test_the_terminal_is_raw_while_open_and_as_before_afterwards():
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    keyboard = Keyboard(ManualClock(), Path(os.ttyname(slave)))
    keyboard.open()
    keyboard.open()
    assert not termios.tcgetattr(slave)[3] & (termios.ICANON | termios.ECHO)
    assert termios.tcgetattr(slave)[3] & termios.ISIG
    keyboard.close()
    keyboard.close()
    assert termios.tcgetattr(slave) == before
    assert not keyboard.read().connected
    os.close(master)
    os.close(slave)


def test_signal_handlers_are_given_back():
    before = [signal.getsignal(number) for number in (signal.SIGTSTP, signal.SIGCONT)]
    with terminal():
        assert signal.getsignal(signal.SIGTSTP) != before[0]
    assert [signal.getsignal(number) for number in (signal.SIGTSTP, signal.SIGCONT)] == before


def test_a_terminal_that_is_closed_asks_to_quit():
    master, slave = pty.openpty()
    keyboard = Keyboard(ManualClock(), Path(os.ttyname(slave)))
    keyboard.open()
    os.close(slave)
    os.close(master)
    state = keyboard.read()
    assert (state.connected, state.touched, state.pressed) == (False, False, {Button.QUIT})
    keyboard.close()


def test_no_terminal_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no terminal to read keys from"):
        Keyboard(ManualClock(), tmp_path / "none").open()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is no terminal"):
        Keyboard(ManualClock(), tmp_path / "file").open()
    with pytest.raises(ConfigError, match="hold_s"):
        Keyboard(ManualClock(), hold_s=0)
    with pytest.raises(ConfigError, match="share"):
        Keyboard(ManualClock(), share=1.1)


PROGRAM = """
import sys, time
from pathlib import Path
from mobile_vla.core import MonotonicClock
from mobile_vla.teleop import Keyboard
keyboard = Keyboard(MonotonicClock(), Path(sys.argv[1]))
keyboard.open()
try:
    print("ready", flush=True)
    while True:
        state = keyboard.read()
        if state.pressed:
            print(*sorted(state.pressed), flush=True)
        if "quit" in state.pressed:
            break
        time.sleep(0.02)
finally:
    keyboard.close()
    print("closed", flush=True)
"""


def state_of(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def wait_until(holds):
    deadline = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def program():
    """The keyboard in a process of its own whose controlling terminal is the pseudo-terminal."""
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    # A shell in between, as on a real terminal: a process group without one (an orphan) cannot be suspended.
    parent = subprocess.Popen(
        [sys.executable, "-c", SHELL, sys.executable, PROGRAM, os.ttyname(slave)],
        stdin=slave,
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    try:
        pid = int(parent.stdout.readline())
        assert parent.stdout.readline() == "ready\n"
        yield parent, pid, master, slave, before
    finally:
        parent.kill()
        parent.wait(LIMIT_S)
        parent.stdout.close()
        os.close(master)
        os.close(slave)


SHELL = """
import fcntl, os, signal, subprocess, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
def child():
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # who started the tests may ignore it
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
job = subprocess.Popen([sys.argv[1], "-c", *sys.argv[2:]], preexec_fn=child)
os.tcsetpgrp(0, job.pid)
print(job.pid, flush=True)
sys.exit(job.wait())
"""


def test_ctrl_z_stops_the_robot_then_suspends_with_the_terminal_restored_and_comes_back():
    with program() as (parent, pid, master, slave, before):
        os.write(master, b"\x1a")
        assert parent.stdout.readline() == "emergency_stop\n"
        wait_until(lambda: state_of(pid) == "T")
        assert termios.tcgetattr(slave) == before
        os.kill(pid, signal.SIGCONT)
        wait_until(lambda: not termios.tcgetattr(slave)[3] & termios.ICANON)
        os.write(master, b"z")
        said = parent.stdout.read()
        assert said.endswith("quit\nclosed\n")
        assert set(said.split()) == {"emergency_stop", "quit", "closed"}
        assert parent.wait(LIMIT_S) == 0
        assert termios.tcgetattr(slave) == before


def test_ctrl_c_is_an_interrupt_and_the_terminal_is_restored():
    with program() as (parent, _, master, slave, before):
        os.write(master, b"\x03")
        assert parent.stdout.read() == "closed\n"
        parent.wait(LIMIT_S)
        assert termios.tcgetattr(slave) == before


def test_stopped_from_outside_it_takes_the_terminal_again_when_it_continues():
    with program() as (parent, pid, master, slave, before):
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: state_of(pid) == "T")
        termios.tcsetattr(slave, termios.TCSANOW, before)  # as a shell does
        os.kill(pid, signal.SIGCONT)
        wait_until(lambda: not termios.tcgetattr(slave)[3] & termios.ICANON)
        os.write(master, b"z")
        assert parent.stdout.read() == "quit\nclosed\n"
