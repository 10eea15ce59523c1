"""The lines between a computer and the firmware of a base, as docs/serial-protocol.md defines them."""

import binascii
from collections.abc import Sequence
from dataclasses import dataclass

VERSION = 1
MAX_LINE_BYTES = 160
SEQUENCES = 1 << 16
COUNTER = 1 << 32
"""Stamps and wheel angles are given modulo this."""

_INT32 = 1 << 31


@dataclass(frozen=True, slots=True)
class Identity:
    """Who answers. ``mode``: "twist" or "wheels"; ``timeout_ms``: when it stops without commands."""

    version: int
    mode: str
    wheels: int
    timeout_ms: int
    name: str


@dataclass(frozen=True, slots=True)
class TwistReport:
    """Measured by a base that knows its kinematics: mm/s, mm/s, mrad/s; mm, mm, mrad since it was switched on.

    ``stamp_ms``: its own uptime. ``sequence``: of the last command that it took.
    """

    velocity: tuple[int, int, int]
    pose: tuple[int, int, int]
    stamp_ms: int
    sequence: int


@dataclass(frozen=True, slots=True)
class WheelReport:
    """Measured by a base that leaves kinematics to the computer: mrad/s and mrad of each wheel."""

    speeds: tuple[int, ...]
    angles: tuple[int, ...]
    stamp_ms: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Complaint:
    """A line that the base refuses ("checksum", "syntax", "range"), or why it does not move ("estop", "fault")."""

    code: str
    words: str

    @property
    def stops(self) -> bool:
        """The base does not move until somebody sees to it."""
        return self.code in ("estop", "fault")


Report = Identity | TwistReport | WheelReport | Complaint


def line(*words: object) -> bytes:
    """A line of these words, with checksum and line end."""
    body = " ".join(map(str, words)).encode("ascii")
    return body + b"*%04X\n" % checksum(body)


def checksum(body: bytes) -> int:
    """CRC-16/CCITT-FALSE: polynomial 0x1021, begins with 0xFFFF, nothing reflected; 0x29B1 for "123456789"."""
    return binascii.crc_hqx(body, 0xFFFF)


class LineReader:
    """Finds reports in a stream that loses and changes bytes; a line that is not whole is skipped."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Report]:
        """The reports that are whole now."""
        self._buffer += data
        *lines, rest = bytes(self._buffer).split(b"\n")
        self._buffer = bytearray(rest[-MAX_LINE_BYTES:])
        return [report for each in lines if (report := parsed(each)) is not None]


def parsed(text: bytes) -> Report | None:
    """What a line without its end says; None for one that is damaged, or not of this protocol."""
    body, star, proof = text.rstrip(b"\r").rpartition(b"*")
    try:
        if not star or len(proof) != 4 or int(proof, 16) != checksum(body):
            return None
        kind, *words = body.decode("ascii").split(" ")
        return _report(kind, words)
    except ValueError:  # no number, no ASCII, or too few words
        return None


def _report(kind: str, words: Sequence[str]) -> Report | None:
    if kind == "O" and len(words) == 8:
        vx, vy, wz, x, y, yaw, stamp, sequence = map(int, words)
        _require_int32(vx, vy, wz, x, y, yaw)
        return TwistReport((vx, vy, wz), (x, y, yaw), stamp % COUNTER, sequence % SEQUENCES)
    if kind == "M" and len(words) >= 4 and len(words) % 2 == 0:
        *turning, stamp, sequence = map(int, words)
        half = len(turning) // 2
        _require_int32(*turning)
        return WheelReport(tuple(turning[:half]), tuple(turning[half:]), stamp % COUNTER, sequence % SEQUENCES)
    if kind == "I" and len(words) == 5:
        version, mode, wheels, timeout_ms, name = words
        return Identity(int(version), mode, int(wheels), int(timeout_ms), name)
    if kind == "E" and words:
        return Complaint(words[0], " ".join(words[1:]))
    return None


def _require_int32(*values: int) -> None:
    if not all(-_INT32 <= value < _INT32 for value in values):
        raise ValueError(f"{values} are not all of 32 bits")
