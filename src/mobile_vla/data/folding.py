"""LeRobot's meta files, made from the journal. They can be made again at any time."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mobile_vla import __version__
from mobile_vla.data import images, table
from mobile_vla.data.schema import CODEBASE_VERSION, NUMBERED_BY_PLACE, Feature, all_features
from mobile_vla.data.stats import ImageHistogram, RunningStats
from mobile_vla.data.store import (
    DATA_PATH,
    EPISODES_PATH,
    FILES_PER_CHUNK,
    INFO_PATH,
    STATS_PATH,
    TASKS_PATH,
    EpisodeRecord,
    House,
    Journal,
    exclusive,
    read_json,
    tasks_of,
    write_durably,
    write_json,
)

log = logging.getLogger(__name__)


def fold(root: Path, house: House, records: Sequence[EpisodeRecord], stats: RunningStats) -> None:
    """Write LeRobot's meta files; ``info.json`` comes last, since its totals tell that the others are done."""
    features = all_features(house.contract, house.image_shape)
    stats.save(root)
    write_json(root / STATS_PATH, stats.summary(records))
    write_durably(root / TASKS_PATH, _parquet(_tasks_table(tasks_of(records))))
    write_durably(root / EPISODES_PATH, _parquet(_episodes_table(records)))
    write_json(root / INFO_PATH, info_of(house, features, records))


def info_of(house: House, features: Sequence[Feature], records: Sequence[EpisodeRecord]) -> dict[str, Any]:
    """The contents of ``meta/info.json``."""
    frame_rate_hz = house.contract.frame_rate_hz
    return {
        "codebase_version": CODEBASE_VERSION,
        "robot_type": "mobile_base",
        "total_episodes": len(records),
        "total_frames": records[-1].to_index if records else 0,
        "total_tasks": len(tasks_of(records)),
        "chunks_size": FILES_PER_CHUNK,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": int(frame_rate_hz) if frame_rate_hz.is_integer() else frame_rate_hz,
        "splits": {"train": f"0:{len(records)}"},
        "data_path": DATA_PATH,
        "video_path": None,
        "features": {feature.name: feature.to_info() for feature in features},
        "written_by": f"mobile-vla {__version__}",
    }


def is_folded(root: Path, records: Sequence[EpisodeRecord]) -> bool:
    """LeRobot's meta files tell of as many episodes as the journal."""
    if not (root / INFO_PATH).is_file():
        return False
    return read_json(root / INFO_PATH).get("total_episodes") == len(records)


def recover(root: Path) -> list[EpisodeRecord]:
    """After a crash: mend the journal and fold it. DatasetError when another process is writing there."""
    with exclusive(root):
        house = House.read(root)
        journal = Journal(root)
        try:
            fold(root, house, journal.records, caught_up(root, house, journal.records))
        finally:
            journal.close()
        return journal.records


def caught_up(root: Path, house: House, records: Sequence[EpisodeRecord]) -> RunningStats:
    """Kept statistics with the episodes added that they lack; damaged episodes are left out, with a warning."""
    features = all_features(house.contract, house.image_shape)
    stats = RunningStats.load(root, features)
    if stats.episodes > len(records):
        stats = RunningStats(features)
    for record in records[stats.episodes :]:
        try:
            content = pq.read_table(root / record.path, memory_map=True)
            columns = {
                feature.name: table.column_of(content, feature)
                for feature in features
                if not feature.is_image and feature.name not in NUMBERED_BY_PLACE
            }
            histogram = histogram_of(content, stats.image_name, house.image_shape)
        except (OSError, pa.ArrowException, KeyError, ValueError) as error:
            log.warning("%s is damaged and left out of the statistics: %s", root / record.path, error)
            stats.episodes += 1
            continue
        stats.update(columns, histogram)
    return stats


def histogram_of(content: pa.Table, image_name: str, shape: tuple[int, int, int]) -> ImageHistogram:
    """Of the sampled frames of a stored episode."""
    histogram = ImageHistogram()
    for frame_index, jpeg in enumerate(images.from_column(content.column(image_name))):
        if ImageHistogram.samples(frame_index):
            histogram.add(frame_index, images.decode([jpeg], shape, frame_index)[0])
    return histogram


def _tasks_table(tasks: Sequence[str]) -> pa.Table:
    """As pandas would write a frame of ``task_index`` indexed by the text, without pandas."""
    content = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks, pa.string())})
    columns = [
        {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64"},
        {"name": "task", "field_name": "task", "pandas_type": "unicode", "numpy_type": "object"},
    ]
    hints = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [{**column, "metadata": None} for column in columns],
        "creator": {"library": "mobile-vla", "version": __version__},
        "pandas_version": "2.0.0",
    }
    return content.replace_schema_metadata({b"pandas": json.dumps(hints).encode()})


def _episodes_table(records: Sequence[EpisodeRecord]) -> pa.Table:
    def whole(values: list[int]) -> pa.Array:
        return pa.array(np.array(values, dtype=np.int64))

    zeros = [0] * len(records)
    return pa.table(
        {
            "episode_index": whole([record.episode_index for record in records]),
            "tasks": pa.array([[record.instruction] for record in records], pa.list_(pa.string())),
            "length": whole([record.length for record in records]),
            "data/chunk_index": whole([record.chunk_index for record in records]),
            "data/file_index": whole([record.file_index for record in records]),
            "dataset_from_index": whole([record.from_index for record in records]),
            "dataset_to_index": whole([record.to_index for record in records]),
            "meta/episodes/chunk_index": whole(zeros),
            "meta/episodes/file_index": whole(zeros),
            "mobile_vla": pa.array([record.to_json() for record in records], pa.string()),
        }
    )


def _parquet(content: pa.Table) -> memoryview:
    sink = pa.BufferOutputStream()
    pq.write_table(content, sink, compression="ZSTD")
    return memoryview(sink.getvalue())
