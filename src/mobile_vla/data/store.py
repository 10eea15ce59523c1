"""The folder of a data set on disk: where things lie, how a file becomes durable, and the journal that tells the truth.

An episode exists from the moment its file is renamed into ``data/``. The journal, one JSON line an episode, only
lists what is there: each data file carries its own line in its footer, so a journal that lost its end, or all of
itself, is written again from the data. LeRobot's meta files are in turn derived from the journal.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from typing_extensions import Self

from mobile_vla.core import ActionContract, DatasetError
from mobile_vla.data.schema import FORMAT_VERSION

log = logging.getLogger(__name__)

FILES_PER_CHUNK = 1000
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES_PATH = "meta/episodes/chunk-000/file-000.parquet"
INFO_PATH = "meta/info.json"
STATS_PATH = "meta/stats.json"
STATS_STATE_PATH = "meta/stats_state.npz"
TASKS_PATH = "meta/tasks.parquet"
HOUSE_PATH = "meta/mobile_vla.json"
JOURNAL_PATH = "meta/journal.jsonl"
LOCK_PATH = "meta/.lock"
SPLIT_PATH = "meta/split.json"

RECORD_KEY = b"mobile_vla.episode"
"""Where a data file's footer keeps its own journal line."""

Extras = dict[str, str | int | float | bool | None]


