"""A gamepad at ``/dev/input/js*``, by Linux's joystick interface: eight bytes an event, read with the standard library.

Source: https://docs.kernel.org/input/joydev/joystick-api.html and ``linux/joystick.h``; codes of axes and buttons from
``linux/input-event-codes.h``, used as https://docs.kernel.org/input/gamepad.html says that pads use them.
"""

import contextlib
import errno
import fcntl
import os
import struct
from array import array
from pathlib import Path
from types import MappingProxyType

from mobile_vla.core import NS_PER_S, Clock, ConfigError
from mobile_vla.teleop.joy import JoyStick
from mobile_vla.teleop.mapping import LINUX_PAD, PadMap
from mobile_vla.teleop.stick import Button, StickState

DEVICES = Path("/dev/input")
REOPEN_EVERY_NS = NS_PER_S
_EVENT = struct.Struct("IhBB")  # time in ms, value, type, number
_BUTTON, _AXIS, _INIT = 0x01, 0x02, 0x80
_FULL = 32767
_MOST = 64
"""Axes and buttons beyond this are left out; the interface allows 64 axes."""

_AXIS_CODES, _BUTTON_CODES, _NAME = 0x80406A32, 0x84006A34, 0x80806A13
_FIRST_BUTTON_CODE = 0x100
_ABS_X, _ABS_Y, _ABS_Z, _ABS_RX = 0x00, 0x01, 0x02, 0x03
_SOUTH, _EAST, _NORTH, _WEST, _LEFT_SHOULDER, _SELECT, _START, _MODE = (
    0x130,
    0x131,
    0x133,
    0x134,
    0x136,
    0x13A,
    0x13B,
    0x13C,
)
_UP, _DOWN, _RIGHT = 0x220, 0x221, 0x223
_MEANINGS = {
    _SOUTH: Button.START,
    _EAST: Button.EMERGENCY_STOP,
    _WEST: Button.STOP,
    _NORTH: Button.DISCARD,
    _SELECT: Button.REARM,
    _START: Button.RESUME,
    _MODE: Button.QUIT,
    _UP: Button.REPLAY,
    _DOWN: Button.REPEAT,
    _RIGHT: Button.NEXT,
}


def gamepads(folder: Path = DEVICES) -> list[Path]:
    """The joysticks that are plugged in, in order."""
    return sorted(folder.glob("js*"))


def map_of_codes(axis_codes: list[int], button_codes: list[int], dead_man: bool, dead_zone: float) -> PadMap | None:
    """The mapping for a pad that tells what its axes and buttons are; None when it lacks what a gamepad has."""
    turn = _ABS_RX if _ABS_RX in axis_codes else _ABS_Z
    if not {_ABS_X, _ABS_Y, turn} <= set(axis_codes) or (dead_man and _LEFT_SHOULDER not in button_codes):
        return None
    return PadMap(
        x=(axis_codes.index(_ABS_Y), -1.0),
        y=(axis_codes.index(_ABS_X), -1.0),
        yaw=(axis_codes.index(turn), -1.0),
        buttons=MappingProxyType({n: _MEANINGS[code] for n, code in enumerate(button_codes) if code in _MEANINGS}),
        dead_man=button_codes.index(_LEFT_SHOULDER) if dead_man else None,
        dead_zone=dead_zone,
    )


