"""A whole training run: survey, read, see, rounds of driving (the expert's first, then the learner's), settle.

Every part is kept under the run's folder; started again after a kill, finished parts are skipped and the one that was
cut off goes on where its last checkpoint stands.
"""

import platform
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mobile_vla import __version__
from mobile_vla.checkpoint import is_saved, load
from mobile_vla.core import ActionContract, DatasetError
from mobile_vla.core.provenance import git_commit, machine
from mobile_vla.data import Dataset, Split, data_hash, load_split, make_split, schema
from mobile_vla.language import Grammar
from mobile_vla.policy.compact import CompactNetwork
from mobile_vla.policy.preprocess import HEIGHT, WIDTH
from mobile_vla.policy.weights import load_network, save_network
from mobile_vla.train.config import TrainConfig
from mobile_vla.train.drive import Drives, drive_loss
from mobile_vla.train.generate import GenerateJob, generate
from mobile_vla.train.loop import LoopConfig, LossFunction, fit
from mobile_vla.train.see import Frames, goal_anchors, name_words, read_loss, see_loss, settle_loss

SURVEY_SEED, DRIVE_SEED = 1_000_000, 2_000_000
"""First scene seeds of the two kinds of data; evaluation draws its scenes below these."""


SPLIT = (0.94, 0.03, 0.03)
"""Shares of the scenes for training, validation and test."""


def train(config: TrainConfig, folder: Path) -> Path:
    """Run or resume the training in ``folder``; returns the folder of the final checkpoint."""
    torch.manual_seed(config.seed)
    torch.set_num_threads(config.threads)
    contract, grammar = ActionContract(), Grammar.load()
    final = folder / "final"
    if is_saved(final):
        return final
    network = CompactNetwork(config.network, contract)
    origin: dict[str, Any] = {
        "config": asdict(config),
        "git_commit": git_commit(),
        "versions": {"mobile_vla": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "machine": machine(),
        "grammar_split": grammar.split_hash,
        "data": {},
    }
    survey = _survey(config, folder, contract, origin)
    if not is_saved(folder / "see"):
        reading = partial(read_loss, network, grammar, config.read.batch)
        _fit(network, [network.text], reading, config.read, folder / "read.parts", config.seed, "read")
        wordings = name_words(network, grammar, np.random.default_rng(config.seed))
        seeing = partial(see_loss, network, load_frames(survey), wordings, config.see.batch)
        parts = [network.eye, network.query, network.nothing]
        _fit(network, parts, seeing, config.see, folder / "see.parts", config.seed, "see")
        save_network(folder / "see", network, origin)
    last = folder / f"drive-{config.drive_rounds}"
    if not is_saved(last):
        _drive_rounds(config, folder, contract, grammar, origin)
    network = load_network(last)
    anchors = goal_anchors(network, grammar, np.random.default_rng(config.seed))
    settling = partial(settle_loss, network, anchors, grammar, config.settle.batch)
    _fit(network, [network.text], settling, config.settle, folder / "settle.parts", config.seed, "settle")
    save_network(final, network, origin | {"data": load(last).origin["data"]})
    return final


def _drive_rounds(
    config: TrainConfig, folder: Path, contract: ActionContract, grammar: Grammar, origin: dict[str, Any]
) -> None:
    drives = Drives()
    previous = folder / "see"
    for number in range(config.drive_rounds + 1):
        name = f"drive-{number}"
        network = load_network(previous)
        policy = None if number == 0 else previous
        first_seed = DRIVE_SEED + number * config.drive_episodes
        job = GenerateJob("drive", first_seed, config.drive_episodes, 0, config.lanes, config.max_frames, policy)
        dataset = _dataset(job, folder / "data" / name, contract, config, origin)
        drives.add(dataset, _split(dataset).train, network)
        print(f"{name}: {len(drives)} episodes, {drives.frames} frames to learn from", flush=True)
        if not is_saved(folder / name):
            loop = config.final if number == config.drive_rounds else config.drive
            loss = partial(drive_loss, network, drives, grammar, loop.batch)
            parts = [network.enter, network.memory, network.head]
            _fit(network, parts, loss, loop, folder / f"{name}.parts", config.seed + number, name)
            save_network(folder / name, network, origin)
        previous = folder / name


def load_frames(dataset: Dataset) -> Frames:
    """The training split of a survey, decoded into memory."""
    episodes = _split(dataset).train
    columns = dataset.columns([schema.OBJECTS, schema.RANGES], episodes)
    pixels = np.empty((len(columns[schema.RANGES]), HEIGHT, WIDTH, 3), dtype=np.uint8)
    for batch in dataset.image_batches(1024, episodes):
        pixels[batch.rows] = batch.images
    objects = columns[schema.OBJECTS].reshape(len(pixels), schema.MAX_OBJECTS, len(schema.OBJECT_FIELDS))
    return Frames(pixels, objects.astype(np.float32), columns[schema.RANGES].astype(np.float32))


def _survey(config: TrainConfig, folder: Path, contract: ActionContract, origin: dict[str, Any]) -> Dataset:
    job = GenerateJob("survey", SURVEY_SEED, config.survey_scenes, config.survey_poses)
    return _dataset(job, folder / "data" / "survey", contract, config, origin)


def _dataset(
    job: GenerateJob, root: Path, contract: ActionContract, config: TrainConfig, origin: dict[str, Any]
) -> Dataset:
    generate(job, root, contract, config.processes)
    dataset = Dataset.open(root)
    contract.require_same(dataset.contract, "this training", str(root))
    origin["data"][root.name] = {"data_hash": data_hash(dataset.all_records), "split_hash": _split(dataset).split_hash}
    return dataset


def _split(dataset: Dataset) -> Split:
    try:
        return load_split(dataset)
    except DatasetError:
        return make_split(dataset, SPLIT)


def _fit(
    network: CompactNetwork,
    parts: list[nn.Module],
    loss: LossFunction,
    loop: LoopConfig,
    folder: Path,
    seed: int,
    name: str,
) -> None:
    network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for part in parts:
        part.train()
    parameters = [parameter for part in parts for parameter in part.parameters()]
    fit(network, parameters, loss, loop, folder, seed, name)
    network.eval()
