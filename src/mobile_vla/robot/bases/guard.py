"""A process that stops the motors when the process that drives hangs, is stopped or is killed.

Some devices keep their last velocity for ever: Feetech servos in wheel mode do, and of Serbot's motor board nothing is
published. The driver therefore hands its open file (serial port, CAN socket) to this process, together with the bytes
that mean stop, and gives a sign of life with every command. When none comes for the time limit, or when the driver
is gone, the guard writes the stop three times.

It guards against a hung or dead program. It does not guard against a machine that loses power or freezes, a container
whose processes are all killed at once, or a cable that comes off: only the device itself could.

The file runs as a script too, and then needs nothing but the standard library.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time

ALIVE, GOODBYE = b"a", b"q"
STOP_TIMES, STOP_PAUSE_S = 3, 0.02
_END_LIMIT_S = 2.0


class Guard:
    """The driver's end. ``fd``: the device's open file; ``stop``: what is written to it, one write a message.

    ``timeout_s`` runs from the first sign of life.
    """

    def __init__(self, fd: int, stop: list[bytes], timeout_s: float) -> None:
        words = [str(fd), str(timeout_s), *(message.hex() for message in stop)]
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(fd,),
            start_new_session=True,  # Ctrl-C in the terminal is for the driver, not for its guard
        )
        assert self._process.stdin is not None
        self._pipe = self._process.stdin.fileno()
        os.set_blocking(self._pipe, False)

    @property
    def pid(self) -> int:
        """Of the guarding process."""
        return self._process.pid

    def alive(self) -> bool:
        """Give a sign of life; False when the guard itself is gone, so that nobody guards."""
        try:
            os.write(self._pipe, ALIVE)
        except BlockingIOError:  # unread signs of life are enough of them
            return self._process.poll() is None
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Send the guard home without a stop; the driver has stopped the motors itself. Closed twice is closed."""
        assert self._process.stdin is not None
        if self._process.stdin.closed:
            return
        with contextlib.suppress(OSError):  # gone, or its pipe is full of signs of life: then it stops once more
            os.write(self._pipe, GOODBYE)
        self._process.stdin.close()
        try:
            self._process.wait(_END_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_END_LIMIT_S)


def guard(fd: int, timeout_s: float, stop: list[bytes], pipe: int) -> None:
    """The guard's end: read signs of life from ``pipe`` until it closes or says goodbye."""
    armed = False
    while True:
        readable, _, _ = select.select([pipe], [], [], timeout_s if armed else None)
        if not readable:
            _write(fd, stop)
            armed = False
            continue
        signs = os.read(pipe, 65536)
        if GOODBYE in signs:
            return
        if not signs:
            _write(fd, stop)
            return
        armed = True


def _write(fd: int, stop: list[bytes]) -> None:
    for _ in range(STOP_TIMES):
        for message in stop:
            with contextlib.suppress(OSError):  # gone or full; what can be done is to try again
                if select.select([], [fd], [], STOP_PAUSE_S)[1]:
                    os.write(fd, message)
        time.sleep(STOP_PAUSE_S)


if __name__ == "__main__":
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)  # the driver ends, then the guard
    guard(int(sys.argv[1]), float(sys.argv[2]), [bytes.fromhex(word) for word in sys.argv[3:]], 0)
