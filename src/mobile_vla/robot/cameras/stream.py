"""A stream from the network as a camera: RTSP, MJPEG over HTTP, and whatever else FFmpeg reads."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

import av
import av.error

from mobile_vla.core import NS_PER_S, CameraError, Clock, ConfigError
from mobile_vla.robot.cameras.decoding import rgb_of
from mobile_vla.robot.cameras.reader import DeviceSettings, Lost, ReaderCamera, Shot, from_monotonic, require_positive
from mobile_vla.robot.cameras.secrets import without_secrets

SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "udp", "tcp", "rtp", "srt")

_WAITED_NS = 2_000_000
_BACKLOG_LIMIT_NS = 2 * NS_PER_S


@dataclass(frozen=True, kw_only=True, repr=False)
class Stream(DeviceSettings):
    """``url`` may hold user and password; they are used, and never shown.

    ``rate_hz`` is what the stream nominally gives. ``transport`` carries RTSP: tcp loses nothing, udp waits for
    nothing.
    ``latency_s``: the time from the light falling in to the arrival of the picture's data, which the stream does not
    tell; it is taken off the time of arrival. Measure it by filming a clock.
    """

    url: str
    rate_hz: float = 30.0
    transport: Literal["tcp", "udp"] = "tcp"
    latency_s: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(rate_hz=self.rate_hz)
        if not 0 <= self.latency_s <= 5:
            raise ConfigError(f"latency_s is {self.latency_s}; it needs to be from 0 to 5 seconds")
        if urlsplit(self.url).scheme.lower() not in SCHEMES:
            raise ConfigError(
                f"{without_secrets(self.url)!r} is no address of a stream: begin it with {'://, '.join(SCHEMES)}://"
            )

    def __repr__(self) -> str:
        return f"Stream(url={without_secrets(self.url)!r}, name={self.name!r})"

    def build(self, clock: Clock) -> ReaderCamera:
        """The camera, closed."""
        return ReaderCamera(
            lambda: StreamSource(self, clock),
            clock,
            name=self.name,
            rate_hz=self.rate_hz,
            recovery=self.recovery,
        )


@dataclass
class StreamSource:
    """The stream as ``ReaderCamera`` reads it. One wait for data takes ``silent_after_s`` at most."""

    settings: Stream
    clock: Clock
    _container: Any = field(default=None, init=False)
    _shots: Iterator[Shot | None] | None = field(default=None, init=False)

    def open(self) -> None:
        """Connect, and find out what is streamed; CameraError says what failed."""
        settings = self.settings
        options = {
            "flags": "low_delay",
            "probesize": "500000",
            "analyzeduration": "500000",
            "rtsp_transport": settings.transport,
            "max_delay": "100000",
        }
        limits = (settings.open_limit_s, settings.silent_after_s)
        reason = None
        try:
            self._container = av.open(settings.url, options=options, timeout=limits)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            reason = _reason(error)
        if reason is not None:  # not within the except: the error beneath holds the address, and that a password
            raise CameraError(f"{self._what()} cannot be opened: {reason}")
        if not self._container.streams.video:
            raise CameraError(f"{self._what()} holds no video: check its path")
        self._shots = self._read()

    def take(self, timeout_s: float) -> Shot | None:
        """The next picture. It waits for the stream, not for ``timeout_s``, but no longer than ``silent_after_s``."""
        if self._shots is None:
            raise CameraError(f"camera {self.settings.name} is closed: open it first")
        try:
            return next(self._shots)
        except StopIteration:
            reason = "ended"
        except (av.error.FFmpegError, OSError, ValueError) as error:
            reason = f"broke off: {_reason(error)}"
        raise Lost(f"{self._what()} {reason}")

    def close(self) -> None:
        """Hang up."""
        shots, self._shots = self._shots, None
        if shots is not None:
            shots.close()  # type: ignore[attr-defined]
        container, self._container = self._container, None
        if container is not None:
            container.close()

    def _read(self) -> Iterator[Shot | None]:
        """A picture, or None for a packet that shows none.

        What came in while the stream was being looked at is decoded, because later pictures build on it, but not shown:
        nobody knows when it arrived. It is at an end with the first packet that had to be waited for.
        """
        video = self._container.streams.video[0]
        video.thread_type = "SLICE"  # threads by frame would hold pictures back
        latency_ns = round(self.settings.latency_s * NS_PER_S)
        packets = self._container.demux(video)
        began_ns, is_live = time.monotonic_ns(), False
        while True:
            asked_ns = time.monotonic_ns()
            packet = next(packets, None)
            if packet is None:
                return
            arrival_ns = time.monotonic_ns()
            is_live = is_live or arrival_ns - asked_ns > _WAITED_NS or arrival_ns - began_ns > _BACKLOG_LIMIT_NS
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                frames = []  # damaged; if no whole one follows, the camera counts as silent
            for frame in frames if is_live else []:
                yield Shot(rgb_of(frame), from_monotonic(self.clock, arrival_ns - latency_ns))
            if not (frames and is_live):
                yield None

    def _what(self) -> str:
        return f"camera {self.settings.name}: the stream {without_secrets(self.settings.url)}"


def _reason(error: Exception) -> str:
    """In FFmpeg's words, without the address that they end in."""
    match error:
        case av.error.ExitError():
            return "it did not answer in time; check address and network"
        case av.error.HTTPUnauthorizedError():
            return "it asks for a user and a password; write them as //user:password@ in the address"
        case av.error.InvalidDataError():
            return "what it gives is no video; check its path"
        case _:
            return str(getattr(error, "strerror", None) or type(error).__name__).rstrip(".").lower()
