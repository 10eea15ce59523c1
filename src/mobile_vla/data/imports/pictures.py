"""Pictures of other tools as RGB uint8 (H, W, 3), at their own size."""

from io import BytesIO

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

MAX_PIXELS = 1 << 26  # 8192 x 8192: more is no camera but an attack on memory


def decoded(data: bytes) -> NDArray[np.uint8]:
    """JPEG or PNG, told by their first bytes; ValueError for anything else and for damage."""
    if data.startswith(b"\xff\xd8"):
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        _require_size(width, height)
        return np.asarray(simplejpeg.decode_jpeg(data, colorspace="RGB"), dtype=np.uint8)
    if data.startswith(b"\x89PNG"):
        try:
            with Image.open(BytesIO(data), formats=["PNG"]) as picture:
                _require_size(*picture.size)
                return np.array(picture.convert("RGB"))
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"a PNG that cannot be read: {error}") from error
    raise ValueError(f"neither JPEG nor PNG (it begins with {data[:8]!r})")


def ordered(pixels: NDArray[np.uint8], order: str) -> NDArray[np.uint8]:
    """RGB from channels in ``order``, "rgb" or "bgr"."""
    return np.ascontiguousarray(pixels[:, :, ::-1] if order == "bgr" else pixels)


def _require_size(width: int, height: int) -> None:
    if not 0 < width * height <= MAX_PIXELS:
        raise ValueError(f"a picture of {width}x{height} pixels: {MAX_PIXELS} pixels are the limit")
