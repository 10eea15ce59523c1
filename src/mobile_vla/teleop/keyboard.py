"""The keyboard of a terminal. A terminal tells of keys that go down and of their repeats, never of keys let go."""

import contextlib
import os
import select
import signal
import termios
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Any

from mobile_vla.core import NS_PER_S, Clock, ConfigError
from mobile_vla.teleop.stick import Button, StickState

TERMINAL = Path("/dev/tty")
"""The terminal that this process was started from, whatever stdin is."""

HOLD_S = 0.3
"""Motion lasts so long after the last repeat of a key; a held key repeats about 25 times a second."""

SUSPEND_AFTER_S = 1.0
"""From Ctrl-Z, which is an emergency stop first, to the suspension of the process: time for the robot to stand."""

_LONE_ESCAPE_NS = NS_PER_S // 20
"""An escape that nothing follows within this time is the key itself and not the beginning of an arrow key."""

_MOST_READS = 16
"""In one go, so that pasted text cannot hold up who drives."""

_X, _Y, _YAW = 0, 1, 2
MOTIONS = MappingProxyType(
    {
        b"w": (_X, 1.0),
        b"s": (_X, -1.0),
        b"a": (_Y, 1.0),
        b"d": (_Y, -1.0),
        b"q": (_YAW, 1.0),
        b"e": (_YAW, -1.0),
        b"\x1b[A": (_X, 1.0),
        b"\x1b[B": (_X, -1.0),
        b"\x1b[D": (_YAW, 1.0),
        b"\x1b[C": (_YAW, -1.0),
    }
)
"""Axis and sign of each key; the arrows drive and turn."""

BUTTONS = MappingProxyType(
    {
        b" ": Button.EMERGENCY_STOP,
        b"\x1b": Button.EMERGENCY_STOP,
        b"r": Button.REARM,
        b"c": Button.RESUME,
        b"g": Button.START,
        b"\r": Button.START,
        b"\n": Button.START,
        b"k": Button.STOP,
        b"x": Button.DISCARD,
        b"t": Button.REPEAT,
        b"p": Button.REPLAY,
        b"n": Button.NEXT,
        b"z": Button.QUIT,
        b"\x04": Button.QUIT,  # Ctrl-D
    }
)

HELP = (
    "w/s or up/down: forward, back   a/d: left, right   q/e or left/right: turn   1-9, 0: speed 10-90 %, 100 %\n"
    "space or Esc: EMERGENCY STOP   r: re-arm   c: resume   z: quit"
)
"""The keys that drive, for people."""


