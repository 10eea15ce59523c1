"""The truth of one frame, as the columns of a data set: what is in view and where, and how far the way is free."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mobile_vla.core import Colour, Kind
from mobile_vla.sim.camera import SeenObject
from mobile_vla.sim.scene import Scene

MAX_OBJECTS, OBJECT_FIELDS = 8, 8
RANGE_COLUMNS = 24
_KINDS, _COLOURS = list(Kind), list(Colour)


def truth_columns(
    scene: Scene, seen: Sequence[SeenObject], ranges: Any, target: int | None, image_size: tuple[int, int]
) -> dict[str, Any]:
    """Columns ``objects``, ``ranges`` and ``grounding.*`` of a data set; ``image_size`` is (height, width)."""
    height, width = image_size
    objects = np.full((MAX_OBJECTS, OBJECT_FIELDS), -1.0, dtype=np.float32)
    for item in seen:
        left, top, right, bottom = item.box
        placed = scene.objects[item.index]
        objects[item.index] = (
            _KINDS.index(placed.kind),
            _COLOURS.index(placed.colour),
            *(item.centre_uv or (-1.0, -1.0)),
            0.5 * (right - left) * width,
            0.5 * (bottom - top) * height,
            item.visible_fraction,
            item.distance_m,
        )
    columns: dict[str, Any] = {"objects": objects.ravel(), "ranges": np.asarray(ranges, dtype=np.float32)}
    if target is not None:
        item = seen[target]
        columns["grounding.visible"] = item.visible_fraction
        columns["grounding.box"] = np.array(item.box, dtype=np.float32)
        columns["grounding.bearing_rad"] = item.bearing_rad
        columns["grounding.distance_m"] = item.distance_m
    return columns
