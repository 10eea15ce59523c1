"""Depth images as ROS sends them, made small enough for the control process."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobile_vla.ros.messages import TransportError

MOST_COLUMNS = 160
"""Wider images are made smaller, each pixel the nearest return of its block, so that nothing thin is lost."""

_MILLIMETRES, _METRES = "16UC1", "32FC1"


def depth_from_image(message: Any) -> NDArray[np.float32]:
    """Metres along the optical axis, (H, W), at most ``MOST_COLUMNS`` wide; no return is inf.

    From ``sensor_msgs/Image`` as REP-118 has it: 16UC1 in millimetres, 0 for no return, or 32FC1 in metres.
    TransportError for another encoding, and for sizes that contradict one another.
    """
    height, width, step = int(message.height), int(message.width), int(message.step)
    kind = {_MILLIMETRES: "u2", _METRES: "f4"}.get(message.encoding)
    if kind is None:
        raise TransportError(f"a depth image encoded as {message.encoding!r} is not read: send 16UC1 or 32FC1")
    size = np.dtype(kind).itemsize
    data = np.asarray(message.data)
    if height * width == 0 or step < width * size or data.size != height * step:
        raise TransportError(
            f"a depth image of {width}x{height} {message.encoding} with rows of {step} bytes cannot have {data.size}"
        )
    order = ">" if message.is_bigendian else "<"
    rows = np.ascontiguousarray(data.reshape(height, step)[:, : width * size]).view(order + kind)
    metres = rows.astype(np.float32) * (np.float32(1e-3) if kind == "u2" else np.float32(1.0))
    metres[~(np.isfinite(metres) & (metres > 0))] = np.inf
    return _smaller(metres)


def _smaller(depth_m: NDArray[np.float32]) -> NDArray[np.float32]:
    """The nearest of each block of equal sides; the last rows and columns that fill no block are in blocks of inf."""
    block = -(-depth_m.shape[1] // MOST_COLUMNS)
    if block == 1:
        return depth_m
    rows, columns = (-(-side // block) * block for side in depth_m.shape)
    padded = np.full((rows, columns), np.inf, dtype=np.float32)
    padded[: depth_m.shape[0], : depth_m.shape[1]] = depth_m
    return np.asarray(padded.reshape(rows // block, block, columns // block, block).min(axis=(1, 3)))
