"""A folder of images as a camera."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from mobile_vla.core import CameraError, Clock
from mobile_vla.robot.cameras.file import require_pace
from mobile_vla.robot.cameras.paced import NO_RECOVERY, PacedSource, Recording
from mobile_vla.robot.cameras.reader import ReaderCamera, require_name, require_positive

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True, kw_only=True)
class Folder:
    """The images of ``path`` by name, ``rate_hz`` a second; numbers in names count as numbers, so 9 comes before 10.

    All need one size. ``pace`` and ``loop`` as for ``VideoFile``.
    """

    path: Path
    name: str = "front"
    rate_hz: float = 10.0
    pace: float = 1.0
    loop: bool = False

    def __post_init__(self) -> None:
        require_name(self.name)
        require_pace(self.pace)
        require_positive(rate_hz=self.rate_hz)

    def build(self, clock: Clock) -> ReaderCamera:
        """The camera, closed."""
        return ReaderCamera(
            lambda: PacedSource(
                lambda: _pictures(self.path, self.rate_hz),
                clock,
                pace=self.pace,
                loop=self.loop,
                period_s=1 / self.rate_hz,
                ended=f"the images of {self.path} have ended: set loop to begin again",
            ),
            clock,
            name=self.name,
            rate_hz=self.rate_hz * (self.pace or 1.0),
            recovery=NO_RECOVERY,
            keep_unread=self.pace == 0,
        )


def images_in(folder: Path) -> list[Path]:
    """The images of ``folder``, in their order; CameraError when there is none."""
    if not folder.is_dir():
        raise CameraError(f"there is no folder {folder}: give one that holds images")
    images = sorted((path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES), key=_order)
    if not images:
        raise CameraError(f"the folder {folder} holds no image: the names need to end in {', '.join(SUFFIXES)}")
    return images


def _order(path: Path) -> list[tuple[bool, int, str]]:
    """Runs of digits by their value, before and after words by theirs."""
    parts = re.split(r"(\d+)", path.name)
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def _pictures(folder: Path, rate_hz: float) -> Recording:
    shape: tuple[int, ...] | None = None
    for number, path in enumerate(images_in(folder)):
        pixels = _read(path)
        if shape is not None and pixels.shape != shape:
            raise CameraError(
                f"{path} has {pixels.shape[1]}x{pixels.shape[0]} pixels, the images before it {shape[1]}x{shape[0]}: "
                "a camera has one size"
            )
        shape = pixels.shape
        yield pixels, number / rate_hz


def _read(path: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise CameraError(f"{path} cannot be read as an image: {error}") from error
