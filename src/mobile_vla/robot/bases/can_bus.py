"""A CAN bus through python-can that says clearly why it cannot be used, and never waits without a limit."""

import errno
import logging
import struct
from pathlib import Path

import can

from mobile_vla.core import BaseError
from mobile_vla.robot.bases.claim import Claim

SOCKETCAN = "socketcan"
SEND_LIMIT_S = 0.1
_CAN_DEVICE_TYPE = "280"  # ARPHRD_CAN in linux/if_arp.h
_INTERFACE_UP = 1  # IFF_UP in linux/if.h
_CAN_ERRORS = (can.CanError, OSError, ValueError, ImportError, NotImplementedError)
"""What python-can's interfaces raise; ValueError for what they were given and for a socket closed below them."""

_log = logging.getLogger(__name__)


class CanBus:
    """An open bus. ``interface`` and ``channel`` as python-can names them. BaseError when it cannot be opened.

    A CAN interface of Linux is opened by one process at a time that goes through here.
    """

    def __init__(self, interface: str, channel: str, fd: bool) -> None:
        self._channel = channel
        if interface == SOCKETCAN and (fault := can_fault(channel, fd)):
            raise BaseError(fault)
        self._claim = Claim(channel) if interface == SOCKETCAN else None
        try:
            self._bus = can.Bus(interface=interface, channel=channel, fd=fd)
        except _CAN_ERRORS as error:
            self._unclaim()
            raise BaseError(
                f"the CAN bus {channel} of {interface} cannot be opened ({error}): "
                "check interface and channel of the base"
            ) from error

    def send(self, message: can.Message) -> None:
        """Within 0.1 s; BaseError says why not."""
        try:
            self._bus.send(message, timeout=SEND_LIMIT_S)
        except _CAN_ERRORS as error:
            raise BaseError(_why_not_sent(self._channel, error)) from error

    def fileno(self) -> int:
        """The open file, for ``Guard``."""
        return int(self._bus.fileno())

    def close(self) -> None:
        """Let the bus go; never raises."""
        try:
            self._bus.shutdown()
        except _CAN_ERRORS as error:
            _log.warning("%s did not close: %s", self._channel, error)
        self._unclaim()

    def _unclaim(self) -> None:
        if self._claim is not None:
            self._claim.close()


def kernel_frame(message: can.Message) -> bytes:
    """A message as a CAN socket takes it: id, length, flags, padding, 8 or 64 bytes of data (linux/can.h)."""
    size = 64 if message.is_fd else 8
    return struct.pack(f"=IBB2x{size}s", message.arbitration_id, len(message.data), 0, bytes(message.data))


def can_fault(channel: str, fd: bool, devices: Path = Path("/sys/class/net")) -> str | None:
    """Why a CAN interface of Linux cannot be used, with the line that repairs it; None when it can."""
    device = devices / channel
    if not device.exists():
        present = [each.name for each in sorted(devices.glob("*")) if _word(each / "type") == _CAN_DEVICE_TYPE]
        there = f"there is {', '.join(present)}" if present else "no CAN interface is here: is its driver loaded?"
        return f"there is no CAN interface {channel}; {there}"
    if _word(device / "type") != _CAN_DEVICE_TYPE:
        return f"{channel} is no CAN interface; set channel to one, such as can0"
    if not int(_word(device / "flags") or "0", 16) & _INTERFACE_UP:
        rate = "bitrate 500000 dbitrate 2000000 fd on" if fd else "bitrate 500000"
        return f"{channel} is down: bring it up with `sudo ip link set {channel} up type can {rate}` (its own bit rate)"
    return None


def _word(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _why_not_sent(channel: str, error: Exception) -> str:
    number = getattr(error, "error_code", None) or getattr(error, "errno", None)
    if number == errno.ENOBUFS:
        return f"{channel} is full: nobody on the bus takes frames; check the power of the base, the cable and bit rate"
    if number == errno.ENETDOWN:
        return f"{channel} went down: bring it up again (`ip -details link show {channel}` says why) and open the base"
    if number == errno.ENODEV:
        return f"{channel} is gone: plug the CAN adapter in again and open the base again"
    return f"{channel} takes no frame ({error}): check the bus and open the base again"
