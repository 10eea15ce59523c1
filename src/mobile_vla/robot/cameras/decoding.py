"""From PyAV's frames to our pixels."""

import av
import numpy as np
from numpy.typing import NDArray


def rgb_of(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """RGB uint8 (H, W, 3), by swscale.

    Colours of frames that do not say what they are count as BT.601 in the limited range, as V4L2 and most streams mean.
    """
    return np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