class Gamepad:
    """The pad at ``device``, by default the first there is. Left stick drives, right stick turns.

    ``dead_man``: it moves the robot only while the left shoulder button is held. The mapping follows from the codes
    that the kernel tells of the pad, or is ``LINUX_PAD`` for a pad that tells none; ``mapping`` sets another. A pad
    that is pulled out is let go and not connected; it is looked for once a second and can then be used again. What is
    held while it comes counts for nothing until it was let go.
    """

    def __init__(
        self,
        clock: Clock,
        device: Path | None = None,
        dead_man: bool = True,
        dead_zone: float = 0.12,
        mapping: PadMap | None = None,
    ) -> None:
        self._clock = clock
        self._wanted = device
        self._dead_man, self._dead_zone, self._given = dead_man, dead_zone, mapping
        self._fd: int | None = None
        self._device: Path | None = None
        self._tried_ns: int | None = None
        self._begin(LINUX_PAD)

    @property
    def name(self) -> str:
        """As the kernel calls the pad, and where it is."""
        return f"gamepad {self._title} at {self._device or self._wanted or DEVICES / 'js*'}".replace("  ", " ")

    def open(self) -> None:
        """ConfigError when no pad is there or it may not be read."""
        if self._fd is not None:
            return
        device = self._wanted or next(iter(gamepads()), None)
        if device is None:
            raise ConfigError(
                f"there is no gamepad at {DEVICES}/js*: plug one in (pair a wireless one and switch it on), "
                "load the kernel module joydev, or drive with the keyboard"
            )
        try:
            self._connect(device)
        except PermissionError as error:
            raise ConfigError(
                f"no right to read {device}: add yourself to its group (sudo usermod -aG input $USER) and log in again"
            ) from error
        except OSError as error:
            present = ", ".join(map(str, gamepads())) or "none"
            raise ConfigError(f"cannot open the gamepad {device}: {error.strerror}; present: {present}") from error

    def close(self) -> None:
        """Let the device go."""
        if self._fd is not None:
            with contextlib.suppress(OSError):
                os.close(self._fd)
        self._fd = None
        self._begin(LINUX_PAD)

    def read(self) -> StickState:
        """Sticks and buttons now; an unplugged pad is looked for again."""
        now_ns = self._clock.now_ns()
        if self._fd is None and (self._tried_ns is None or now_ns - self._tried_ns >= REOPEN_EVERY_NS):
            self._tried_ns = now_ns
            with contextlib.suppress(ConfigError):
                self.open()
        if self._fd is None:
            return StickState(stamp_ns=now_ns)
        if not self._take_events(now_ns):
            self.close()
            self._tried_ns = now_ns
            return StickState(stamp_ns=now_ns)
        self._stick.receive(self._axes, self._held, now_ns)
        return self._stick.read()

    def _begin(self, mapping: PadMap) -> None:
        self._title = ""
        self._axes, self._held = [0.0] * _MOST, [False] * _MOST
        self._rest = b""
        self._stick = JoyStick(mapping)

    def _connect(self, device: Path) -> None:
        fd = os.open(device, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._begin(self._given or _told_mapping(fd, self._dead_man, self._dead_zone))
        self._title = _told_name(fd)
        self._device, self._fd = device, fd

    def _take_events(self, now_ns: int) -> bool:
        """Apply all events that wait, each press on its own; False when the pad is gone."""
        assert self._fd is not None
        while True:
            try:
                payload = os.read(self._fd, 64 * _EVENT.size)
            except BlockingIOError:
                return True
            except OSError as error:
                if error.errno == errno.EINTR:
                    continue
                return False
            if not payload:
                return False
            self._rest += payload
            whole = len(self._rest) - len(self._rest) % _EVENT.size
            for _, value, kind, number in _EVENT.iter_unpack(self._rest[:whole]):
                self._apply(value, kind, number, now_ns)
            self._rest = self._rest[whole:]

    def _apply(self, value: int, kind: int, number: int, now_ns: int) -> None:
        if number >= _MOST:
            return
        if kind & ~_INIT == _AXIS:
            self._axes[number] = max(-1.0, value / _FULL)
        elif kind & ~_INIT == _BUTTON:
            self._held[number] = bool(value)
            if not kind & _INIT:
                self._stick.receive(self._axes, self._held, now_ns)  # so that a press between two reads is not lost


def _told_mapping(fd: int, dead_man: bool, dead_zone: float) -> PadMap:
    axis_codes, button_codes = array("B", bytes(64)), array("H", bytes(1024))
    try:
        fcntl.ioctl(fd, _AXIS_CODES, axis_codes)
        fcntl.ioctl(fd, _BUTTON_CODES, button_codes)
    except OSError:
        mapping = None
    else:
        mapping = map_of_codes(axis_codes.tolist(), button_codes.tolist(), dead_man, dead_zone)
    if mapping is not None:
        return mapping
    return PadMap(
        LINUX_PAD.x, LINUX_PAD.y, LINUX_PAD.yaw, LINUX_PAD.buttons, LINUX_PAD.dead_man if dead_man else None, dead_zone
    )


def _told_name(fd: int) -> str:
    title = bytearray(128)
    try:
        fcntl.ioctl(fd, _NAME, title)
    except OSError:
        return ""
    return bytes(title).split(b"\0", 1)[0].decode("utf-8", "replace")
