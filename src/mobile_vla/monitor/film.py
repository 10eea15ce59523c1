"""The film of a drive: what the camera saw, with what the policy points at, beside the robot's trail from above."""

import math
from fractions import Fraction
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import cast

import av
import numpy as np
from av import VideoStream
from av.codec.codec import UnknownCodecError
from PIL import Image, ImageDraw, ImageFont
from typing_extensions import Self

from mobile_vla.core import NS_PER_S, ConfigError, Frame, Grounding
from mobile_vla.monitor.fonts import font_file
from mobile_vla.monitor.line import SURE, line
from mobile_vla.monitor.overhead import Overhead
from mobile_vla.runtime import Tick
from mobile_vla.sim.scene import ROBOT_RADIUS_M, Pose

VIEW_HEIGHT = 384
_VIEW_WIDTH = 2 * VIEW_HEIGHT
_HEAD, _FOOT = 48, 36
_INK, _PAPER, _MARK = (235, 235, 235), (24, 26, 30), (255, 214, 10)
_ENCODERS: tuple[tuple[str, dict[str, str]], ...] = (
    ("libx264", {"crf": "20", "preset": "veryfast"}),
    ("h264", {}),
    ("mpeg4", {"qscale": "3"}),
)


class Film:
    """Writes an MP4 in which one second is one second of the drive. Use as a context; ``add`` once a control step."""

    def __init__(self, path: Path, background: Overhead, caption: str, rate_hz: float) -> None:
        self._overhead = background.resized(VIEW_HEIGHT)
        self._background = Image.fromarray(self._overhead.pixels)
        self._caption = caption
        self._trail: list[tuple[float, float]] = []
        self._container = av.open(str(path), "w")
        name, options = _encoder()
        self._stream = cast(VideoStream, self._container.add_stream(name, round(rate_hz), options))
        self._size = (_VIEW_WIDTH + self._background.width, _HEAD + VIEW_HEIGHT + _FOOT)
        self._stream.width, self._stream.height = self._size
        self._stream.pix_fmt = "yuv420p"
        self._rate_hz = rate_hz
        self._began_ns: int | None = None
        self._last = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._container.mux(self._stream.encode())
        self._container.close()

    def add(self, tick: Tick, pose: Pose) -> None:
        """One picture: the control step and where the robot really was."""
        self._began_ns = tick.stamp_ns if self._began_ns is None else self._began_ns
        self._trail.append(self._overhead.place(pose.x, pose.y))
        frame = av.VideoFrame.from_ndarray(np.asarray(self._compose(tick, pose)), format="rgb24")
        frame.pts = max(self._last + 1, round((tick.stamp_ns - self._began_ns) / NS_PER_S * self._rate_hz))
        frame.time_base = Fraction(1, round(self._rate_hz))
        self._last = frame.pts
        self._container.mux(self._stream.encode(frame))

    def _compose(self, tick: Tick, pose: Pose) -> Image.Image:
        picture = Image.new("RGB", self._size, _PAPER)
        if tick.frame is not None:
            picture.paste(_view(tick.frame, tick.grounding), (0, _HEAD))
        picture.paste(self._map(pose), (_VIEW_WIDTH, _HEAD))
        draw = ImageDraw.Draw(picture)
        for text, size_px, top in ((self._caption, 24, 8), (line(tick), 16, _HEAD + VIEW_HEIGHT + 8)):
            font = font_file(text)
            if font is not None:
                draw.text((14, top), text, fill=_INK, font=_truetype(font, size_px))
        return picture

    def _map(self, pose: Pose) -> Image.Image:
        above = self._background.copy()
        draw = ImageDraw.Draw(above)
        if len(self._trail) > 1:
            draw.line(self._trail, fill=_MARK, width=3, joint="curve")
        x, y = self._trail[-1]
        radius = ROBOT_RADIUS_M * self._overhead.pixels_per_m
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_INK, outline=_PAPER, width=2)
        nose = (x + radius * math.cos(pose.yaw), y - radius * math.sin(pose.yaw))
        draw.line(((x, y), nose), fill=_PAPER, width=3)
        return above


@cache
def _truetype(path: Path, size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), size_px)


def _view(frame: Frame, grounding: Grounding | None) -> Image.Image:
    view = Image.fromarray(frame.pixels).resize((_VIEW_WIDTH, VIEW_HEIGHT), Image.Resampling.BICUBIC)
    if grounding is not None and grounding.visibility > SURE:
        left, top, right, bottom = grounding.box
        corners = (left * _VIEW_WIDTH, top * VIEW_HEIGHT, right * _VIEW_WIDTH, bottom * VIEW_HEIGHT)
        ImageDraw.Draw(view).rectangle(corners, outline=_MARK, width=3)
    return view


def _encoder() -> tuple[str, dict[str, str]]:
    """Name and options of the first encoder that this build of FFmpeg has."""
    for name, options in _ENCODERS:
        try:
            av.codec.Codec(name, "w")
        except UnknownCodecError:
            continue
        return name, options
    raise ConfigError("PyAV can encode neither H.264 nor MPEG-4 here: install the av package from PyPI")
