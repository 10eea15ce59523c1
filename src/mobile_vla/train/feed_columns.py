"""The numbers beside the frames, read whole at the start: checked, and brought to what a network sees of each frame."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobile_vla.core import DatasetError
from mobile_vla.data import Dataset, schema
from mobile_vla.policy.compact import CAMERA_FORWARD_M, NOMINAL_FOV_RAD
from mobile_vla.policy.preprocess import ASPECT
from mobile_vla.train.drive import dead_reckoning

Floats = NDArray[np.float32]

_MEASURED = (schema.STATE, schema.ACTION)
_LABELS = (
    schema.ACTION_CHUNK,
    schema.GROUNDING_VISIBLE,
    schema.GROUNDING_BOX,
    schema.GROUNDING_BEARING,
    schema.GROUNDING_DISTANCE,
    schema.OBJECTS,
    schema.RANGES,
)


@dataclass(frozen=True, slots=True)
class Columns:
    """N frames, episode after episode. What is unknown is NaN, or -1 where whole numbers stand.

    ``velocity``, ``odometry`` (N, 3); ``chunk`` (N, horizon, 3) in shares of the limits; ``status`` int64 (N,);
    ``visible``, ``bearing``, ``distance`` (N,) and ``box`` (N, 4) of the target, in the picture that a network gets.
    The same of up to eight objects: ``kinds``, ``colours`` int8 (N, 8), ``seen``, ``bearings``, ``distances`` (N, 8),
    ``boxes`` (N, 8, 4). ``ranges`` (N, 24): free distance in metres, left to right over the picture.
    """

    velocity: Floats
    odometry: Floats
    chunk: Floats
    status: NDArray[np.int64]
    visible: Floats
    box: Floats
    bearing: Floats
    distance: Floats
    kinds: NDArray[np.int8]
    colours: NDArray[np.int8]
    seen: Floats
    boxes: Floats
    bearings: Floats
    distances: Floats
    ranges: Floats

    @classmethod
    def joined(cls, parts: Sequence["Columns"]) -> "Columns":
        """One after another."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))


def read_columns(dataset: Dataset, episodes: Sequence[int]) -> Columns:
    """Those of these episodes. DatasetError naming data set, episode and frame for a number that cannot be learnt from.

    Visibility and boxes are those of the centred crop that ``policy.preprocess.fit`` takes: what lies beyond its edges
    is not seen. The box of an object lies about the middle of what is seen of it.
    """
    raw = dataset.columns((*_MEASURED, *_LABELS, schema.STATUS), episodes)
    _require_sound(dataset, episodes, raw)
    contract = dataset.contract
    ends = np.cumsum(dataset.lengths(episodes))[:-1]
    odometry = [dead_reckoning(part, contract.frame_rate_hz) for part in np.split(raw[schema.STATE], ends)]
    crop = _crop(dataset.image_shape)
    box, inside = _cropped(raw[schema.GROUNDING_BOX], crop)
    height, width, _ = dataset.image_shape
    objects = raw[schema.OBJECTS].reshape(-1, schema.MAX_OBJECTS, len(schema.OBJECT_FIELDS))
    kinds, colours, u, v, half_u, half_v, seen, distances = (objects[..., i] for i in range(objects.shape[-1]))
    edges = np.stack(
        [(u - half_u) / width, (v - half_v) / height, (u + half_u) / width, (v + half_v) / height], axis=-1
    )
    boxes, boxes_inside = _cropped(edges, crop)
    return Columns(
        velocity=raw[schema.STATE],
        odometry=np.concatenate([np.asarray(part, dtype=np.float32) for part in odometry]),
        chunk=contract.normalise(raw[schema.ACTION_CHUNK].reshape(-1, contract.horizon, len(contract.axes))),
        status=raw[schema.STATUS],
        visible=raw[schema.GROUNDING_VISIBLE] * inside,
        box=box,
        bearing=raw[schema.GROUNDING_BEARING],
        distance=raw[schema.GROUNDING_DISTANCE],
        kinds=kinds.astype(np.int8),
        colours=colours.astype(np.int8),
        seen=seen * boxes_inside,
        boxes=boxes,
        bearings=bearing_of(u / width, distances),
        distances=np.ascontiguousarray(distances),
        ranges=raw[schema.RANGES] if crop[2] == 1.0 else np.full_like(raw[schema.RANGES], np.nan),  # of the whole width
    )


