import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from mobile_vla.data.imports.pictures import decoded, ordered

PIXELS = np.random.default_rng(3).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def png(pixels, mode="RGB"):
    file = BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, "PNG")
    return file.getvalue()


def test_a_png_comes_back_to_the_bit_and_a_jpeg_nearly():
    np.testing.assert_array_equal(decoded(png(PIXELS)), PIXELS)
    flat = np.broadcast_to(np.array([200, 30, 90], np.uint8), (16, 16, 3)).copy()
    jpeg = simplejpeg.encode_jpeg(flat, 95, "RGB", "444")
    assert np.abs(decoded(jpeg).astype(int) - flat).max() <= 3


def test_grey_and_transparent_ones_become_rgb():
    assert decoded(png(PIXELS, "L")).shape == (6, 9, 3)
    np.testing.assert_array_equal(decoded(png(PIXELS, "RGBA")), PIXELS)


@pytest.mark.parametrize("cut", [4, 20, 60])
def test_damage_and_other_formats_are_refused(cut):
    with pytest.raises(ValueError):
        decoded(png(PIXELS)[:cut])
    with pytest.raises(ValueError):
        decoded(simplejpeg.encode_jpeg(PIXELS, 90, "RGB")[: cut // 2])
    with pytest.raises(ValueError, match="neither JPEG nor PNG"):
        decoded(b"GIF89a" + bytes(cut))


@pytest.mark.parametrize("side", [9_000, 60_000])
def test_a_picture_that_would_fill_the_memory_is_refused(side):
    small = png(np.zeros((1, 1, 3), np.uint8))
    header = b"IHDR" + struct.pack(">II", side, side) + small[24:29]
    huge = small[:12] + header + struct.pack(">I", zlib.crc32(header)) + small[33:]
    with pytest.raises(ValueError, match=r"are the limit|exceeds limit"):
        decoded(huge)


def test_the_order_of_channels():
    np.testing.assert_array_equal(ordered(PIXELS, "rgb"), PIXELS)
    np.testing.assert_array_equal(ordered(PIXELS, "bgr"), PIXELS[:, :, ::-1])
    assert ordered(PIXELS, "bgr").flags.c_contiguous
