"""A command of the command line in a process of its own, on a pseudo-terminal that is its controlling terminal."""

import fcntl
import os
import select
import subprocess
import sys
import termios
import time
from contextlib import contextmanager

LIMIT_S = 60.0

_MAIN = """
import argparse, importlib, sys
parser = argparse.ArgumentParser()
command = importlib.import_module("mobile_vla.cli." + sys.argv[1])
command.add_to(parser.add_subparsers(required=True))
options = parser.parse_args(sys.argv[1:])
from mobile_vla.core import MobileVLAError
try:
    sys.exit(options.run(options))
except MobileVLAError as error:
    print(f"mobile-vla: {error}", file=sys.stderr)
    sys.exit(2)
"""


class Program:
    """Types keys, and waits for what is said; everything said so far is in ``said``."""

    def __init__(self, process, master):
        self.process, self.master, self.said = process, master, ""

    def type(self, keys):
        os.write(self.master, keys)

    def wait_for(self, *texts):
        """Until one of ``texts`` was said after what was waited for before; everything before it is dropped."""
        self.hold(b"", lambda: any(text in self.said for text in texts), texts)
        place, text = min((self.said.index(text), text) for text in texts if text in self.said)
        self.said = self.said[place + len(text) :]
        return text

    def hold(self, keys, until, what=""):
        """Type ``keys`` again and again, as a held key does, until ``until()``."""
        deadline = time.monotonic() + LIMIT_S
        while not until():
            assert time.monotonic() < deadline, f"{what} was not said: {self.said[-3000:]}"
            if keys:
                self.type(keys)
            self.listen(0.1)

    def listen(self, timeout_s):
        if select.select([self.master], [], [], timeout_s)[0]:
            try:
                self.said += os.read(self.master, 65536).decode(errors="replace")
            except OSError:  # nobody has the terminal any more
                time.sleep(timeout_s)

    def drive_for(self, seconds, keys=b"w"):
        end = time.monotonic() + seconds
        self.hold(keys, lambda: time.monotonic() > end)

    def hang_up(self):
        """Close the terminal."""
        os.close(self.master)
        self.master = None

    def end(self):
        """The exit code, when it ends by itself."""
        deadline = time.monotonic() + LIMIT_S
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.said[-3000:]
            self.listen(0.1)
        self.listen(0.0)
        return self.process.returncode


@contextmanager
def program(*arguments, term="dumb"):
    master, slave = os.openpty()

    def take_terminal():
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [sys.executable, "-c", _MAIN, *map(str, arguments)],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        preexec_fn=take_terminal,
        env={**os.environ, "TERM": term, "COLUMNS": "160"},
    )
    os.close(slave)
    here = Program(process, master)
    try:
        yield here
    finally:
        process.kill()
        process.wait(LIMIT_S)
        if here.master is not None:
            os.close(master)
