"""Train, validation and test: by scene, so that no scene is on both sides, and stored with the data it divides.

The place of an episode follows from a hash of its scene seed alone, so recording more never moves what is there.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from typing_extensions import Self

from mobile_vla.core import DatasetError
from mobile_vla.data.reader import Dataset
from mobile_vla.data.schema import EXTRA_SCENE_SEED
from mobile_vla.data.store import SPLIT_PATH, EpisodeRecord, read_json, write_json


@dataclass(frozen=True, slots=True)
class Split:
    """Episode numbers of the three parts, for the data set with ``data_hash``."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]
    fractions: tuple[float, float, float]
    salt: str
    data_hash: str

    @property
    def split_hash(self) -> str:
        """SHA-256 over who is where and in which data; it goes into every checkpoint and report."""
        return _digest(asdict(self))

    def to_dict(self) -> dict[str, Any]:
        """For JSON, with the hash."""
        return {**asdict(self), "split_hash": self.split_hash}

    @classmethod
    def from_dict(cls, values: dict[str, Any], source: str) -> Self:
        """Back from ``to_dict``; DatasetError naming ``source`` when the hash does not fit the contents."""
        try:
            split = cls(
                tuple(values["train"]),
                tuple(values["validation"]),
                tuple(values["test"]),
                tuple(values["fractions"]),
                values["salt"],
                values["data_hash"],
            )
            fits = split.split_hash == values["split_hash"]
        except (KeyError, TypeError) as error:
            raise DatasetError(f"{source} is no split ({error!r}): make it again") from error
        if not fits:
            raise DatasetError(f"{source} was changed after it was made: make it again")
        return split


def make_split(
    dataset: Dataset, fractions: tuple[float, float, float] = (0.8, 0.1, 0.1), salt: str = "mobile-vla"
) -> Split:
    """Divide the data set and store the split as ``meta/split.json``, in place of an older one.

    ``fractions`` of the scenes go to train, validation and test, on average: few scenes divide unevenly. An episode
    without ``scene_seed`` counts as a scene of its own. DatasetError for fractions that are no shares of 1.
    """
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1.0) > 1e-9:
        raise DatasetError(f"a split needs three shares of 1 for train, validation and test, got {fractions}")
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    for record in dataset.all_records:
        place = _place(_scene_of(record), salt)
        part = 0 if place < fractions[0] else 1 if place < fractions[0] + fractions[1] else 2
        parts[part].append(record.episode_index)
    split = Split(tuple(parts[0]), tuple(parts[1]), tuple(parts[2]), fractions, salt, data_hash(dataset.all_records))
    write_json(dataset.root / SPLIT_PATH, split.to_dict())
    return split


def require_undivided(dataset: Dataset) -> None:
    """DatasetError when the data set is divided already, whether the split still fits it or not."""
    path = dataset.root / SPLIT_PATH
    if path.is_file():
        raise DatasetError(
            f"{dataset.root} is divided already, and checkpoints name that split by its hash: "
            f"say --again to replace {path}"
        )


def tally(dataset: Dataset, split: Split, extra: str) -> dict[str, tuple[int, int, int]]:
    """Episodes in train, validation and test for each value of ``extra``, the most frequent first."""
    counts: dict[str, list[int]] = {}
    for place, members in enumerate((split.train, split.validation, split.test)):
        for index in members:
            value = dataset.all_records[index].extras.get(extra)
            counts.setdefault("none noted" if value is None else str(value), [0, 0, 0])[place] += 1
    ranked = sorted(counts.items(), key=lambda item: (-sum(item[1]), item[0]))
    return {value: (train, validation, test) for value, (train, validation, test) in ranked}


def load_split(dataset: Dataset) -> Split:
    """The stored split; DatasetError when there is none, it was altered, or the data has changed since."""
    path = dataset.root / SPLIT_PATH
    if not path.is_file():
        raise DatasetError(f"{dataset.root} is not divided into train, validation and test yet: call make_split")
    split = Split.from_dict(read_json(path), str(path))
    if split.data_hash != data_hash(dataset.all_records):
        raise DatasetError(
            f"{path} was made for other data than {dataset.root} holds now: make it again "
            "(episodes keep their part, new ones are added)"
        )
    return split


def data_hash(records: Sequence[EpisodeRecord]) -> str:
    """SHA-256 over name, size and hash of every data file, as the journal has them."""
    return _digest([[record.path, record.size_bytes, record.sha256] for record in records])


def _scene_of(record: EpisodeRecord) -> str:
    seed = record.extras.get(EXTRA_SCENE_SEED)
    return f"scene {seed}" if seed is not None else f"episode {record.sha256}"


def _place(scene: str, salt: str) -> float:
    """Of a scene in 0..1, even over scenes."""
    digest = hashlib.sha256(f"{salt}:{scene}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
