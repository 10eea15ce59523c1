"""The names of everything a data set holds, in one place, and the shape and type that go with each name.

``observation.*`` and ``action`` are measured or done; every other column that is not LeRobot's own is a label, which a
recording without an expert leaves empty (NaN, or -1 where whole numbers stand).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobile_vla.core import AXES, ActionContract, Colour, Kind, Status

CODEBASE_VERSION = "v3.0"
FORMAT_VERSION = 1
"""Of what mobile-vla adds to LeRobot's layout: ``meta/mobile_vla.json`` and the journal."""

IMAGE_FRONT = "observation.images.front"
STATE = "observation.state"
ACTION = "action"
ACTION_CHUNK = "action.chunk"
STATUS = "status"
GROUNDING_VISIBLE = "grounding.visible"
GROUNDING_BOX = "grounding.box"
GROUNDING_BEARING = "grounding.bearing_rad"
GROUNDING_DISTANCE = "grounding.distance_m"
OBJECTS = "objects"
RANGES = "ranges"
CAPTURE_NS = "capture_ns"
SEQUENCE = "sequence"

TIMESTAMP = "timestamp"
FRAME_INDEX = "frame_index"
EPISODE_INDEX = "episode_index"
INDEX = "index"
TASK_INDEX = "task_index"

NUMBERED_BY_PLACE = (EPISODE_INDEX, INDEX, TASK_INDEX)
"""Columns that follow from where an episode stands in its data set, and so change when it moves to another."""

EXTRA_LANGUAGE = "language"
EXTRA_PHRASING = "phrasing"  # "train" or "held_out": which split of the grammar the words come from
EXTRA_SCENARIO = "scenario"
EXTRA_SCENE_SEED = "scene_seed"
EXTRA_GOAL_MODE = "goal_mode"
EXTRA_GOAL_KIND = "goal_kind"
EXTRA_GOAL_COLOUR = "goal_colour"
EXTRA_GOAL_SIDE = "goal_side"
EXTRA_DRIVER = "driver"  # "expert", "policy" or a person
EXTRA_OUTCOME = "outcome"

STATUSES: tuple[Status, ...] = tuple(Status)
"""The number in ``status`` is a place in this tuple; so with ``KINDS`` and ``COLOURS`` in ``objects``."""
KINDS: tuple[Kind, ...] = tuple(Kind)
COLOURS: tuple[Colour, ...] = tuple(Colour)
UNLABELLED = -1

MAX_OBJECTS = 8
OBJECT_FIELDS = (
    "kind",
    "colour",
    "u_pixel",
    "v_pixel",
    "half_width_pixel",
    "half_height_pixel",
    "visible_fraction",
    "distance_m",
)
RANGE_COLUMNS = 24


@dataclass(frozen=True, slots=True)
class Feature:
    """A column: ``shape`` per frame, ``dtype`` in LeRobot's words, ``default`` where a frame may leave it out."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] | None = None
    default: float | None = None
    finite: bool = False

    @property
    def width(self) -> int:
        """Numbers in one frame."""
        return int(np.prod(self.shape))

    @property
    def is_image(self) -> bool:
        """The column holds JPEG files."""
        return self.dtype == "image"

    def to_info(self) -> dict[str, Any]:
        """As ``meta/info.json`` has it."""
        return {
            "dtype": self.dtype,
            "shape": list(self.shape),
            "names": None if self.names is None else list(self.names),
        }


def _vector(name: str, names: tuple[str, ...], default: float | None = None, finite: bool = False) -> Feature:
    return Feature(name, "float32", (len(names),), names, default, finite)


def _scalar(name: str, dtype: str, default: float | None = None) -> Feature:
    return Feature(name, dtype, (1,), None, default)


def recorded_features(contract: ActionContract, image_shape: tuple[int, int, int]) -> tuple[Feature, ...]:
    """What the caller of ``EpisodeWriter`` gives for each frame; ``image_shape`` is (height, width, 3)."""
    nan = float("nan")
    chunk = tuple(f"{axis}_{row}" for row in range(contract.horizon) for axis in contract.axes)
    objects = tuple(f"{field}_{place}" for place in range(MAX_OBJECTS) for field in OBJECT_FIELDS)
    return (
        Feature(IMAGE_FRONT, "image", image_shape, ("height", "width", "channels")),
        _vector(STATE, AXES, finite=True),
        _vector(ACTION, contract.axes, finite=True),
        _vector(ACTION_CHUNK, chunk, nan),
        _scalar(STATUS, "int64", UNLABELLED),
        _scalar(GROUNDING_VISIBLE, "float32", nan),
        _vector(GROUNDING_BOX, ("left", "top", "right", "bottom"), nan),
        _scalar(GROUNDING_BEARING, "float32", nan),
        _scalar(GROUNDING_DISTANCE, "float32", nan),
        _vector(OBJECTS, objects, UNLABELLED),
        _vector(RANGES, tuple(f"column_{column}" for column in range(RANGE_COLUMNS)), nan),
        _scalar(CAPTURE_NS, "int64"),
        _scalar(SEQUENCE, "int64"),
    )


BOOKKEEPING = (
    _scalar(TIMESTAMP, "float32"),
    _scalar(FRAME_INDEX, "int64"),
    _scalar(EPISODE_INDEX, "int64"),
    _scalar(INDEX, "int64"),
    _scalar(TASK_INDEX, "int64"),
)
"""LeRobot's own columns, which the writer fills in."""


def all_features(contract: ActionContract, image_shape: tuple[int, int, int]) -> tuple[Feature, ...]:
    """Every column of a data file, in order."""
    return (*recorded_features(contract, image_shape), *BOOKKEEPING)


def timestamps(length: int, frame_rate_hz: float) -> NDArray[np.float32]:
    """LeRobot's synthetic time, ``frame_index / fps`` in seconds, shape (length,)."""
    return (np.arange(length, dtype=np.float64) / frame_rate_hz).astype(np.float32)
