"""Reading. Numbers come as arrays in one go; images are decoded when they are asked for."""

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from typing_extensions import Self

from mobile_vla.core import ActionContract, DatasetError
from mobile_vla.data import folding, images, table
from mobile_vla.data.schema import CODEBASE_VERSION, IMAGE_FRONT, Feature, all_features
from mobile_vla.data.store import INFO_PATH, EpisodeRecord, House, read_journal, read_json

log = logging.getLogger(__name__)

REMEDY = "restore it from a copy, or go on without that episode from Python (Dataset.open(..., skip_damaged=True))"


@dataclass(frozen=True, slots=True)
class Damage:
    """An episode whose file is not what was written."""

    episode_index: int
    path: Path
    what: str

    def __str__(self) -> str:
        return f"episode {self.episode_index} ({self.path}): {self.what}; {REMEDY}"


@dataclass(frozen=True, slots=True, eq=False)
class ImageBatch:
    """``rows``: int64 (B,), places in the arrays of ``Dataset.columns``. ``images``: uint8 (B, H, W, 3)."""

    rows: NDArray[np.int64]
    images: NDArray[np.uint8]


class Episode:
    """One episode; its columns are arrays over time, its images are decoded on request."""

    def __init__(self, record: EpisodeRecord, path: Path, features: Sequence[Feature]) -> None:
        self.record = record
        self.path = path
        self._features = {feature.name: feature for feature in features}

    def __len__(self) -> int:
        return self.record.length

    @property
    def instruction(self) -> str:
        """What the robot was asked."""
        return self.record.instruction

    @cached_property
    def columns(self) -> dict[str, NDArray[Any]]:
        """Every column but the images, (T,) or (T, width). DatasetError when the file is damaged."""
        return self.read([name for name, feature in self._features.items() if not feature.is_image])

    def __getitem__(self, name: str) -> NDArray[Any]:
        """A column by its name in ``schema``."""
        return self.columns[name]

    def read(self, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Only these columns, straight from the file."""
        content = self._table(list(names))
        try:
            return {name: table.column_of(content, self._features[name]) for name in names}
        except (KeyError, ValueError, pa.ArrowException) as error:
            raise self._damaged(str(error)) from error

    @cached_property
    def jpegs(self) -> list[memoryview]:
        """The images as JPEG files, not decoded; they share one buffer."""
        content = self._table([IMAGE_FRONT])
        try:
            return images.from_column(content.column(IMAGE_FRONT))
        except (KeyError, ValueError, pa.ArrowException) as error:
            raise self._damaged(str(error)) from error

    def images(self, start: int = 0, stop: int | None = None) -> NDArray[np.uint8]:
        """Frames ``start:stop`` as RGB uint8 (T, H, W, 3). DatasetError naming the first frame that is damaged."""
        height, width, channels = self._features[IMAGE_FRONT].shape
        try:
            return images.decode(self.jpegs[start:stop], (height, width, channels), first_frame=start)
        except ValueError as error:
            raise self._damaged(str(error)) from error

    def _table(self, names: list[str]) -> pa.Table:
        try:
            with pq.ParquetFile(self.path, memory_map=True) as file:
                content = file.read(columns=names, use_threads=False)
        except FileNotFoundError as error:
            raise self._damaged("the file is missing") from error
        except (OSError, pa.ArrowException) as error:
            raise self._damaged(f"not a whole parquet file ({error})") from error
        if content.num_rows != self.record.length:
            raise self._damaged(f"it holds {content.num_rows} frames where the journal says {self.record.length}")
        if missing := set(names) - set(content.column_names):
            raise self._damaged(f"it lacks the columns {sorted(missing)}")
        return content

    def _damaged(self, what: str) -> DatasetError:
        return DatasetError(str(Damage(self.record.episode_index, self.path, what)))


class Dataset:
    """A data set opened for reading. ``records`` are the sound episodes; ``damaged`` those left out."""

    def __init__(
        self, root: Path, house: House, all_records: Sequence[EpisodeRecord], damaged: Sequence[Damage]
    ) -> None:
        self.root = root
        self.house = house
        self.all_records = tuple(all_records)
        self.damaged = tuple(damaged)
        left_out = {damage.episode_index for damage in damaged}
        self.records = tuple(record for record in all_records if record.episode_index not in left_out)
        self.features = all_features(house.contract, house.image_shape)
        self._by_index = {record.episode_index: record for record in self.records}

    @classmethod
    def open(cls, root: str | Path, skip_damaged: bool = False) -> Self:
        """Open a folder, mending it first when its last recording was cut off.

        Missing files and files of the wrong size are noticed here, other damage when an episode is read. With
        ``skip_damaged`` every file is compared with its hash, and episodes that differ are left out with a warning.
        DatasetError for anything that is no sound data set of mobile-vla; ContractMismatchError for a contract of
        another version.
        """
        root = Path(root)
        if not root.is_dir():
            raise DatasetError(f"there is no data set at {root}: record one, or give another folder")
        house = House.read(root)
        records, _ = read_journal(root)
        if not folding.is_folded(root, records):
            records = _mended(root, records)
        if (root / INFO_PATH).is_file():
            _check_info(root, house)
        damaged = list(find_damage(root, records, thoroughly=skip_damaged))
        if damaged and not skip_damaged:
            others = f" ({len(damaged) - 1} more are damaged)" if len(damaged) > 1 else ""
            raise DatasetError(f"{damaged[0]}{others}")
        for damage in damaged:
            log.warning("left out: %s", damage)
        return cls(root, house, records, damaged)

    @property
    def contract(self) -> ActionContract:
        """What the numbers of the actions mean."""
        return self.house.contract

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, 3)."""
        return self.house.image_shape

    @property
    def total_frames(self) -> int:
        """Of the sound episodes."""
        return sum(record.length for record in self.records)

    @property
    def episode_indices(self) -> tuple[int, ...]:
        """Numbers of the sound episodes, in order."""
        return tuple(self._by_index)

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Episode]:
        return (self.episode(index) for index in self.episode_indices)

    def episode(self, index: int) -> Episode:
        """By ``episode_index``; DatasetError when there is none or it was left out."""
        if index not in self._by_index:
            known = index < len(self.all_records)
            raise DatasetError(
                f"episode {index} of {self.root} " + ("is damaged and was left out" if known else "does not exist")
            )
        record = self._by_index[index]
        return Episode(record, self.root / record.path, self.features)

    def columns(
        self, names: Sequence[str], episodes: Iterable[int] | None = None, threads: int = 2
    ) -> dict[str, NDArray[Any]]:
        """These columns of the given (by default all) episodes, one after another; images are not touched.

        ``lengths`` tells where one episode ends and the next begins.
        """
        chosen = self._chosen(episodes)
        known = {feature.name: feature for feature in self.features if not feature.is_image}
        for name in names:
            if name not in known:
                raise DatasetError(f"{self.root} has no column {name!r} of numbers; it has {', '.join(known)}")
        with ThreadPoolExecutor(threads) as pool:
            parts = list(pool.map(lambda index: self.episode(index).read(names), chosen))
        result: dict[str, NDArray[Any]] = {}
        for name in names:
            shape = (0,) if known[name].width == 1 else (0, known[name].width)
            empty = np.zeros(shape, dtype=known[name].dtype)
            result[name] = np.concatenate([empty, *(part[name] for part in parts)])
        return result

    def lengths(self, episodes: Iterable[int] | None = None) -> NDArray[np.int64]:
        """Frames of each of the given (by default all) episodes."""
        return np.array([len(self.episode(index)) for index in self._chosen(episodes)], dtype=np.int64)

    def image_batches(
        self, batch_size: int, episodes: Iterable[int] | None = None, threads: int = 2, ahead: int = 8
    ) -> Iterator[ImageBatch]:
        """All images in the order of ``columns``, decoded on ``threads`` threads, ``ahead`` episodes in advance.

        The last batch may be smaller. DatasetError naming the episode and frame that is damaged.
        """
        if batch_size < 1:
            raise ValueError(f"a batch needs at least one image, got {batch_size}")
        pieces: list[NDArray[np.uint8]] = []
        held = row = 0
        for decoded in self._decoded(self._chosen(episodes), threads, ahead):
            pieces.append(decoded)
            held += len(decoded)
            if held < batch_size:
                continue
            joined = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
            full = held - held % batch_size
            for start in range(0, full, batch_size):
                yield ImageBatch(np.arange(row, row + batch_size), joined[start : start + batch_size])
                row += batch_size
            pieces, held = [joined[full:]], held - full
        if held:
            yield ImageBatch(np.arange(row, row + held), np.concatenate(pieces))

    def _decoded(self, chosen: Sequence[int], threads: int, ahead: int) -> Iterator[NDArray[np.uint8]]:
        waiting: deque[Future[NDArray[np.uint8]]] = deque()
        with ThreadPoolExecutor(threads) as pool:
            try:
                for index in chosen:
                    waiting.append(pool.submit(self.episode(index).images))
                    if len(waiting) > ahead:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _chosen(self, episodes: Iterable[int] | None) -> list[int]:
        return list(self.episode_indices if episodes is None else episodes)