class Keyboard:
    """Reads ``device``, a terminal. Several axes at once: each key moves its own axis for ``hold_s``.

    ``share``: of the robot's limits, until the keys 1 to 9 and 0 set another. Ctrl-C stays SIGINT. Ctrl-Z is an
    emergency stop, and ``SUSPEND_AFTER_S`` later the process is suspended, with the terminal as it was found; brought
    back, it takes the terminal again. For this ``open`` sets handlers of SIGTSTP and SIGCONT when it is called in the
    main thread, and ``close`` gives the old ones back. A terminal that was closed is not connected and asks to quit.
    A killed process (SIGKILL) leaves the terminal silent; type ``reset`` there.
    """

    def __init__(self, clock: Clock, device: Path = TERMINAL, hold_s: float = HOLD_S, share: float = 0.5) -> None:
        if not 0 < hold_s < 10:
            raise ConfigError(f"hold_s is {hold_s}; it needs to be above 0 and below 10 s")
        if not 0 < share <= 1:
            raise ConfigError(f"the speed share is {share}; it needs to be above 0 and at most 1")
        self._clock, self._device = clock, device
        self._hold_ns = round(hold_s * NS_PER_S)
        self._share = share
        self._fd: int | None = None
        self._found: list[Any] | None = None
        self._handlers: dict[int, Any] = {}
        self._suspend_at_ns: int | None = None
        self._forget()

    @property
    def name(self) -> str:
        """Where it is."""
        return f"keyboard of {self._device}"

    @property
    def share(self) -> float:
        """The part of the robot's limits that a key asks for."""
        return self._share

    def open(self) -> None:
        """Take the terminal; ConfigError when there is none."""
        if self._fd is not None:
            return
        try:
            fd = os.open(self._device, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise ConfigError(
                f"there is no terminal to read keys from ({self._device}: {error.strerror}): "
                "start this in a terminal, or drive with a gamepad"
            ) from error
        try:
            self._found = termios.tcgetattr(fd)
            self._take(fd)
        except termios.error as error:
            os.close(fd)
            raise ConfigError(
                f"{self._device} is no terminal: start this in a terminal, or drive with a gamepad"
            ) from error
        self._fd = fd
        self._forget()
        if threading.current_thread() is threading.main_thread():
            self._handle(signal.SIGTSTP, self._on_suspend)
            self._handle(signal.SIGCONT, self._on_continue)

    def close(self) -> None:
        """Give the terminal back as it was found."""
        fd, self._fd = self._fd, None
        if fd is None:
            return
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()
        self._give_back(fd)
        os.close(fd)

    def read(self) -> StickState:
        """What the keys typed since the last read ask for, and what those before them still do."""
        now_ns = self._clock.now_ns()
        if self._fd is None:
            return StickState(stamp_ns=now_ns)
        if self._suspend_at_ns is not None:
            return self._suspending(now_ns)
        if not self._take_keys(now_ns):
            self._forget()
            return StickState(pressed=frozenset({Button.QUIT}), stamp_ns=now_ns)
        share, pressed = [0.0, 0.0, 0.0], frozenset(self._pressed)
        self._pressed.clear()
        for axis, (sign, until_ns) in self._moving.items():
            if now_ns < until_ns:
                share[axis] = sign * self._share
        x, y, yaw = share
        return StickState((x, y, yaw), any(share), pressed, now_ns, connected=True)

    def _forget(self) -> None:
        self._rest, self._rest_ns = b"", 0
        self._pressed: set[Button] = set()
        self._moving: dict[int, tuple[float, int]] = {}
        if self._fd is not None:
            with contextlib.suppress(termios.error):
                termios.tcflush(self._fd, termios.TCIFLUSH)

    def _take_keys(self, now_ns: int) -> bool:
        """Read and apply all that was typed; False when the terminal is gone."""
        assert self._fd is not None
        typed = b""
        try:
            for _ in range(_MOST_READS):
                if not select.select([self._fd], [], [], 0)[0]:
                    break
                payload = os.read(self._fd, 1024)
                if not payload:
                    return False
                typed += payload
        except BlockingIOError:
            pass
        except OSError:
            return False
        if typed:
            self._rest, self._rest_ns = self._rest + typed, now_ns
        while self._rest:
            key, rest = _first_key(self._rest)
            if key is None:
                if now_ns - self._rest_ns < _LONE_ESCAPE_NS:
                    break
                key, rest = self._rest[:1], self._rest[1:]
            self._rest = rest
            self._press(key, now_ns)
        return True

    def _press(self, key: bytes, now_ns: int) -> None:
        key = key.lower() if len(key) == 1 else key
        if key in MOTIONS:
            axis, sign = MOTIONS[key]
            self._moving[axis] = (sign, now_ns + self._hold_ns)
        elif key in BUTTONS:
            self._pressed.add(BUTTONS[key])
            if BUTTONS[key] is Button.EMERGENCY_STOP:
                self._moving.clear()
        elif len(key) == 1 and key.isdigit():
            self._share = int(key) / 10 or 1.0

    def _suspending(self, now_ns: int) -> StickState:
        assert self._suspend_at_ns is not None
        self._moving.clear()
        if now_ns >= self._suspend_at_ns:
            self._suspend_at_ns = None
            self._suspend()
            now_ns = self._clock.now_ns()
        return StickState(pressed=frozenset({Button.EMERGENCY_STOP}), stamp_ns=now_ns, connected=True)

    def _suspend(self) -> None:
        """Stop this process as Ctrl-Z does elsewhere; returns when it is continued."""
        assert self._fd is not None
        self._give_back(self._fd)
        ours = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, ours)
        self._on_continue(signal.SIGCONT, None)

    def _on_suspend(self, number: int, frame: FrameType | None) -> None:
        if self._suspend_at_ns is None:
            self._suspend_at_ns = self._clock.now_ns() + round(SUSPEND_AFTER_S * NS_PER_S)

    def _on_continue(self, number: int, frame: FrameType | None) -> None:
        if self._fd is not None:
            with contextlib.suppress(termios.error):
                self._take(self._fd)
            self._forget()

    def _handle(self, number: int, handler: Callable[[int, FrameType | None], None]) -> None:
        self._handlers[number] = signal.signal(number, handler)

    def _take(self, fd: int) -> None:
        """No echo, and each key at once; signals from keys and the processing of output stay."""
        settings = termios.tcgetattr(fd)
        settings[0] &= ~termios.IXON  # Ctrl-S would hold up what is said, and who says it
        settings[3] &= ~(termios.ICANON | termios.ECHO)
        settings[6] = list(settings[6])
        settings[6][termios.VMIN], settings[6][termios.VTIME] = 1, 0
        termios.tcsetattr(fd, termios.TCSANOW, settings)

    def _give_back(self, fd: int) -> None:
        if self._found is not None:
            with contextlib.suppress(termios.error):
                termios.tcflush(fd, termios.TCIFLUSH)  # keys meant for the robot are no commands for the shell
                termios.tcsetattr(fd, termios.TCSANOW, self._found)


def _first_key(typed: bytes) -> tuple[bytes | None, bytes]:
    """The first key and what follows it; None when an escape sequence is not complete yet (ECMA-48, section 5.4)."""
    if typed[:1] != b"\x1b":
        return typed[:1], typed[1:]
    if len(typed) == 1:
        return None, typed
    if typed[1:2] == b"O":  # arrows of a terminal in application mode: ESC O A
        return (b"\x1b[" + typed[2:3], typed[3:]) if len(typed) > 2 else (None, typed)
    if typed[1:2] != b"[":
        return typed[:1], typed[1:]
    for end in range(2, len(typed)):
        if 0x40 <= typed[end] <= 0x7E:
            return typed[: end + 1], typed[end + 1 :]
        if not 0x20 <= typed[end] <= 0x3F:
            return typed[:1], typed[1:]
    return None, typed
