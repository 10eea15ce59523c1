"""The film of a recorded episode: what the camera saw, with what was asked for and what was measured below it."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import cast

import av
import numpy as np
from av import VideoStream
from av.codec.codec import UnknownCodecError
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mobile_vla.core import ActionContract, ConfigError
from mobile_vla.data import Episode, schema
from mobile_vla.record.drivers import EXTRA_FRAMES_BY, Driver, drivers_of

_WIDTH, _PANEL = 640, 120
_INK, _PAPER, _ASKED, _MEASURED = (235, 235, 235), (24, 26, 30), (255, 214, 10), (90, 170, 255)
_ENCODERS: tuple[tuple[str, dict[str, str]], ...] = (
    ("libx264", {"crf": "20", "preset": "veryfast"}),
    ("h264", {}),
    ("mpeg4", {"qscale": "3"}),
)


@dataclass(frozen=True)
class Strip:
    """T frames: JPEG files, ``actions`` and ``measured`` (T, 3) in physical units, and who drove."""

    jpegs: Sequence[bytes | memoryview]
    actions: NDArray[np.float32]
    measured: NDArray[np.float32]
    drivers: Sequence[Driver]


def strip_of(episode: Episode) -> Strip:
    """Of an episode on the disk; DatasetError when it is damaged."""
    text = episode.record.extras.get(EXTRA_FRAMES_BY)
    drivers = drivers_of(str(text), len(episode)) if text else [Driver.OPERATOR] * len(episode)
    return Strip(episode.jpegs, episode[schema.ACTION], episode[schema.STATE], drivers)


def write_film(path: Path, strip: Strip, contract: ActionContract) -> None:
    """An MP4 in which one second is one second of the episode. Bars: yellow what was asked, blue what was measured.

    A bar is full at the contract's limit. ConfigError when this machine can encode no film.
    """
    rate_hz, limits = contract.frame_rate_hz, contract.limits_array
    name, options = _encoder()
    unfinished = path.with_name(f".{path.name}")
    with av.open(str(unfinished), "w", format="mp4") as container:
        stream = cast(VideoStream, container.add_stream(name, round(rate_hz), options))
        stream.pix_fmt = "yuv420p"
        for place, jpeg in enumerate(strip.jpegs):
            with Image.open(BytesIO(jpeg)) as picture:
                height = 2 * round(picture.height * _WIDTH / picture.width / 2)
                page = Image.new("RGB", (_WIDTH, height + _PANEL), _PAPER)
                page.paste(picture.resize((_WIDTH, height), Image.Resampling.BICUBIC))
            _draw_panel(page, height, strip.actions[place] / limits, strip.measured[place] / limits)
            label = f"{place / rate_hz:5.1f} s   frame {place}   {strip.drivers[place].value}"
            ImageDraw.Draw(page).text((14, height + 8), label, fill=_INK)
            if place == 0:
                stream.width, stream.height = page.size
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(page), format="rgb24")))
        container.mux(stream.encode())
    unfinished.replace(path)


def _draw_panel(page: Image.Image, top: int, asked: Sequence[float], measured: Sequence[float]) -> None:
    """One pair of bars an axis, from the middle; positive (forward, left, counter-clockwise) to the left."""
    draw = ImageDraw.Draw(page)
    middle, half = _WIDTH // 2 + 40, 220
    for axis, word in enumerate(("x  forward < > back", "y  left < > right", "yaw  left < > right")):
        y = top + 30 + 28 * axis
        draw.text((14, y + 4), word, fill=_INK)
        draw.line((middle, y, middle, y + 22), fill=_INK)
        for share, colour, below in ((asked[axis], _ASKED, 0), (measured[axis], _MEASURED, 11)):
            end = middle - round(float(np.clip(share, -1, 1)) * half)
            draw.rectangle((min(middle, end), y + below, max(middle, end), y + below + 9), fill=colour)


def _encoder() -> tuple[str, dict[str, str]]:
    """Name and options of the first encoder that this build of FFmpeg has."""
    for name, options in _ENCODERS:
        try:
            av.codec.Codec(name, "w")
        except UnknownCodecError:
            continue
        return name, options
    raise ConfigError("PyAV can encode neither H.264 nor MPEG-4 here: install the av package from PyPI")
