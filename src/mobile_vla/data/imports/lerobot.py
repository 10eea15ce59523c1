"""LeRobot data sets v3.0, read without LeRobot: numbers from parquet, pictures from parquet or video."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mobile_vla.core import DatasetError
from mobile_vla.data.imports.contents import Contents, Part, Role, SourceEpisode
from mobile_vla.data.imports.mapping import ImportMapping
from mobile_vla.data.imports.motion import (
    before,
    even_chunks,
    require_even_rates,
    require_finite,
    synthetic_ns,
    taken,
    velocities,
    within,
)
from mobile_vla.data.imports.pictures import decoded, ordered
from mobile_vla.data.schema import CODEBASE_VERSION
from mobile_vla.data.store import INFO_PATH, TASKS_PATH, read_json
from mobile_vla.robot.cameras.decoding import rgb_of

EPISODES_GLOB = "meta/episodes/*/*.parquet"
EPISODE = "episode_index"


@dataclass(frozen=True, slots=True)
class _Row:
    """One row of ``meta/episodes``."""

    number: int
    length: int
    tasks: tuple[str, ...]
    values: Mapping[str, Any]


class LerobotSource:
    """The data set at ``path``. DatasetError when it is none of version v3.0, or is damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not (path / INFO_PATH).is_file():
            raise DatasetError(f"{path} has no {INFO_PATH}: give the folder of a LeRobot data set")
        self._info = read_json(path / INFO_PATH)
        version = self._info.get("codebase_version")
        if version != CODEBASE_VERSION:
            raise DatasetError(
                f"{path} is a LeRobot data set {version}, and {CODEBASE_VERSION} is read: convert it by LeRobot's own "
                "lerobot.datasets.v30.convert_dataset_v21_to_v30"
            )
        with _readable(path / INFO_PATH):
            self._features: dict[str, dict[str, Any]] = dict(self._info["features"])
            self._fps = float(self._info["fps"])
            self._rows = self._read_rows()
            parts = tuple(_part(name, feature) for name, feature in self._features.items())
        if (path / TASKS_PATH).is_file():
            parts += (Part("task", Role.TEXT, f"{len(_tasks(path / TASKS_PATH))} instructions"),)
        robot = str(self._info.get("robot_type"))
        self.contents = Contents("lerobot", path, len(self._rows), parts, self._fps, {"robot_type": robot})
        self._numbers: tuple[Path, dict[str, NDArray[Any]]] | None = None

    def episodes(self, mapping: ImportMapping) -> Iterator[SourceEpisode]:
        """In their order. ConfigError when the rates do not fit, DatasetError for what cannot be imported."""
        require_even_rates(mapping)
        for row in self._rows:
            yield self._episode(row, mapping)

    def _episode(self, row: _Row, mapping: ImportMapping) -> SourceEpisode:
        name = f"{self.path.name} episode {row.number}"
        columns = self._columns(row, [part.name for part in self.contents.of(Role.NUMBERS)])
        actions, clipped = within(name, velocities(mapping.actions, columns, row.length), mapping)
        frames = taken(row.length, mapping.every)
        if mapping.states is None:
            states = before(actions, frames)
        else:
            measured = velocities(mapping.states, columns, row.length)
            require_finite(name, "state", measured)
            states = measured[frames].astype(np.float32)
        return SourceEpisode(
            name=name,
            key=f"lerobot episode {row.number} {_digest(row, columns)}",
            instruction=self._instruction(row, mapping, name),
            capture_ns=synthetic_ns(frames, self._fps),
            sequence=frames,
            actions=actions[frames].astype(np.float32),
            chunks=even_chunks(actions, frames, mapping),
            states=states,
            extras={"import.capture": f"synthetic, frame number / {self._fps:g} Hz"},
            pictures=lambda: self._pictures(row, mapping, name),
            clipped=clipped,
        )

    def _instruction(self, row: _Row, mapping: ImportMapping, name: str) -> str:
        if mapping.words.origin == "text":
            return mapping.words.value
        if len(set(row.tasks)) != 1:
            raise DatasetError(
                f"{name} has {len(set(row.tasks))} tasks, and an episode of ours has one instruction: write "
                "one for all as `instruction: {text: ...}`, or split the episode in the source"
            )
        return mapping.words.instruction(row.tasks[0], name)

    def _read_rows(self) -> list[_Row]:
        rows = []
        for path in sorted(self.path.glob(EPISODES_GLOB)):
            with _readable(path), pq.ParquetFile(path) as file:
                names = [name for name in file.schema_arrow.names if not name.startswith("stats/")]
                for values in file.read(columns=names).to_pylist():
                    tasks = tuple(str(task) for task in values["tasks"])
                    rows.append(_Row(int(values[EPISODE]), int(values["length"]), tasks, values))
        if not rows:
            raise DatasetError(
                f"{self.path} lists no episode in {EPISODES_GLOB}: it is empty, or its recording was never finished"
            )
        return sorted(rows, key=lambda row: row.number)

    def _data_file(self, row: _Row) -> Path:
        return self._file("data_path", row, "data", {})

    def _file(self, template: str, row: _Row, prefix: str, more: Mapping[str, str]) -> Path:
        """Where info.json says that the episode's part lies; never outside the data set."""
        try:
            chunk, file = int(row.values[f"{prefix}/chunk_index"]), int(row.values[f"{prefix}/file_index"])
            relative = str(self._info[template]).format(chunk_index=chunk, file_index=file, **more)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise DatasetError(f"{self.path} does not say where episode {row.number} lies ({error!r})") from error
        place = PurePosixPath(relative)
        if place.is_absolute() or ".." in place.parts:
            raise DatasetError(f"{self.path / INFO_PATH} has a {template} that leads out of the data set: {relative}")
        return self.path / place

    def _columns(self, row: _Row, names: list[str]) -> dict[str, NDArray[Any]]:
        """(length, numbers) of each of ``names``."""
        path = self._data_file(row)
        if self._numbers is None or self._numbers[0] != path or not set(names) <= set(self._numbers[1]):
            with _readable(path), pq.ParquetFile(path, memory_map=True) as file:
                content = file.read(columns=[EPISODE, *names])
                self._numbers = path, {name: _matrix(content.column(name)) for name in (EPISODE, *names)}
        held = self._numbers[1]
        ours = np.flatnonzero(held[EPISODE][:, 0] == row.number)
        if len(ours) != row.length:
            raise DatasetError(
                f"{path} holds {len(ours)} frames of episode {row.number}, not {row.length}: it is damaged"
            )
        return {name: held[name][ours] for name in names}

    def _pictures(self, row: _Row, mapping: ImportMapping, name: str) -> Iterator[NDArray[np.uint8]]:
        stored = self._features[mapping.camera]["dtype"] == "video"
        pictures = self._from_video(row, mapping, name) if stored else self._from_parquet(row, mapping, name)
        for pixels in pictures:
            yield ordered(pixels, mapping.channel_order)

    def _from_parquet(self, row: _Row, mapping: ImportMapping, name: str) -> Iterator[NDArray[np.uint8]]:
        """One row group at a time: LeRobot makes one an episode, so that nothing of another is read."""
        path, frame = self._data_file(row), 0
        with _readable(path), pq.ParquetFile(path, memory_map=True) as file:
            for group in range(file.num_row_groups):
                numbers = file.read_row_group(group, columns=[EPISODE]).column(0).to_numpy()
                ours = np.flatnonzero(numbers == row.number)
                if not len(ours):
                    continue
                column = file.read_row_group(group, columns=[mapping.camera]).column(0).combine_chunks()
                for place in ours.tolist():
                    if frame % mapping.every == 0:
                        yield _decoded(column[place].as_py(), name, frame)
                    frame += 1

    def _from_video(self, row: _Row, mapping: ImportMapping, name: str) -> Iterator[NDArray[np.uint8]]:
        """Frame k of the episode is shown from ``from_timestamp + k / fps`` on."""
        prefix = f"videos/{mapping.camera}"
        path = self._file("video_path", row, prefix, {"video_key": mapping.camera})
        begin, frame = float(row.values[f"{prefix}/from_timestamp"]), 0
        half = 0.5 / self._fps
        with _readable(path), av.open(str(path)) as container:
            stream = container.streams.video[0]
            container.seek(max(0, int((begin - half) / stream.time_base)), stream=stream)
            for picture in container.decode(stream):
                if picture.time is None or picture.time < begin - half:
                    continue
                if abs(picture.time - begin - frame / self._fps) > half:
                    break
                if frame % mapping.every == 0:
                    yield rgb_of(picture)
                frame += 1
                if frame == row.length:
                    return
        raise DatasetError(f"{path} lacks frame {frame} of {name}: it is cut off, or was recorded at another rate")


