"""Video4Linux2, the kernel's interface to cameras: single-planar capture into memory-mapped buffers.

Read by ioctl, because the kernel gives what no wrapper passes on: when each picture was captured, on CLOCK_MONOTONIC,
and its number, which shows what was dropped. Numbers and layouts are those of <linux/videodev2.h>:
https://www.kernel.org/doc/html/latest/userspace-api/media/v4l/v4l2.html
"""

import ctypes
import errno
import fcntl
import grp
import mmap
import os
import select
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from mobile_vla.core import CameraError
from mobile_vla.robot.cameras.listing import present
from mobile_vla.robot.cameras.reader import Lost

BUFFERS = 4
_CAPTURE = 1  # V4L2_BUF_TYPE_VIDEO_CAPTURE
_MMAP = 1  # V4L2_MEMORY_MMAP
_FIELD_NONE = 1
_CAP_CAPTURE = 0x1
_CAP_CAPTURE_MPLANE = 0x1000
_CAP_STREAMING = 0x04000000
_CAP_DEVICE_CAPS = 0x80000000
_CAP_RATE = 0x1000  # V4L2_CAP_TIMEPERFRAME
_FLAG_ERROR = 0x40
_FLAG_STAMP_MASK = 0xE000
_FLAG_STAMP_MONOTONIC = 0x2000
_SIZE_DISCRETE = 1
_SLOWER = 0.9
"""A device whose rate is below this share of what was asked is refused; drivers round."""
_MOST_LISTED = 64
_PAUSE_S = 0.005


class _Capability(ctypes.Structure):
    _fields_ = [
        ("driver", ctypes.c_char * 16),
        ("card", ctypes.c_char * 32),
        ("bus_info", ctypes.c_char * 32),
        ("version", ctypes.c_uint32),
        ("capabilities", ctypes.c_uint32),
        ("device_caps", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32 * 3),
    ]


class _PixFormat(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint32)
        for name in ("width", "height", "pixelformat", "field", "bytesperline", "sizeimage", "colorspace", "priv")
    ]


class _FormatUnion(ctypes.Union):
    _fields_ = [("pix", _PixFormat), ("raw", ctypes.c_uint8 * 200), ("align", ctypes.c_void_p)]


class _Format(ctypes.Structure):
    _fields_ = [("type", ctypes.c_uint32), ("fmt", _FormatUnion)]


class _Parm(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_uint32),
        ("capability", ctypes.c_uint32),
        ("capturemode", ctypes.c_uint32),
        ("numerator", ctypes.c_uint32),
        ("denominator", ctypes.c_uint32),
        ("rest", ctypes.c_uint8 * 184),
    ]


class _RequestBuffers(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("count", "type", "memory", "capabilities", "flags")]


class _BufferPlace(ctypes.Union):
    _fields_ = [("offset", ctypes.c_uint32), ("userptr", ctypes.c_ulong)]


class _Buffer(ctypes.Structure):
    _fields_ = [
        ("index", ctypes.c_uint32),
        ("type", ctypes.c_uint32),
        ("bytesused", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("field", ctypes.c_uint32),
        ("seconds", ctypes.c_long),
        ("microseconds", ctypes.c_long),
        ("timecode", ctypes.c_uint32 * 4),
        ("sequence", ctypes.c_uint32),
        ("memory", ctypes.c_uint32),
        ("place", _BufferPlace),
        ("length", ctypes.c_uint32),
        ("reserved2", ctypes.c_uint32),
        ("request", ctypes.c_int32),
    ]


class _FormatDescription(ctypes.Structure):
    _fields_ = [
        ("index", ctypes.c_uint32),
        ("type", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("description", ctypes.c_char * 32),
        ("pixelformat", ctypes.c_uint32),
        ("mbus_code", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32 * 3),
    ]


class _FrameSize(ctypes.Structure):
    _fields_ = [
        ("index", ctypes.c_uint32),
        ("pixelformat", ctypes.c_uint32),
        ("type", ctypes.c_uint32),
        ("width", ctypes.c_uint32),
        ("height", ctypes.c_uint32),
        ("rest", ctypes.c_uint32 * 6),
    ]


def _request(direction: int, number: int, size: int) -> int:
    """An ioctl number as <asm-generic/ioctl.h> forms it; direction 1 writes to the kernel, 2 reads, 3 both."""
    return direction << 30 | size << 16 | ord("V") << 8 | number


_QUERYCAP = _request(2, 0, ctypes.sizeof(_Capability))
_ENUM_FMT = _request(3, 2, ctypes.sizeof(_FormatDescription))
_S_FMT = _request(3, 5, ctypes.sizeof(_Format))
_REQBUFS = _request(3, 8, ctypes.sizeof(_RequestBuffers))
_QUERYBUF = _request(3, 9, ctypes.sizeof(_Buffer))
_QBUF = _request(3, 15, ctypes.sizeof(_Buffer))
_DQBUF = _request(3, 17, ctypes.sizeof(_Buffer))
_STREAMON = _request(1, 18, ctypes.sizeof(ctypes.c_int))
_STREAMOFF = _request(1, 19, ctypes.sizeof(ctypes.c_int))
_S_PARM = _request(3, 22, ctypes.sizeof(_Parm))
_ENUM_FRAMESIZES = _request(3, 74, ctypes.sizeof(_FrameSize))


class Kernel:
    """The system calls by which a video device is used."""

    def open(self, path: Path) -> int:
        """A descriptor that does not block."""
        return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def ioctl(self, descriptor: int, request: int, argument: Any) -> None:
        """``argument``, a ctypes value, is read and written in place."""
        fcntl.ioctl(descriptor, request, argument, True)

    def map(self, descriptor: int, length: int, offset: int) -> mmap.mmap:
        """The device's memory."""
        return mmap.mmap(descriptor, length, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=offset)

    def wait(self, descriptor: int, timeout_s: float) -> bool:
        """Until there is a picture or an error to fetch; False when the time is over."""
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))

    def close(self, descriptor: int) -> None:
        """The device stops streaming with it."""
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Picture:
    """One filled buffer, copied. ``stamp_ns`` on CLOCK_MONOTONIC, None where the driver stamps otherwise.

    ``intact`` is False where the driver marks the data as damaged.
    """

    data: bytes
    stamp_ns: int | None
    number: int
    intact: bool


