"""What the runs of all recipes share: which stages stand, how data are divided, what a checkpoint is made from."""

import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from mobile_vla import __version__
from mobile_vla.checkpoint import is_saved
from mobile_vla.core import DatasetError
from mobile_vla.core.provenance import git_commit, machine
from mobile_vla.data import Dataset, Split, data_hash, load_split, make_split
from mobile_vla.train.steps import damage_of

SPLIT = (0.94, 0.03, 0.03)
"""Shares of the scenes for training, validation and test."""


def origin_of(config: Any, grammar_split: str) -> dict[str, Any]:
    """What the checkpoints of a run are made from; ``data`` grows by the stages. ``config`` is a dataclass."""
    return {
        "config": asdict(config),
        "git_commit": git_commit(),
        "versions": {"mobile_vla": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "machine": machine(),
        "grammar_split": grammar_split,
        "data": {},
    }


def hashes_of(dataset: Dataset) -> dict[str, str]:
    """Of the data and of how they are divided, for ``origin``."""
    return {"data_hash": data_hash(dataset.all_records), "split_hash": divided(dataset).split_hash}


def divided(dataset: Dataset) -> Split:
    """The stored split, or one that is made and stored now."""
    try:
        return load_split(dataset)
    except DatasetError:
        return make_split(dataset, SPLIT)


def stands(folder: Path) -> bool:
    """The checkpoint of a finished stage is there and whole; says so where it is there and is not."""
    if not is_saved(folder):
        return False
    damage = damage_of(folder)
    if damage:
        print(f"{folder} is damaged ({damage}) and made again from the last whole step of its stage", flush=True)
    return not damage
