"""A training run of a full-size policy: see, drive, and rounds of driving by the learner (DAgger).

With data given it learns from these: whatever tells its objects teaches seeing, whatever says what was done teaches
driving. Without, surveys and drives are made in the simulator first. Killed and started again it goes on; every stage
leaves a checkpoint. Under torchrun all processes run this, and the first one makes data and saves.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from transformers.modeling_layers import GradientCheckpointingLayer

from mobile_vla.checkpoint import Metric
from mobile_vla.checkpoint.keep import newest_whole, step_folder
from mobile_vla.checkpoint.store import load
from mobile_vla.core import ActionContract, CheckpointError, DatasetError, Policy
from mobile_vla.data import Dataset, schema
from mobile_vla.language import Grammar
from mobile_vla.policy.kinds import PolicyKind
from mobile_vla.policy.vla import VlaNetwork, VlaPolicy
from mobile_vla.policy.weights import checkpoint_of, load_network, save_network
from mobile_vla.train.adapt import FROZEN, adapt, merge
from mobile_vla.train.ask import ask_loss, draw_asking
from mobile_vla.train.begin import begin, require_same_run
from mobile_vla.train.config import VlaTrainConfig
from mobile_vla.train.feed import Feed
from mobile_vla.train.generate import GenerateJob, generate
from mobile_vla.train.imitate import Memory, draw_windows, imitation_loss
from mobile_vla.train.loop import Draw, LoopConfig, LossFunction, Stage, fit
from mobile_vla.train.spread import Alone, Spread
from mobile_vla.train.stages import divided, hashes_of, origin_of, stands
from mobile_vla.train.steps import Steps

SURVEY_SEED, DRIVE_SEED = 3_000_000, 4_000_000
"""First scene seeds of the data that these runs make; those of evaluation lie far below."""


def is_block(module: nn.Module) -> bool:
    """What FSDP2 gathers by itself: a layer of a tower's transformers."""
    return isinstance(module, GradientCheckpointingLayer)


Judge = Callable[[Policy], float]
"""Success of a policy in the simulator, 0..1."""


@dataclass(frozen=True)
class _Run:
    kind: PolicyKind
    config: VlaTrainConfig
    folder: Path
    grammar: Grammar
    contract: ActionContract
    origin: dict[str, Any]
    judge: Judge | None
    spread: Spread | None
    ray: str | None

    @property
    def is_first(self) -> bool:
        return self.spread is None or self.spread.is_first


def train_vla(
    kind: PolicyKind,
    config: VlaTrainConfig,
    folder: Path,
    data: Sequence[Path] = (),
    init_from: Path | None = None,
    judge: Judge | None = None,
    spread: Spread | None = None,
    ray: str | None = None,
) -> Path:
    """Run or resume the training in ``folder``; returns the folder of the final checkpoint.

    Errors as ``train.run.train``; DatasetError for data that cannot teach, ContractMismatchError where two differ.
    ``ray``: the address of a Ray cluster that makes the data in the place of processes here.
    """
    torch.manual_seed(config.seed)
    torch.set_num_threads(config.threads)
    final = folder / "final"
    if stands(final):
        require_same_run(final, kind.name, asdict(config), [str(root) for root in data])
        return final
    datasets = [Dataset.open(root) for root in data]
    for dataset in datasets:
        if not len(dataset):
            raise DatasetError(f"{dataset.root} holds no episode: record some, or leave it out")
    contract = datasets[0].contract if datasets else ActionContract(horizon=config.horizon)
    for dataset in datasets:
        contract.require_same(dataset.contract, str(data[0]), str(dataset.root))
    grammar = Grammar.load()
    origin = origin_of(config, grammar.split_hash)
    run = _Run(kind, config, folder, grammar, contract, origin, judge, spread, ray)
    last = _first_network(run, init_from)
    surveys = [each for each in datasets if _tells(each, schema.OBJECTS)]
    drives = [each for each in datasets if _tells(each, schema.ACTION_CHUNK)]
    if not datasets:
        surveys = [_made(run, "survey", GenerateJob("survey", SURVEY_SEED, config.survey_scenes, config.survey_poses))]
        drives = [_made(run, "drive-0", _drive_job(config, 0, None))]
    if not drives:
        raise DatasetError(
            f"no frame in {', '.join(map(str, data))} says what to do ({schema.ACTION_CHUNK}): give drives too"
        )
    for dataset in (*surveys, *drives):
        _note(run, dataset)
    if surveys and config.see.steps:
        last = _see(run, last, surveys)
    kept = _Kept(Memory(config.wordings), Memory(config.wordings), [])
    for number in range(config.drive_rounds + 1):
        if number:
            drives.append(_made(run, f"drive-{number}", _drive_job(config, number, last)))
            _note(run, drives[-1])
        last = _drive(run, last, drives, number, kept)
    if run.is_first:
        network = load_network(last)
        save_network(final, network, run.origin, config.drive.steps, load(last).metric)
    _wait(run)
    return final