@dataclass(frozen=True, slots=True)
class Mode:
    """What the device agreed to: ``pixel_format`` is its four-letter code, ``stride`` the bytes from row to row."""

    pixel_format: str
    width: int
    height: int
    stride: int


class VideoDevice:
    """One open /dev/video*. CameraError, in a sentence that says what to do, for whatever it refuses."""

    def __init__(self, path: Path, kernel: Kernel) -> None:
        self._path, self._kernel = path, kernel
        self._descriptor: int | None = None
        self._maps: list[mmap.mmap] = []

    def start(self, width: int, height: int, rate_hz: float, pixel_formats: tuple[str, ...]) -> Mode:
        """Stream in the first of ``pixel_formats`` that the device has at just this size."""
        try:
            self._descriptor = self._kernel.open(self._path)
            self._require_capture()
            mode = self._choose(width, height, pixel_formats)
            self._set_rate(rate_hz, mode)
            self._map_buffers()
            self._call(_STREAMON, ctypes.c_int(_CAPTURE))
        except OSError as error:
            raise CameraError(explain(error, self._path)) from error
        return mode

    def next(self, timeout_s: float) -> Picture | None:
        """The oldest filled buffer, None when there is none within ``timeout_s``; Lost when the device went away."""
        if self._descriptor is None:
            raise CameraError(f"camera {self._path} is closed: start it first")
        try:
            if not self._kernel.wait(self._descriptor, timeout_s):
                return None
            buffer = _Buffer(type=_CAPTURE, memory=_MMAP)
            try:
                self._call(_DQBUF, buffer)
            except (BlockingIOError, InterruptedError):
                time.sleep(_PAUSE_S)  # a driver that reports an error but has nothing to fetch must not keep us busy
                return None
            data = self._maps[buffer.index][: buffer.bytesused]
            picture = Picture(data, _stamp_ns(buffer), buffer.sequence, not buffer.flags & _FLAG_ERROR)
            self._call(_QBUF, _Buffer(index=buffer.index, type=_CAPTURE, memory=_MMAP))
        except OSError as error:
            raise Lost(explain(error, self._path)) from error
        return picture

    def close(self) -> None:
        """Stop and let go; twice is closed."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        with suppress(OSError):  # it may be gone
            self._kernel.ioctl(descriptor, _STREAMOFF, ctypes.c_int(_CAPTURE))
        for mapped in self._maps:
            mapped.close()
        self._maps.clear()
        self._kernel.close(descriptor)

    def _call(self, request: int, argument: Any) -> None:
        assert self._descriptor is not None
        self._kernel.ioctl(self._descriptor, request, argument)

    def _require_capture(self) -> None:
        capability = _Capability()
        self._call(_QUERYCAP, capability)
        has_own = capability.capabilities & _CAP_DEVICE_CAPS
        able = capability.device_caps if has_own else capability.capabilities
        if able & _CAP_CAPTURE_MPLANE:
            raise CameraError(
                f"camera {self._path} gives its pictures in several planes, which is not read here: "
                "use camera.kind=gstreamer with v4l2src or the maker's source"
            )
        if not (able & _CAP_CAPTURE and able & _CAP_STREAMING):
            raise CameraError(f"{self._path} gives no pictures, it is another node of its device: {present()}")

    def _choose(self, width: int, height: int, pixel_formats: tuple[str, ...]) -> Mode:
        for code in pixel_formats:
            wanted = _Format(type=_CAPTURE)
            wanted.fmt.pix = _PixFormat(width=width, height=height, pixelformat=_code(code), field=_FIELD_NONE)
            try:
                self._call(_S_FMT, wanted)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                continue  # some drivers refuse where others answer with what they have
            pix = wanted.fmt.pix
            if (pix.width, pix.height, pix.pixelformat) == (width, height, _code(code)):
                return Mode(code, width, height, pix.bytesperline)
        raise CameraError(
            f"camera {self._path} does not give {width}x{height} as {' or '.join(pixel_formats)}: "
            f"choose of {self._offers() or 'what v4l2-ctl --list-formats-ext shows'}"
        )

    def _set_rate(self, rate_hz: float, mode: Mode) -> None:
        period = 1 / Fraction(rate_hz).limit_denominator(1001)
        parm = _Parm(type=_CAPTURE, numerator=period.numerator, denominator=period.denominator)
        try:
            self._call(_S_PARM, parm)
        except OSError as error:
            if error.errno not in (errno.ENOTTY, errno.EINVAL):
                raise
            return  # its rate cannot be set; the measured one will show
        if parm.capability & _CAP_RATE and parm.numerator:
            given_hz = parm.denominator / parm.numerator
            if given_hz < _SLOWER * rate_hz:
                raise CameraError(
                    f"camera {self._path} gives {given_hz:g} pictures a second at {mode.width}x{mode.height} as "
                    f"{mode.pixel_format}, not {rate_hz:g}: ask for that rate, for another pixel_format (MJPG is the "
                    "fastest of most USB cameras) or for a smaller size"
                )

    def _map_buffers(self) -> None:
        request = _RequestBuffers(count=BUFFERS, type=_CAPTURE, memory=_MMAP)
        self._call(_REQBUFS, request)
        for index in range(request.count):
            buffer = _Buffer(index=index, type=_CAPTURE, memory=_MMAP)
            self._call(_QUERYBUF, buffer)
            assert self._descriptor is not None
            self._maps.append(self._kernel.map(self._descriptor, buffer.length, buffer.place.offset))
            self._call(_QBUF, _Buffer(index=index, type=_CAPTURE, memory=_MMAP))

    def _offers(self) -> str:
        offers = []
        for index in range(_MOST_LISTED):
            description = _FormatDescription(index=index, type=_CAPTURE)
            try:
                self._call(_ENUM_FMT, description)
            except OSError:
                break
            sizes = ", ".join(self._sizes(description.pixelformat))
            offers.append(f"{_text(description.pixelformat)} {sizes}".strip())
        return "; ".join(offers)

    def _sizes(self, pixelformat: int) -> Iterator[str]:
        for index in range(_MOST_LISTED):
            size = _FrameSize(index=index, pixelformat=pixelformat)
            try:
                self._call(_ENUM_FRAMESIZES, size)
            except OSError:
                return
            if size.type != _SIZE_DISCRETE:
                yield "any size"
                return
            yield f"{size.width}x{size.height}"


def explain(error: OSError, path: Path) -> str:
    """What the kernel's refusal means for a person, and what to do."""
    match error.errno:
        case errno.ENOENT | errno.ENXIO:
            return f"there is no camera {path}: {present()}"
        case errno.EBUSY:
            return f"camera {path} is in use by another program: close that one (fuser -v {path} names it)"
        case errno.EACCES | errno.EPERM:
            group = _group_of(path)
            return (
                f"this user may not open camera {path}: run sudo usermod -aG {group} $USER and log in again "
                f"(the group {group} may)"
            )
        case errno.ENODEV | errno.EIO | errno.EPROTO:
            return f"camera {path} was unplugged or its link failed ({os.strerror(error.errno)}): plug it in again"
        case errno.ENOSPC:
            return (
                f"the USB bus has no room for camera {path}: use another port, pixel_format MJPG, a lower rate or size"
            )
        case errno.ENOTTY | errno.EINVAL:
            return f"{path} does not answer as a camera does ({os.strerror(error.errno)}): {present()}"
        case _:
            return f"camera {path} failed: {error.strerror or error}; plug it in again, and see dmesg"


def _group_of(path: Path) -> str:
    try:
        group = grp.getgrgid(path.stat().st_gid).gr_name
    except (OSError, KeyError):
        return "video"
    return "video" if group == "root" else group


def _stamp_ns(buffer: _Buffer) -> int | None:
    if buffer.flags & _FLAG_STAMP_MASK != _FLAG_STAMP_MONOTONIC:
        return None
    return int(buffer.seconds * 1_000_000_000 + buffer.microseconds * 1000)


def _code(text: str) -> int:
    """Four letters as V4L2 counts them: the first is the lowest byte."""
    return int.from_bytes(text.encode("ascii"), "little")


def _text(code: int) -> str:
    return (code & 0x7FFFFFFF).to_bytes(4, "little").decode("ascii", "replace")
