import errno
import os
import time
import tty

import pytest

from mobile_vla.core import BaseError
from mobile_vla.robot.bases.serial_port import SerialPort, _why


@pytest.fixture
def pair():
    master, slave = os.openpty()
    tty.setraw(slave)
    port = SerialPort(os.ttyname(slave), 115_200)
    yield master, port
    port.close()
    os.close(slave)
    os.close(master)


def test_it_reads_what_came_and_waits_no_longer_than_told(pair):
    master, port = pair
    assert port.read(0.0) == b""
    os.write(master, b"hello")
    assert port.read(5.0)[:1] == b"h"
    port.write(b"answer")
    assert os.read(master, 100) == b"answer"


def test_input_that_is_forgotten_is_not_read(pair):
    master, port = pair
    os.write(master, b"old")
    time.sleep(0.05)
    port.forget_input()
    assert port.read(0.05) == b""


def test_a_device_that_takes_nothing_is_not_waited_for_without_end(pair):
    _, port = pair

    def fill():
        for _ in range(1000):
            port.write(bytes(4096))

    with pytest.raises(BaseError, match="took no bytes"):
        fill()


def test_a_port_that_is_closed_says_so_and_closes_twice(pair):
    _, port = pair
    port.close()
    port.close()
    for use in (lambda: port.write(b"x"), lambda: port.read(0.01), port.forget_input):
        with pytest.raises(BaseError, match="is gone"):
            use()


def test_a_port_whose_device_went_says_so():
    master, slave = os.openpty()
    port = SerialPort(os.ttyname(slave), 115_200)
    os.close(master)
    os.close(slave)

    def use():
        for _ in range(100):
            port.write(b"x")
            port.read(0.01)

    with pytest.raises(BaseError, match="plug the base in again"):
        use()
    port.close()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOENT, "there is no port /dev/x: "),
        (errno.EACCES, "usermod -aG dialout"),
        (errno.EBUSY, "in use by another program"),
        (errno.EIO, "cannot be opened as a serial port"),
    ],
)
def test_why_a_port_cannot_be_opened_is_said(number, words):
    assert words in _why("/dev/x", 9600, number, OSError(number, "no"))


def test_a_rate_that_cannot_be_set_is_named():
    assert "cannot be set to 7 baud" in _why("/dev/x", 7, None, ValueError())