@dataclass(frozen=True, slots=True)
class EpisodeRecord:
    """One line of the journal. ``from_index`` counts frames of the whole data set; ``origin`` names a merged shard."""

    episode_index: int
    from_index: int
    length: int
    instruction: str
    task_index: int
    session: int
    extras: Extras
    origin: str = ""
    size_bytes: int = 0
    sha256: str = ""

    @property
    def to_index(self) -> int:
        """One past the last frame."""
        return self.from_index + self.length

    @property
    def chunk_index(self) -> int:
        """Number of the folder under ``data/``."""
        return self.episode_index // FILES_PER_CHUNK

    @property
    def file_index(self) -> int:
        """Number of the file in its folder."""
        return self.episode_index % FILES_PER_CHUNK

    @property
    def path(self) -> str:
        """Of the data file, from the root of the data set."""
        return data_path(self.episode_index)

    def to_json(self) -> str:
        """One line without its end; a NaN among the extras is refused."""
        return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Back from ``to_json``; ValueError or TypeError for anything else."""
        values = json.loads(text)
        if not isinstance(values, dict) or set(values) != set(cls.__dataclass_fields__):
            raise ValueError("not an episode record of this version of mobile-vla")
        record = cls(**values)
        numbers = (record.episode_index, record.from_index, record.length, record.task_index, record.session)
        if not all(type(number) is int and number >= 0 for number in numbers) or not isinstance(record.extras, dict):
            raise ValueError("an episode record with impossible numbers")
        return record


@dataclass(frozen=True, slots=True)
class House:
    """``meta/mobile_vla.json``: what LeRobot's layout has no place for. One entry of ``sessions`` per recording."""

    contract: ActionContract
    image_shape: tuple[int, int, int]
    sessions: tuple[Mapping[str, Any], ...]

    def write(self, root: Path) -> None:
        """Atomically."""
        values = {
            "format": FORMAT_VERSION,
            "contract": self.contract.to_dict(),
            "image_shape": list(self.image_shape),
            "sessions": [dict(session) for session in self.sessions],
        }
        write_json(root / HOUSE_PATH, values)

    @classmethod
    def read(cls, root: Path) -> Self:
        """DatasetError when the file is missing or damaged; ContractMismatchError for a contract we do not know."""
        path = root / HOUSE_PATH
        if not path.is_file():
            raise DatasetError(
                f"{root} holds no {HOUSE_PATH}, so nothing says what its actions mean; "
                "it is not a data set of mobile-vla: give another folder, or record or import one"
            )
        values = read_json(path)
        try:
            if values["format"] != FORMAT_VERSION:
                raise DatasetError(
                    f"{path} has format {values['format']}, this mobile-vla reads {FORMAT_VERSION}: "
                    "use the version that wrote it"
                )
            height, width, channels = (int(size) for size in values["image_shape"])
            contract = ActionContract.from_dict(values["contract"], str(path))
            return cls(contract, (height, width, channels), tuple(values["sessions"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DatasetError(f"{path} is damaged ({error!r}): restore it from a copy") from error

    def require_same(self, other: Self, ours: str, theirs: str) -> None:
        """ContractMismatchError when the contracts differ, DatasetError when the image shapes do."""
        self.contract.require_same(other.contract, ours, theirs)
        if self.image_shape != other.image_shape:
            raise DatasetError(
                f"{ours} holds images of {self.image_shape} and {theirs} of {other.image_shape}: "
                "record into another folder, or set the camera to the same size"
            )


def data_path(episode_index: int) -> str:
    """Of an episode's file, from the root; sorted by name is sorted by number up to a million episodes."""
    return DATA_PATH.format(chunk_index=episode_index // FILES_PER_CHUNK, file_index=episode_index % FILES_PER_CHUNK)


def require_ours_or_empty(root: Path) -> None:
    """DatasetError for a folder that holds files of somebody else; a data set that was only begun counts as empty."""
    begun = (root / LOCK_PATH, root / f"{HOUSE_PATH}.tmp")
    if not (root / HOUSE_PATH).exists() and any(path.is_file() and path not in begun for path in root.rglob("*")):
        raise DatasetError(f"{root} is not empty and no data set of mobile-vla: choose another folder")


def write_durably(path: Path, payload: bytes | memoryview) -> None:
    """Whole or not at all, and on the disk when this returns. DatasetError when the disk refuses."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True)
            sync_folder(path.parent.parent)
        with temporary.open("wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise DatasetError(
            f"could not write {path}: {error.strerror or error}; "
            "make room or choose another folder, what was recorded before is safe"
        ) from error


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """``write_durably`` for JSON; a NaN is refused, since other readers would stumble over it."""
    write_durably(path, json.dumps(values, ensure_ascii=False, allow_nan=False, indent=1).encode())


def read_json(path: Path) -> dict[str, Any]:
    """DatasetError when the file cannot be read or holds no JSON object."""
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read ({error}): restore it from a copy") from error
    if not isinstance(values, dict):
        raise DatasetError(f"{path} holds {type(values).__name__} where an object belongs: restore it from a copy")
    return values


def sync_folder(path: Path) -> None:
    """Make renames within the folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """Hold the folder against other writers; the kernel lets go when the process dies. DatasetError when it is held."""
    path = root / LOCK_PATH
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DatasetError(
                f"another process is writing into {root}: wait for it, or record into a folder of your own "
                "and bring the two together with merge_shards"
            ) from error
        yield


def serialise(table: pa.Table, record: EpisodeRecord) -> memoryview:
    """A data file with its journal line in its footer. JPEG does not shrink further, so nothing is compressed twice."""
    metadata = {**(table.schema.metadata or {}), RECORD_KEY: record.to_json().encode()}
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.replace_schema_metadata(metadata),
        sink,
        compression={column: "NONE" if column.endswith("bytes") else "ZSTD" for column in _leaves(table.schema)},
        use_dictionary=False,
        write_statistics=False,
    )
    return memoryview(sink.getvalue())


def _leaves(schema: pa.Schema) -> list[str]:
    """Parquet's names of the leaf columns."""
    leaves: list[str] = []
    for field in schema:
        if pa.types.is_struct(field.type):
            leaves += [f"{field.name}.{field.type.field(place).name}" for place in range(field.type.num_fields)]
        elif pa.types.is_fixed_size_list(field.type):
            leaves.append(f"{field.name}.list.element")
        else:
            leaves.append(field.name)
    return leaves


def embedded_record(path: Path) -> EpisodeRecord:
    """The journal line in a data file's footer, with the file's size and hash added; DatasetError when damaged."""
    try:
        payload = path.read_bytes()
        metadata = pq.read_schema(pa.BufferReader(payload)).metadata or {}
        values = json.loads(metadata[RECORD_KEY])
        values |= {"size_bytes": len(payload), "sha256": hashlib.sha256(payload).hexdigest()}
        return EpisodeRecord.from_json(json.dumps(values))
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError) as error:
        raise DatasetError(f"{path} does not say which episode it holds ({error})") from error


class Journal:
    """Append-only list of episodes; only the holder of ``exclusive(root)`` may change it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / JOURNAL_PATH
        self.records, good_bytes = read_journal(root)
        if self.path.exists() and self.path.stat().st_size > good_bytes:
            log.warning("%s ended in a torn line, which is taken off", self.path)
            os.truncate(self.path, good_bytes)
        for leftover in (*root.glob("data/*/*.tmp"), *root.glob("meta/**/*.tmp")):
            leftover.unlink()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("ab", buffering=0)
        try:
            sync_folder(self.path.parent)
            self._adopt()
        except BaseException:
            self.close()
            raise

    def append(self, record: EpisodeRecord) -> None:
        """Durable when this returns; DatasetError when the disk refuses."""
        line = record.to_json().encode() + b"\n"
        end = self._file.seek(0, os.SEEK_END)
        try:
            if self._file.write(line) != len(line):
                raise OSError("the disk took only a part of the line")
            os.fsync(self._file.fileno())
        except OSError as error:
            os.truncate(self.path, end)
            raise DatasetError(
                f"could not write {self.path}: {error}; make room, then open the data set again"
            ) from error
        self.records.append(record)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _adopt(self) -> None:
        """Take in files that were committed just before a crash kept their line out of the journal."""
        while (path := self.root / data_path(len(self.records))).exists():
            expected = (len(self.records), self.records[-1].to_index if self.records else 0)
            try:
                record = embedded_record(path)
                if (record.episode_index, record.from_index) != expected:
                    raise DatasetError(f"{path} says that it holds episode {record.episode_index}")
            except DatasetError as error:
                aside = path.with_name(path.name + ".damaged")
                path.replace(aside)
                log.warning("%s; it is not in the journal and was set aside as %s", error, aside)
                return
            log.warning("episode %d was committed but not listed; it is listed now", record.episode_index)
            self.append(record)


def read_journal(root: Path) -> tuple[list[EpisodeRecord], int]:
    """Records, and how many bytes of the file they fill; a torn last line is left out.

    DatasetError when a line before the last is damaged or the lines do not follow one another.
    """
    path = root / JOURNAL_PATH
    payload = path.read_bytes() if path.exists() else b""
    lines = payload.split(b"\n")
    records: list[EpisodeRecord] = []
    good_bytes = 0
    for number, line in enumerate(lines[:-1]):
        try:
            record = EpisodeRecord.from_json(line)
            expected = (len(records), records[-1].to_index if records else 0)
            if (record.episode_index, record.from_index) != expected:
                raise ValueError(f"expected episode and first frame {expected}")
        except (ValueError, TypeError) as error:
            if number == len(lines) - 2:
                break
            raise DatasetError(
                f"line {number + 1} of {path} is damaged ({error}): delete that file, "
                "the next opening writes it again from the data files"
            ) from error
        records.append(record)
        good_bytes += len(line) + 1
    return records, good_bytes


def tasks_of(records: Sequence[EpisodeRecord]) -> list[str]:
    """Instruction texts; the place of each is its ``task_index``."""
    tasks: dict[int, str] = {}
    for record in records:
        tasks.setdefault(record.task_index, record.instruction)
    return [tasks[number] for number in sorted(tasks)]
