"""Everything that is wrong with a data set, as a list."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobile_vla.core import ContractMismatchError, DatasetError
from mobile_vla.data import table
from mobile_vla.data.folding import info_of, is_folded
from mobile_vla.data.numbers import impossible, is_survey
from mobile_vla.data.reader import Dataset, Episode, find_damage
from mobile_vla.data.schema import all_features
from mobile_vla.data.split import load_split
from mobile_vla.data.store import (
    EPISODES_PATH,
    INFO_PATH,
    SPLIT_PATH,
    STATS_PATH,
    TASKS_PATH,
    House,
    embedded_record,
    read_journal,
    read_json,
)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong: in which file, in which episode (None for the whole), and how to put it right."""

    path: Path
    episode_index: int | None
    what: str

    def __str__(self) -> str:
        where = str(self.path) if self.episode_index is None else f"episode {self.episode_index} ({self.path})"
        return f"{where}: {self.what}"


def validate(root: str | Path, images: bool = True) -> list[Problem]:
    """All problems of a data set, none for a sound one; nothing is written.

    Checks the meta files against the journal, each data file against its hash, the numbers against the contract and
    the clock and, with ``images``, that each image can be decoded. Whether sound data are also worth training on is a
    matter of ``inspection``.
    """
    root = Path(root)
    try:
        house = House.read(root)
        records, _ = read_journal(root)
    except (DatasetError, ContractMismatchError) as error:
        return [Problem(root, None, str(error))]
    dataset = Dataset(root, house, records, [])
    return [*_meta_problems(dataset), *_episode_problems(dataset, images)]


def _meta_problems(dataset: Dataset) -> Iterator[Problem]:
    root, records = dataset.root, dataset.all_records
    for name in (INFO_PATH, STATS_PATH, TASKS_PATH, EPISODES_PATH):
        if not (root / name).is_file():
            yield Problem(root / name, None, "the file is missing: open the data set to have it written")
    try:
        if (root / INFO_PATH).is_file():
            if not is_folded(root, records):
                yield Problem(
                    root / INFO_PATH, None, "the last recording was cut off before this was written: open the data set"
                )
            elif read_json(root / INFO_PATH)["features"] != _features_of(dataset):
                yield Problem(root / INFO_PATH, None, "its features are not those of this mobile-vla")
        if (root / SPLIT_PATH).is_file():
            load_split(dataset)
    except (DatasetError, KeyError) as error:
        yield Problem(root / "meta", None, str(error))
    listed = {record.path for record in records}
    for path in sorted(root.glob("data/*/*")):
        if str(path.relative_to(root)) not in listed:
            yield Problem(path, None, "the journal does not list this file: record on or open the data set to adopt it")


def _features_of(dataset: Dataset) -> object:
    features = all_features(dataset.contract, dataset.image_shape)
    return info_of(dataset.house, features, dataset.all_records)["features"]


def _episode_problems(dataset: Dataset, images: bool) -> Iterator[Problem]:
    damaged = {damage.episode_index: damage for damage in find_damage(dataset.root, dataset.records, thoroughly=True)}
    for episode in dataset:
        index = episode.record.episode_index
        if index in damaged:
            yield Problem(damaged[index].path, index, damaged[index].what)
            continue
        try:
            for what in _contradictions(episode, dataset):
                yield Problem(episode.path, index, what)
            if images:
                episode.images()
        except DatasetError as error:
            yield Problem(episode.path, index, str(error))


def _contradictions(episode: Episode, dataset: Dataset) -> Iterator[str]:
    """Numbers that cannot be so."""
    record, columns, contract = episode.record, episode.columns, dataset.contract
    embedded = embedded_record(episode.path)
    if (embedded.instruction, embedded.extras) != (record.instruction, record.extras):
        yield "the journal and the file disagree about the instruction or what is noted beside it"
    for name, expected in table.bookkeeping(record, contract.frame_rate_hz).items():
        if not np.array_equal(columns[name], expected):
            yield f"the column {name} does not fit the journal"
    for case in impossible(columns, contract, is_survey(record)):
        yield f"{case.what} (frame {case.frame}: {case.value:g})"
