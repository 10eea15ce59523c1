"""A video file as a camera."""

import difflib
import math
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import av
import av.error

from mobile_vla.core import CameraError, Clock, ConfigError
from mobile_vla.robot.cameras.decoding import rgb_of
from mobile_vla.robot.cameras.paced import NO_RECOVERY, PacedSource, Recording
from mobile_vla.robot.cameras.reader import ReaderCamera, require_name, require_positive


@dataclass(frozen=True, kw_only=True)
class VideoFile:
    """``pace`` 1 plays by the file's time stamps, 2 twice as fast, 0 gives the next picture whenever one is read.

    At the end it begins again with ``loop``, else ``read`` fails. ``rate_hz``: None for what the file says.
    """

    path: Path
    name: str = "front"
    pace: float = 1.0
    loop: bool = False
    rate_hz: float | None = None

    def __post_init__(self) -> None:
        require_name(self.name)
        require_pace(self.pace)
        if self.rate_hz is not None:
            require_positive(rate_hz=self.rate_hz)

    def build(self, clock: Clock) -> ReaderCamera:
        """The camera, closed. CameraError when the file does not tell its rate or cannot be read."""
        rate_hz = self.rate_hz or _rate_of(self.path)
        return ReaderCamera(
            lambda: PacedSource(
                lambda: _pictures(self.path, rate_hz),
                clock,
                pace=self.pace,
                loop=self.loop,
                period_s=1 / rate_hz,
                ended=f"the video {self.path} has ended: set loop to begin again",
            ),
            clock,
            name=self.name,
            rate_hz=rate_hz * (self.pace or 1.0),
            recovery=NO_RECOVERY,
            keep_unread=self.pace == 0,
        )


def require_pace(pace: float) -> None:
    """ConfigError for a pace that is negative or not finite."""
    if not (math.isfinite(pace) and pace >= 0):
        raise ConfigError(f"pace is {pace}; give 1 for the recorded speed, 0 for as fast as it is read")


def _open(path: Path) -> "av.container.InputContainer":
    if not path.exists():
        near = difflib.get_close_matches(path.name, [other.name for other in path.parent.glob("*")], n=1)
        raise CameraError(f"there is no video {path}{f'; did you mean {near[0]}?' if near else ''}")
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise CameraError(f"{path} cannot be read as a video: {error.strerror}") from error
    if not container.streams.video:
        container.close()
        raise CameraError(f"{path} holds no video: give another file")
    return container


def _rate_of(path: Path) -> float:
    with closing(_open(path)) as container:
        rate = container.streams.video[0].average_rate
    if not rate:
        raise CameraError(f"the video {path} does not tell its rate: set rate_hz")
    return float(rate)


def _pictures(path: Path, rate_hz: float) -> Recording:
    """Time stamps that are missing or do not rise are replaced by one period after the picture before."""
    with closing(_open(path)) as container:
        first_s = last_s = None
        try:
            for frame in container.decode(video=0):
                if first_s is None:
                    first_s = frame.time or 0.0
                due_s = 0.0 if frame.time is None else max(0.0, frame.time - first_s)
                if last_s is not None and due_s <= last_s:
                    due_s = last_s + 1 / rate_hz
                last_s = due_s
                yield rgb_of(frame), due_s
        except av.error.FFmpegError as error:
            raise CameraError(f"the video {path} is damaged after {last_s or 0.0:.1f} s: {error.strerror}") from error