def _first_network(run: _Run, init_from: Path | None) -> Path:
    """The weights that the run begins with, as a checkpoint of its own: what LoRA and frozen towers go back to."""
    start = run.folder / "start"
    if run.is_first and not stands(start):
        network = cast(VlaNetwork, run.kind.make(run.config.network, run.contract))
        if init_from is not None:
            run.origin["init_from"] = begin(network, run.folder, init_from, run.origin, "see.parts")
        save_network(start, network, run.origin)
    _wait(run)
    run.origin.setdefault("init_from", load(start).origin.get("init_from"))
    return start


def _see(run: _Run, before: Path, surveys: list[Dataset]) -> Path:
    folder, config = run.folder / "see", run.config
    if stands(folder):
        return folder
    network = _network(before)
    learnt, held_out = _feeds(run, surveys)

    def draw(feed: Feed) -> Draw:
        return partial(_asking, network, feed, run.grammar, config)

    def loss(module: nn.Module, asking: Any) -> tuple[Tensor, dict[str, float]]:
        return ask_loss(module(_on(network, asking.inputs)), asking, network.pointer.grid)

    parameters = adapt(network, config.see_towers, config.lora, config.checkpointing)
    unused = {
        id(each) for part in (network.head, network.join, network.motion, network.enter) for each in part.parameters()
    }
    parameters = [each for each in parameters if id(each) not in unused]
    _fit(
        run,
        "see",
        network,
        parameters,
        draw(learnt),
        loss,
        None if held_out is None else draw(held_out),
        config.see,
        before,
        folder,
    )
    return folder


def _asking(network: VlaNetwork, feed: Feed, grammar: Grammar, config: VlaTrainConfig, rng: Any, piece: Any) -> Any:
    return draw_asking(network, feed, grammar, config.see.batch, config.names, rng, piece)


@dataclass(frozen=True)
class _Kept:
    """What frozen towers said to the drives in ``datasets``; they say the same in every round."""

    learnt: Memory
    held_out: Memory
    datasets: list[Path]


def _drive(run: _Run, before: Path, drives: list[Dataset], number: int, kept: _Kept) -> Path:
    folder, config = run.folder / f"drive-{number}", run.config
    if stands(folder):
        return folder
    network = _network(before)
    parameters = adapt(network, config.drive_towers, config.lora, config.checkpointing)
    learns: Draw
    validates: Draw | None
    if config.drive_towers == FROZEN:
        for part in (network.pointer, network.way):
            part.requires_grad_(False)
        parameters = [each for each in parameters if each.requires_grad]
        _feeds(run, drives)  # refuses what cannot be learnt from, before frames are looked at
        learnt, held_out = kept.learnt, kept.held_out
        for dataset in drives:
            if dataset.root in kept.datasets:
                continue
            rng, split = np.random.default_rng([23, config.seed]), divided(dataset)
            learnt.add(dataset, split.train, network, run.grammar, rng)
            held_out.add(dataset, split.validation, network, run.grammar, rng)
            kept.datasets.append(dataset.root)
        print(f"drive-{number}: {len(learnt)} drives, {learnt.frames} frames to learn from", flush=True)
        learns = partial(learnt.draw, run.contract, config.drive.batch)
        validates = partial(held_out.draw, run.contract, config.drive.batch) if len(held_out) else None
    else:
        feed, held_back = _feeds(run, drives)
        learns = partial(draw_windows, network, feed, run.grammar, config.drive.batch, config.length)
        windows = partial(draw_windows, network)
        validates = (
            None if held_back is None else partial(windows, held_back, run.grammar, config.drive.batch, config.length)
        )

    def loss(module: nn.Module, driving: Any) -> tuple[Tensor, dict[str, float]]:
        return imitation_loss(network, module(_on(network, driving.inputs)), driving, config.grounding)

    _fit(run, f"drive-{number}", network, parameters, learns, loss, validates, config.drive, before, folder)
    return folder


