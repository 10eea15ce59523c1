"""A serial port that says clearly why it cannot be opened, and never waits without a limit."""

import contextlib
import errno
import os
import select
import time
from pathlib import Path

import serial
from serial.tools import list_ports

from mobile_vla.core import BaseError

WRITE_LIMIT_S = 0.2
BUSY_LIMIT_S = 1.0
_BUSY_PAUSE_S = 0.05
_BUSY = (errno.EBUSY, errno.EAGAIN, errno.EWOULDBLOCK)


class SerialPort:
    """An open port, 8N1, locked against other programs that ask. BaseError when it cannot be opened, or is gone.

    A lock is waited for, 1 s at most: the guard of a driver that was killed lets the port go a moment later.
    """

    def __init__(self, path: str, baud: int) -> None:
        self.path = path
        self._serial = _opened(path, baud)

    @property
    def fd(self) -> int:
        """The open file, for ``Guard``."""
        return int(self._serial.fileno())

    def write(self, data: bytes) -> None:
        """All of ``data``, within 0.2 s.

        Not by pyserial, which also gives up when the bytes were taken and only this process was not run for so long.
        """
        end_s = time.monotonic() + WRITE_LIMIT_S
        try:
            while data:
                with contextlib.suppress(BlockingIOError):
                    data = data[os.write(self._serial.fileno(), data) :]
                left_s = max(0.0, end_s - time.monotonic())
                if data and not select.select([], [self._serial.fileno()], [], left_s)[1]:
                    raise BaseError(
                        f"{self.path} took no bytes for {WRITE_LIMIT_S} s: check cable and power of the base"
                    )
        except (OSError, TypeError, serial.SerialException) as error:  # TypeError: closed meanwhile
            raise self._gone(error) from error

    def read(self, timeout_s: float) -> bytes:
        """What has come, at least a byte when one comes within ``timeout_s``; else nothing."""
        try:
            self._serial.timeout = timeout_s
            first: bytes = self._serial.read(1)
            return first + bytes(self._serial.read(self._serial.in_waiting)) if first else b""
        except (OSError, TypeError, serial.SerialException) as error:
            raise self._gone(error) from error

    def forget_input(self) -> None:
        """Drop what has come and was not read."""
        try:
            self._serial.reset_input_buffer()
        except (OSError, TypeError, serial.SerialException, *_TERMIOS_ERRORS) as error:
            raise self._gone(error) from error

    def close(self) -> None:
        """Let the port go; never raises."""
        with contextlib.suppress(OSError, serial.SerialException):  # a device that is gone cannot be put in order
            self._serial.close()

    def _gone(self, error: Exception) -> BaseError:
        return BaseError(f"{self.path} is gone ({error}): plug the base in again and open it again")


def _opened(path: str, baud: int) -> serial.Serial:
    began_s = time.monotonic()
    while True:
        try:
            return serial.Serial(path, baud, timeout=0, exclusive=True)
        except (OSError, ValueError, serial.SerialException) as error:
            number = getattr(error, "errno", None)
            if number not in _BUSY or time.monotonic() - began_s > BUSY_LIMIT_S:
                raise BaseError(_why(path, baud, number, error)) from error
        time.sleep(_BUSY_PAUSE_S)


def _why(path: str, baud: int, number: int | None, error: Exception) -> str:
    if number == errno.ENOENT:
        present = sorted(port.device for port in list_ports.comports()) + _stable_names()
        there = f"the ports here are {', '.join(present)}" if present else "no serial port is plugged in"
        return f"there is no port {path}: {there}"
    if number in (errno.EACCES, errno.EPERM):
        return (
            f"no right to open {path}: add yourself to its group with `sudo usermod -aG dialout $USER` and log in again"
        )
    if number in _BUSY:
        return (
            f"{path} is in use by another program: end it (`fuser {path}` names it; "
            "often ModemManager, brltty or a second driver)"
        )
    if isinstance(error, ValueError):
        return f"{path} cannot be set to {baud} baud: choose the rate that the base's firmware uses"
    return f"{path} cannot be opened as a serial port ({error})"


def _stable_names() -> list[str]:
    """Names that keep pointing to the same adapter when others are plugged in."""
    return sorted(map(str, Path("/dev/serial/by-id").glob("*")))


def _termios_errors() -> tuple[type[Exception], ...]:
    try:
        import termios
    except ImportError:  # Windows
        return ()
    return (termios.error,)


_TERMIOS_ERRORS = _termios_errors()
