"""A whole training run: survey, read, see, rounds of driving (the expert's first, then the learner's), settle.

Every part is kept under the run's folder; started again after a kill, finished parts are skipped and the one that was
cut off goes on where its last whole checkpoint stands. A finished part that was damaged since is made again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from mobile_vla.checkpoint import load
from mobile_vla.core import ActionContract, CheckpointError, ConfigError
from mobile_vla.data import Dataset, schema
from mobile_vla.language import Grammar
from mobile_vla.policy.compact import CompactNetwork
from mobile_vla.policy.preprocess import HEIGHT, WIDTH
from mobile_vla.policy.weights import checkpoint_of, load_network, save_network
from mobile_vla.train.begin import begin
from mobile_vla.train.config import TrainConfig
from mobile_vla.train.drive import Drives, drive_loss
from mobile_vla.train.generate import GenerateJob, generate
from mobile_vla.train.loop import Draw, LoopConfig, LossFunction, Piece, Stage, fit
from mobile_vla.train.see import Frames, goal_anchors, name_words, read_loss, see_loss, settle_loss
from mobile_vla.train.spread import Alone, launched
from mobile_vla.train.stages import divided, hashes_of, origin_of, stands
from mobile_vla.train.steps import Steps

SURVEY_SEED, DRIVE_SEED = 1_000_000, 2_000_000
"""First scene seeds of the two kinds of data; evaluation draws its scenes below these."""


Loss = tuple[Tensor, dict[str, float]]
_Data = TypeVar("_Data")


@dataclass(frozen=True)
class _Drawn(Generic[_Data]):
    """The losses of the compact policy draw their batches by themselves: from ``data``, with ``rng``."""

    data: _Data
    rng: np.random.Generator


def _from(data: _Data) -> Draw:
    return partial(_draw, data)


def _draw(data: _Data, rng: np.random.Generator, piece: Piece) -> _Drawn[_Data]:
    return _Drawn(data, rng)


@dataclass(frozen=True)
class _Run:
    """What all stages share. ``origin`` is what their checkpoints are made from; its ``data`` grow by the stages."""

    config: TrainConfig
    folder: Path
    contract: ActionContract
    grammar: Grammar
    origin: dict[str, Any]
    ray: str | None


def train(config: TrainConfig, folder: Path, init_from: Path | None = None, ray: str | None = None) -> Path:
    """Run or resume the training in ``folder``; returns the folder of the final checkpoint.

    A run begins with weights drawn by its seed, or with those of the checkpoint ``init_from`` that fit (errors as
    ``begin``). CheckpointError when a step cannot be saved, ConfigError for what this recipe cannot do.
    ``ray``: the address of a Ray cluster that makes the data in the place of processes here.
    """
    _require_one_process_and_pass(config)
    torch.manual_seed(config.seed)
    torch.set_num_threads(config.threads)
    contract, grammar = ActionContract(), Grammar.load()
    network = CompactNetwork(config.network, contract)
    origin = origin_of(config, grammar.split_hash)
    run = _Run(config, folder, contract, grammar, origin, ray)
    see, last, final = folder / "see", folder / f"drive-{config.drive_rounds}", folder / "final"
    finished = stands(final)
    if finished and load(final).policy != network.kind:
        raise CheckpointError(f"the run in {folder} made a policy of another kind: choose another folder")
    if init_from is not None or not finished:
        run.origin["init_from"] = begin(network, folder, init_from, origin)
    if finished:
        return final
    survey = _survey(run)
    if not stands(last):
        if not stands(see):
            _see(run, network, survey, see)
        _drive_rounds(run, see)
    _settle(run, last, final)
    return final


def _require_one_process_and_pass(config: TrainConfig) -> None:
    if launched() > 1:
        raise ConfigError(f"the compact policy trains in one process, not in {launched()}: start it without torchrun")
    for name in ("read", "see", "drive", "final", "settle"):
        passes = getattr(config, name).accumulate
        if passes > 1:
            raise ConfigError(
                f"the compact policy learns from a batch in one pass: leave {name}.accumulate at 1, got {passes}"
            )


def _see(run: _Run, network: CompactNetwork, survey: Dataset, folder: Path) -> None:
    """What the words mean, then what the eye sees of them."""
    config = run.config

    def reading(_: nn.Module, drawn: _Drawn[None]) -> Loss:
        return read_loss(network, run.grammar, config.read.batch, drawn.rng)

    _fit(run, "read", network, [network.text], reading, _from(None), _from(None), config.read)
    wordings = name_words(network, run.grammar, np.random.default_rng(config.seed))
    split = divided(survey)
    frames, held_out = load_frames(survey, split.train), load_frames(survey, split.validation)
    validation = _from(held_out) if len(held_out) else None

    def seeing(_: nn.Module, drawn: _Drawn[Frames]) -> Loss:
        return see_loss(network, drawn.data, wordings, config.see.batch, drawn.rng)

    parts = [network.eye, network.query, network.nothing]
    _fit(run, "see", network, parts, seeing, _from(frames), validation, config.see, folder)


def _drive_rounds(run: _Run, see: Path) -> None:
    config, drives, held_out = run.config, Drives(), Drives()
    previous = see
    for number in range(config.drive_rounds + 1):
        name = f"drive-{number}"
        network = _network(previous)
        policy = None if number == 0 else previous
        first_seed = DRIVE_SEED + number * config.drive_episodes
        job = GenerateJob("drive", first_seed, config.drive_episodes, 0, config.lanes, config.max_frames, policy)
        dataset = _dataset(run, job, name)
        split = divided(dataset)
        drives.add(dataset, split.train, network)
        held_out.add(dataset, split.validation, network)
        print(f"{name}: {len(drives)} episodes, {drives.frames} frames to learn from", flush=True)
        previous = run.folder / name
        if not stands(previous):
            loop = config.final if number == config.drive_rounds else config.drive
            validation = _from(held_out) if len(held_out) else None
            parts = [network.enter, network.memory, network.head]
            driving = _driving(network, run.grammar, loop.batch)
            seed = config.seed + number
            _fit(run, name, network, parts, driving, _from(drives), validation, loop, previous, seed)


def _driving(network: CompactNetwork, grammar: Grammar, batch: int) -> LossFunction:
    def driving(_: nn.Module, drawn: _Drawn[Drives]) -> Loss:
        return drive_loss(network, drawn.data, grammar, batch, drawn.rng)

    return driving


def _settle(run: _Run, last: Path, folder: Path) -> None:
    network, config = _network(last), run.config
    anchors = goal_anchors(network, run.grammar, np.random.default_rng(config.seed))

    def settling(_: nn.Module, drawn: _Drawn[None]) -> Loss:
        return settle_loss(network, anchors, run.grammar, config.settle.batch, drawn.rng)

    run = replace(run, origin=run.origin | {"data": load(last).origin["data"]})
    _fit(run, "settle", network, [network.text], settling, _from(None), _from(None), config.settle, folder)


def load_frames(dataset: Dataset, episodes: Sequence[int]) -> Frames:
    """Episodes of a survey, decoded into memory."""
    columns = dataset.columns([schema.OBJECTS, schema.RANGES], episodes)
    pixels = np.empty((len(columns[schema.RANGES]), HEIGHT, WIDTH, 3), dtype=np.uint8)
    for batch in dataset.image_batches(1024, episodes):
        pixels[batch.rows] = batch.images
    objects = columns[schema.OBJECTS].reshape(len(pixels), schema.MAX_OBJECTS, len(schema.OBJECT_FIELDS))
    return Frames(pixels, objects.astype(np.float32), columns[schema.RANGES].astype(np.float32))


def _network(folder: Path) -> CompactNetwork:
    return cast(CompactNetwork, load_network(folder))


def _survey(run: _Run) -> Dataset:
    return _dataset(
        run, GenerateJob("survey", SURVEY_SEED, run.config.survey_scenes, run.config.survey_poses), "survey"
    )


def _dataset(run: _Run, job: GenerateJob, name: str) -> Dataset:
    root = run.folder / "data" / name
    generate(job, root, run.contract, run.config.processes, run.ray)
    dataset = Dataset.open(root)
    run.contract.require_same(dataset.contract, "this training", str(root))
    run.origin["data"][name] = hashes_of(dataset)
    return dataset


def _fit(
    run: _Run,
    name: str,
    network: CompactNetwork,
    parts: list[nn.Module],
    loss: LossFunction,
    draw: Draw,
    validation: Draw | None,
    loop: LoopConfig,
    folder: Path | None = None,
    seed: int | None = None,
) -> None:
    """Train ``parts`` of the network, and save it to ``folder`` where the stage ends in a checkpoint of its own."""
    network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for part in parts:
        part.train()
    parameters = [parameter for part in parts for parameter in part.parameters()]
    seed = run.config.seed if seed is None else seed
    made = replace(checkpoint_of(network, run.origin), tensors={})
    parts_folder = run.folder / f"{name}.parts"
    metric = fit(network, Stage(name, parts_folder, seed, parameters, draw, loss, validation, made), loop)
    network.eval()
    if folder is not None:
        best = Steps(parts_folder, made, Alone()).best() if loop.patience else None
        save_network(folder, network, run.origin, best.step if best else loop.steps, metric)