def bearing_of(u: NDArray[np.floating], distance: Floats) -> Floats:
    """As ``policy.compact.bearing_of``: bearing of the base (left positive) of a column (share of the whole image)."""
    tangent = (1.0 - 2.0 * u) * np.tan(NOMINAL_FOV_RAD / 2)
    ahead = np.clip(distance, 0.2, 6.0) * np.cos(np.arctan(tangent))
    bearing: Floats = np.arctan2(tangent * np.maximum(ahead - CAMERA_FORWARD_M, 0.05), ahead).astype(np.float32)
    return bearing


def _crop(image_shape: tuple[int, int, int]) -> tuple[float, float, float, float]:
    """Left, top, width and height of the crop that ``fit`` takes, as shares of the image."""
    height, width, _ = image_shape
    crop_height, crop_width = min(height, width // ASPECT), min(width, height * ASPECT)
    top, left = (height - crop_height) // 2, (width - crop_width) // 2
    return left / width, top / height, crop_width / width, crop_height / height


def _cropped(boxes: Floats, crop: tuple[float, float, float, float]) -> tuple[Floats, Floats]:
    """Boxes (..., 4) as shares of the crop, clipped to it, and the share of each that lies within (1 for an empty one).

    NaN stays; a box of NaN counts as within.
    """
    left, top, width, height = crop
    moved = (boxes - np.array([left, top, left, top])) / np.array([width, height, width, height])
    clipped = np.clip(moved, 0.0, 1.0)
    in_image = np.clip(boxes, 0.0, 1.0)
    before, after = _area(in_image), _area(clipped) * width * height
    inside = np.divide(after, before, out=np.ones_like(before), where=before > 0)
    return clipped.astype(np.float32), np.minimum(inside, 1.0).astype(np.float32)


def _area(boxes: NDArray[np.floating]) -> NDArray[np.float64]:
    sides = boxes[..., 2:].astype(np.float64) - boxes[..., :2]
    return sides[..., 0] * sides[..., 1]


def _require_sound(dataset: Dataset, episodes: Sequence[int], raw: Mapping[str, NDArray[Any]]) -> None:
    for name in (*_MEASURED, *_LABELS):
        measured = name in _MEASURED
        wrong = ~np.isfinite(raw[name]) if measured else np.isinf(raw[name])
        _refuse(dataset, episodes, wrong, raw[name], name, "a finite number" if measured else "a number or NaN")
    status = raw[schema.STATUS]
    known = (status >= schema.UNLABELLED) & (status < len(schema.STATUSES))
    _refuse(dataset, episodes, ~known, status, schema.STATUS, f"one of -1..{len(schema.STATUSES) - 1}")


def _refuse(
    dataset: Dataset, episodes: Sequence[int], wrong: NDArray[np.bool_], values: NDArray[Any], name: str, wanted: str
) -> None:
    rows = np.flatnonzero(wrong.reshape(len(wrong), -1).any(axis=1))
    if not len(rows):
        return
    starts = np.concatenate([[0], np.cumsum(dataset.lengths(episodes))])
    row = int(rows[0])
    place = int(np.searchsorted(starts, row, side="right")) - 1
    value = values[row][wrong[row]].reshape(-1)[0]
    raise DatasetError(
        f"{dataset.root}, episode {episodes[place]}, frame {row - starts[place]}: {name} holds {value} where {wanted} "
        f"belongs, so it cannot be learnt from; `mobile-vla data validate {dataset.root}` lists all that is wrong"
    )