def find_damage(root: Path, records: Iterable[EpisodeRecord], thoroughly: bool) -> Iterator[Damage]:
    """Missing files and wrong sizes; ``thoroughly`` also compares the hash of each file."""
    for record in records:
        path = root / record.path
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            yield Damage(record.episode_index, path, "the file is missing")
            continue
        if size != record.size_bytes:
            yield Damage(record.episode_index, path, f"it has {size} bytes where the journal says {record.size_bytes}")
        elif thoroughly and sha256(path.read_bytes()).hexdigest() != record.sha256:
            yield Damage(record.episode_index, path, "its contents are not those that were written")


def _mended(root: Path, records: list[EpisodeRecord]) -> list[EpisodeRecord]:
    """Fold the journal; where that cannot be (someone is recording, a read-only disk) the journal alone serves."""
    try:
        return folding.recover(root)
    except (DatasetError, OSError) as error:
        log.info("%s is read from its journal alone: %s", root, error)
        return records


def _check_info(root: Path, house: House) -> None:
    info = read_json(root / INFO_PATH)
    version, wanted = info.get("codebase_version"), CODEBASE_VERSION
    if version != wanted:
        raise DatasetError(f"{root / INFO_PATH} has codebase_version {version!r}, not {wanted!r}: convert the data set")
    expected = {feature.name: feature.to_info() for feature in all_features(house.contract, house.image_shape)}
    held = info.get("features")
    if held != expected:
        names = sorted(set(held) ^ set(expected)) if isinstance(held, dict) else []
        raise DatasetError(
            f"the features in {root / INFO_PATH} are not those of this mobile-vla (they differ in "
            f"{names or 'shape or type'}): use the version that wrote it, or delete that file to have it written again"
        )
