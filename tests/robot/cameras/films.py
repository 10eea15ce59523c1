"""Videos of numbered pictures, made by PyAV as the tests need them."""

from fractions import Fraction

import av

from mobile_vla.robot.cameras.drawing import Drawing

WIDTH, HEIGHT = 96, 64
DRAWING = Drawing(WIDTH, HEIGHT, seed=1)


def film(path, count, rate_hz=30, stamps_s=None, codec="mpeg4", options=None):
    """Write ``count`` numbered pictures; ``stamps_s`` are their times, evenly at ``rate_hz`` when None."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate_hz, options=options or {})
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = "rgb24" if codec == "png" else "yuv420p"
        stream.bit_rate = 4_000_000
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(DRAWING.picture(number), format="rgb24")
            stamp_s = number / rate_hz if stamps_s is None else stamps_s[number]
            frame.pts, frame.time_base = round(1000 * stamp_s), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