def _fit(
    run: _Run,
    name: str,
    network: VlaNetwork,
    parameters: list[nn.Parameter],
    draw: Draw,
    loss: LossFunction,
    validation: Draw | None,
    loop: LoopConfig,
    before: Path,
    folder: Path,
) -> None:
    """Train, and save the whole network to ``folder``, with what LoRA added merged into it."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if run.spread is None:
        network.to(device)
    network.train()
    made = replace(checkpoint_of(network, run.origin), tensors={})
    parts = run.folder / f"{name}.parts"
    judge = None
    if run.judge is not None and name != "see":
        judge = partial(_judged, run.judge)
    stage = Stage(name, parts, run.config.seed, parameters, draw, loss, validation, made, judge, trained_only=True)
    metric = fit(network, stage, loop, run.spread)
    if run.is_first:
        best = Steps(parts, made, Alone()).best() if loop.patience else None
        if run.spread is not None:
            newest = step_folder(parts, best.step) if best else newest_whole(parts)
            network = _put_together(run, name, before, newest)
        merge(network)
        save_network(folder, network.cpu(), run.origin, best.step if best else loop.steps, metric)
    _wait(run)


def _put_together(run: _Run, name: str, before: Path, newest: Path | None) -> VlaNetwork:
    """The network of a stage from where it began and its last step: under FSDP2 no process holds it whole."""
    network = _network(before)
    if newest is None:
        raise CheckpointError(f"no whole step of {name} is left: give the same command again")
    adapt(network, run.config.see_towers if name == "see" else run.config.drive_towers, run.config.lora, False)
    tensors = {key: torch.from_numpy(value) for key, value in load(newest).tensors.items()}
    network.load_state_dict(tensors, strict=False)
    return network


def _judged(judge: Judge, network: nn.Module) -> Metric:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return Metric("closed-loop success", judge(VlaPolicy(cast(VlaNetwork, network))), "higher")
    finally:
        torch.set_num_threads(threads)


def _on(network: VlaNetwork, inputs: Any) -> Any:
    """Inputs on the network's device."""
    device = next(network.head.parameters()).device
    return tree_map_only(Tensor, lambda each: each.to(device, non_blocking=True), inputs)


def _network(folder: Path) -> VlaNetwork:
    network = cast(VlaNetwork, load_network(folder))
    if not torch.cuda.is_available():  # on a CPU plain attention trains twice as fast as the fused one
        for tower in network.towers.values():
            cast(Any, tower).model.set_attn_implementation("eager")
    return network


def _feeds(run: _Run, datasets: list[Dataset]) -> tuple[Feed, Feed | None]:
    size, cache = run.config.network.size, int(run.config.cache_gib * 2**30)
    splits = [(dataset, divided(dataset)) for dataset in datasets]
    if not any(split.train for _, split in splits):
        named = ", ".join(str(dataset.root) for dataset in datasets)
        raise DatasetError(
            f"no episode of {named} is in the training part of its split: record more, or divide it otherwise "
            "(mobile-vla data split DIR --again --fractions 0.8,0.1,0.1)"
        )
    learnt = Feed([(dataset, split.train) for dataset, split in splits], size, cache)
    kept = [(dataset, split.validation) for dataset, split in splits if split.validation]
    return learnt, Feed(kept, size, cache // 8) if kept else None


def _tells(dataset: Dataset, column: str) -> bool:
    """A frame of the first few episodes has this label."""
    known = dataset.columns([column], dataset.episode_indices[:8])[column]
    return bool((np.isfinite(known) & (known != schema.UNLABELLED)).any()) and bool(np.any(known))


def _drive_job(config: VlaTrainConfig, number: int, learner: Path | None) -> GenerateJob:
    first = DRIVE_SEED + number * config.drive_episodes
    return GenerateJob("drive", first, config.drive_episodes, 0, config.lanes, config.max_frames, learner)


def _made(run: _Run, name: str, job: GenerateJob) -> Dataset:
    root = run.folder / "data" / name
    if run.is_first:
        generate(job, root, run.contract, run.config.processes, run.ray)
        divided(Dataset.open(root))
    _wait(run)
    return Dataset.open(root)


def _note(run: _Run, dataset: Dataset) -> None:
    run.origin["data"][str(dataset.root)] = hashes_of(dataset)


def _wait(run: _Run) -> None:
    if run.spread is not None:
        run.spread.barrier()
