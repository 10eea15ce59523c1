"""One episode as a parquet table, and back."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mobile_vla.data import images
from mobile_vla.data.schema import (
    EPISODE_INDEX,
    FRAME_INDEX,
    INDEX,
    TASK_INDEX,
    TIMESTAMP,
    Feature,
    timestamps,
)
from mobile_vla.data.store import EpisodeRecord


def bookkeeping(record: EpisodeRecord, frame_rate_hz: float) -> dict[str, NDArray[Any]]:
    """LeRobot's own columns for an episode."""
    frames = np.arange(record.length, dtype=np.int64)
    return {
        TIMESTAMP: timestamps(record.length, frame_rate_hz),
        FRAME_INDEX: frames,
        EPISODE_INDEX: np.full(record.length, record.episode_index, dtype=np.int64),
        INDEX: frames + record.from_index,
        TASK_INDEX: np.full(record.length, record.task_index, dtype=np.int64),
    }


def to_table(features: Sequence[Feature], columns: Mapping[str, NDArray[Any]], jpegs: Sequence[bytes]) -> pa.Table:
    """Columns of shape (T,) or (T, width) and the images beside them, in the order of ``features``."""
    arrays = [images.to_column(jpegs) if feature.is_image else _array(feature, columns) for feature in features]
    hints = {"info": {"features": {feature.name: _hint(feature) for feature in features}}}
    table = pa.Table.from_arrays(arrays, names=[feature.name for feature in features])
    return table.replace_schema_metadata({b"huggingface": json.dumps(hints).encode()})


def column_of(table: pa.Table, feature: Feature) -> NDArray[Any]:
    """(T,) or (T, width); ValueError or ArrowException where the column is missing or of another type."""
    column = table.column(feature.name)
    if column.type != arrow_type(feature):
        raise ValueError(f"column {feature.name} is {column.type}, not {arrow_type(feature)}")
    if column.null_count:
        raise ValueError(f"column {feature.name} has empty cells")
    if feature.width == 1:
        return np.asarray(column.to_numpy())
    parts = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    flat = parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, dtype=feature.dtype), *parts])
    return np.asarray(flat).reshape(table.num_rows, feature.width)


def arrow_type(feature: Feature) -> pa.DataType:
    """How the column is stored: LeRobot has single numbers as scalars and vectors as lists of fixed length."""
    if feature.is_image:
        return images.IMAGE_TYPE
    element = pa.from_numpy_dtype(np.dtype(feature.dtype))
    return element if feature.width == 1 else pa.list_(element, feature.width)


def _array(feature: Feature, columns: Mapping[str, NDArray[Any]]) -> pa.Array:
    values = np.ascontiguousarray(columns[feature.name], dtype=feature.dtype)
    if feature.width == 1:
        return pa.array(values.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), feature.width)


def _hint(feature: Feature) -> dict[str, Any]:
    """So that the ``datasets`` library shows images as images."""
    if feature.is_image:
        return {"_type": "Image"}
    value = {"dtype": feature.dtype, "_type": "Value"}
    return value if feature.width == 1 else {"feature": value, "length": feature.width, "_type": "List"}
