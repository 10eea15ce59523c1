"""A camera at a V4L2 device: USB (UVC) cameras, capture cards, v4l2loopback."""

import time
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from mobile_vla.core import NS_PER_S, CameraError, Clock, ConfigError
from mobile_vla.robot.cameras.decoding import rgb_of
from mobile_vla.robot.cameras.reader import DeviceSettings, ReaderCamera, Shot, from_monotonic, require_positive
from mobile_vla.robot.cameras.v4l2 import Kernel, Mode, Picture, VideoDevice

PIXEL_FORMATS = ("MJPG", "YUYV", "NV12", "RGB3", "BGR3")
"""What is read, by preference: MJPG alone gives most USB cameras' full rate above 640x480."""

_OLDEST_STAMP_NS = NS_PER_S


@dataclass(frozen=True, kw_only=True)
class Usb(DeviceSettings):
    """``device``: /dev/video0, or better a name that stays, /dev/v4l/by-id/... The size is taken exactly as given.

    ``pixel_format``: one of ``PIXEL_FORMATS``; None takes the first that the camera has at this size.
    """

    device: Path = Path("/dev/video0")
    width: int = 640
    height: int = 480
    rate_hz: float = 30.0
    pixel_format: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(width=self.width, height=self.height, rate_hz=self.rate_hz)
        if self.pixel_format is not None and self.pixel_format not in PIXEL_FORMATS:
            raise ConfigError(f"pixel_format is {self.pixel_format!r}; it needs to be of {', '.join(PIXEL_FORMATS)}")

    def build(self, clock: Clock) -> ReaderCamera:
        """The camera, closed."""
        return ReaderCamera(
            lambda: UsbSource(self, clock, Kernel()),
            clock,
            name=self.name,
            rate_hz=self.rate_hz,
            recovery=self.recovery,
        )


@dataclass
class UsbSource:
    """The device as ``ReaderCamera`` reads it."""

    settings: Usb
    clock: Clock
    kernel: Kernel
    _device: VideoDevice | None = field(default=None, init=False)
    _mode: Mode | None = field(default=None, init=False)

    def open(self) -> None:
        """Stream; CameraError says what the device refuses."""
        wanted = self.settings
        formats = PIXEL_FORMATS if wanted.pixel_format is None else (wanted.pixel_format,)
        self._device = VideoDevice(wanted.device, self.kernel)
        self._mode = self._device.start(wanted.width, wanted.height, wanted.rate_hz, formats)

    def take(self, timeout_s: float) -> Shot | None:
        """The next whole picture; damaged ones are left out, and show as a gap in the numbers."""
        if self._device is None or self._mode is None:
            raise CameraError(f"camera {self.settings.device} is closed: open it first")
        picture = self._device.next(timeout_s)
        arrival_ns = time.monotonic_ns()
        if picture is None or not picture.intact:
            return None
        pixels = decode(picture.data, self._mode)
        if pixels is None:
            return None
        return Shot(pixels, from_monotonic(self.clock, capture_time(picture, arrival_ns)), picture.number)

    def close(self) -> None:
        """Let the device go."""
        if self._device is not None:
            self._device.close()


def capture_time(picture: Picture, arrival_ns: int) -> int:
    """The kernel's stamp where it can be true, within the second before ``arrival_ns``; else ``arrival_ns``."""
    stamp_ns = picture.stamp_ns
    plausible = stamp_ns is not None and arrival_ns - _OLDEST_STAMP_NS <= stamp_ns <= arrival_ns
    return stamp_ns if plausible and stamp_ns is not None else arrival_ns


def decode(data: bytes, mode: Mode) -> NDArray[np.uint8] | None:
    """RGB uint8 (height, width, 3); None for data that are cut off or damaged, as happens on a weak USB link."""
    width, height = mode.width, mode.height
    if mode.pixel_format == "MJPG":
        try:
            pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colorspace="RGB")
        except ValueError:
            return None
        return pixels if pixels.shape == (height, width, 3) else None
    row_bytes = {"YUYV": 2 * width, "NV12": width, "RGB3": 3 * width, "BGR3": 3 * width}[mode.pixel_format]
    rows = height * 3 // 2 if mode.pixel_format == "NV12" else height
    stride = mode.stride or row_bytes
    if len(data) < stride * (rows - 1) + row_bytes:
        return None
    whole = np.frombuffer(data.ljust(stride * rows, b"\0"), dtype=np.uint8, count=stride * rows)
    plane: NDArray[np.uint8] = whole.reshape(rows, stride)[:, :row_bytes]
    match mode.pixel_format:
        case "YUYV":
            return _to_rgb(plane.reshape(height, width, 2), "yuyv422")
        case "NV12":
            return _to_rgb(plane, "nv12")
        case "BGR3":
            return np.ascontiguousarray(plane.reshape(height, width, 3)[:, :, ::-1])
        case _:
            return np.array(plane.reshape(height, width, 3))


def _to_rgb(raw: NDArray[np.uint8], av_format: str) -> NDArray[np.uint8]:
    return rgb_of(av.VideoFrame.from_ndarray(raw, format=av_format))
