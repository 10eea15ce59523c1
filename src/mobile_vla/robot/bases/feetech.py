"""The serial bus of Feetech STS servos: packets, and a bus that asks, waits within limits and asks again.

Why our own: ``feetech-servo-sdk`` 1.0.0 (PyPI, November 2022, the last) spins on a port with timeout 0 while it waits,
times this with the settable clock, and writes and drains without any time limit.

Facts. Packets are ``FF FF id length instruction parameters checksum``; length counts what follows it; the checksum is
the inverted low byte of the sum from id on; the status that a servo answers has its error bits in the place of the
instruction (Feetech, "SMS/STS communication protocol"). Addresses, and that velocities bear their sign in bit 15:
LeRobot, ``lerobot/motors/feetech/tables.py``, after Feetech's memory table. Numbers are little-endian.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mobile_vla.core import BaseError
from mobile_vla.core.backports import StrEnum
from mobile_vla.robot.bases.serial_port import SerialPort

STEPS_PER_TURN = 4096
SIGN_BIT = 15
BROADCAST = 0xFE

PING, READ, WRITE, SYNC_READ, SYNC_WRITE = 0x01, 0x02, 0x03, 0x82, 0x83

OPERATING_MODE, TORQUE_ENABLE, ACCELERATION, GOAL_VELOCITY, LOCK, PRESENT_POSITION = 33, 40, 41, 46, 55, 56
VELOCITY_MODE = 1
PRESENT_BYTES = 4
"""Present position and present velocity stand beside each other."""

_HEADER = b"\xff\xff"
_MAX_LENGTH = 250


class Fault(StrEnum):
    """The error bits of a status, from bit 0 on."""

    VOLTAGE = "voltage"
    SENSOR = "sensor"
    TEMPERATURE = "temperature"
    CURRENT = "current"
    ANGLE = "angle"
    OVERLOAD = "overload"


@dataclass(frozen=True, slots=True)
class Status:
    """What a servo answered."""

    servo: int
    error: int
    data: bytes

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What the servo complains of."""
        return tuple(fault for bit, fault in enumerate(Fault) if self.error >> bit & 1)


def packet(servo: int, instruction: int, parameters: bytes = b"") -> bytes:
    """A packet to a servo, or to all with ``BROADCAST``; ValueError for more than 248 parameters."""
    if len(parameters) + 2 > _MAX_LENGTH:
        raise ValueError(f"{len(parameters)} parameters do not fit in a packet; 248 do")
    body = bytes((servo, len(parameters) + 2, instruction)) + parameters
    return _HEADER + body + bytes((checksum(body),))


def checksum(body: bytes) -> int:
    """Of all between header and checksum."""
    return ~sum(body) & 0xFF


def sync_write(address: int, values: Mapping[int, bytes]) -> bytes:
    """One packet that writes the same address of several servos; they do not answer it."""
    (size,) = {len(value) for value in values.values()}
    each = b"".join(bytes((servo,)) + value for servo, value in values.items())
    return packet(BROADCAST, SYNC_WRITE, bytes((address, size)) + each)


def signed_bytes(value: int) -> bytes:
    """Sign and magnitude in two bytes, the sign in bit 15. ValueError beyond +-32767."""
    if abs(value) >= 1 << SIGN_BIT:
        raise ValueError(f"{value} does not fit in {SIGN_BIT} bits and a sign")
    return ((1 << SIGN_BIT if value < 0 else 0) | abs(value)).to_bytes(2, "little")


def signed_value(data: bytes) -> int:
    """What ``signed_bytes`` wrote."""
    raw = int.from_bytes(data, "little")
    magnitude = raw & ~(1 << SIGN_BIT)
    return -magnitude if raw >> SIGN_BIT else magnitude


class StatusReader:
    """Finds statuses in a stream that loses, adds and changes bytes; what fails its checksum is skipped."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Status]:
        """The statuses that are whole now."""
        self._buffer += data
        found: list[Status] = []
        while (begin := self._buffer.find(_HEADER)) >= 0:
            del self._buffer[:begin]
            if len(self._buffer) < 4:
                return found
            length = self._buffer[3]
            end = 4 + length
            if self._buffer[2] == 0xFF or not 2 <= length <= _MAX_LENGTH:
                del self._buffer[0]  # no header after all; a third FF may be the second of the true one
            elif len(self._buffer) < end:
                return found
            elif self._buffer[end - 1] != checksum(bytes(self._buffer[2 : end - 1])):
                del self._buffer[0]
            else:
                found.append(Status(self._buffer[2], self._buffer[4], bytes(self._buffer[5 : end - 1])))
                del self._buffer[:end]
        del self._buffer[:-1]  # the last byte may be the first of a header
        return found


class ServoBus:
    """Questions and answers on one port; any thread may ask. BaseError when the port is gone.

    ``answer_limit_s``: how long a servo may take. A question is asked ``tries`` times. Answers that come too late are
    dropped before the next question.
    """

    def __init__(self, port: SerialPort, answer_limit_s: float, tries: int) -> None:
        self._port, self._answer_limit_s, self._tries = port, answer_limit_s, tries
        self._turn = threading.Lock()

    def ping(self, servo: int) -> bool:
        """The servo is there."""
        return self._ask(packet(servo, PING), (servo,), 0, self._tries) != {}

    def read(self, servo: int, address: int, size: int) -> bytes | None:
        """``size`` bytes from ``address`` on, or None when no whole answer came."""
        answers = self._ask(packet(servo, READ, bytes((address, size))), (servo,), size, self._tries)
        return answers[servo].data if answers else None

    def write(self, servo: int, address: int, data: bytes) -> bool:
        """Write, and wait for the servo to say so; False when it never did."""
        return self._ask(packet(servo, WRITE, bytes((address,)) + data), (servo,), 0, self._tries) != {}

    def tell(self, message: bytes) -> None:
        """Send what nobody answers."""
        with self._turn:
            self._port.write(message)

    def read_all(self, servos: Sequence[int], address: int, size: int) -> dict[int, Status]:
        """Asks once, all servos at a time; those whose answer came whole."""
        return self._ask(packet(BROADCAST, SYNC_READ, bytes((address, size, *servos))), servos, size, tries=1)

    def _ask(self, question: bytes, servos: Sequence[int], size: int, tries: int) -> dict[int, Status]:
        with self._turn:
            for _ in range(tries):
                answers = self._ask_once(question, servos, size)
                if answers:
                    return answers
        return {}

    def _ask_once(self, question: bytes, servos: Sequence[int], size: int) -> dict[int, Status]:
        self._port.forget_input()
        self._port.write(question)
        answers: dict[int, Status] = {}
        reader = StatusReader()
        end_s = time.monotonic() + self._answer_limit_s
        while len(answers) < len(servos) and (left_s := end_s - time.monotonic()) > 0:
            for status in reader.feed(self._port.read(left_s)):
                if status.servo in servos and len(status.data) == size:
                    answers[status.servo] = status
        return answers


def missing(port: str, servos: Sequence[int]) -> BaseError:
    """These do not answer."""
    names = ", ".join(map(str, servos))
    return BaseError(
        f"servo {names} on {port} does not answer: check the 12 V supply, the bus cable, and that the ids are set"
    )