def _part(name: str, feature: Mapping[str, Any]) -> Part:
    dtype, shape = str(feature["dtype"]), tuple(int(size) for size in feature["shape"])
    what = f"{dtype} {'x'.join(map(str, shape))}"
    if dtype in ("image", "video"):
        return Part(name, Role.CAMERA, what)
    bookkeeping = name in ("timestamp", "frame_index", EPISODE, "index", "task_index")
    if bookkeeping or len(shape) != 1 or not dtype.startswith(("float", "int")):
        return Part(name, Role.OTHER, what)
    names = _flat(feature.get("names"))
    return Part(name, Role.NUMBERS, what, names if len(names) == shape[0] else tuple(map(str, range(shape[0]))))


def _digest(row: _Row, columns: Mapping[str, NDArray[Any]]) -> str:
    """Of all that an episode holds but its pictures, so that a data set may grow between two imports."""
    digest = hashlib.sha256(json.dumps([row.tasks, row.length]).encode())
    for name, values in columns.items():
        digest.update(name.encode() + np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()[:24]


def _flat(names: Any) -> tuple[str, ...]:
    """A list of names, or a dict of one such list, as older robots have it."""
    if isinstance(names, Mapping) and len(names) == 1:
        names = next(iter(names.values()))
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _tasks(path: Path) -> list[str]:
    """The texts; pandas keeps them as an index, under whatever name."""
    with _readable(path):
        content = pq.read_table(path)
        return [
            str(text) for name in content.column_names if name != "task_index" for text in content[name].to_pylist()
        ]


def _matrix(column: pa.ChunkedArray) -> NDArray[Any]:
    """(T, numbers)."""
    if column.null_count:
        raise ValueError("a column has empty cells")
    length = len(column)
    while (
        pa.types.is_list(column.type) or pa.types.is_large_list(column.type) or pa.types.is_fixed_size_list(column.type)
    ):
        column = pa.chunked_array([chunk.flatten() for chunk in column.chunks], type=column.type.value_type)
    return np.asarray(column.to_numpy()).reshape(length, -1)


def _decoded(cell: Any, name: str, frame: int) -> NDArray[np.uint8]:
    data = cell.get("bytes") if isinstance(cell, dict) else None
    if not data:
        raise DatasetError(f"{name}, frame {frame}: its picture is not in the parquet file: export the data set again")
    try:
        return decoded(data)
    except ValueError as error:
        raise DatasetError(f"{name}, frame {frame}: its picture cannot be read: {error}") from error


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """What goes wrong while reading names the file."""
    try:
        yield
    except FileNotFoundError as error:
        raise DatasetError(f"{path} is missing: copy the data set again") from error
    except (OSError, pa.ArrowException, av.FFmpegError, KeyError, TypeError, ValueError, IndexError) as error:
        raise DatasetError(f"{path} cannot be read ({error}): copy the data set again") from error
