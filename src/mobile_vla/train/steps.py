"""The saved steps of a stage: checkpoints with the optimizer's state, where a stage that was cut off goes on.

However many processes made a step, it is written whole by the first of them and goes on in any number.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mobile_vla.checkpoint import Checkpoint, Metric, is_saved, load, save
from mobile_vla.checkpoint.keep import STEP_PREFIX, newest_whole, saved_steps, step_folder
from mobile_vla.checkpoint.manifest import read_manifest
from mobile_vla.checkpoint.store import Tensors
from mobile_vla.checkpoint.verify import State, verify
from mobile_vla.core import CheckpointError, DamagedCheckpointError
from mobile_vla.train.spread import Alone

RAW = "raw"
"""Names of trained weights begin so in a step that is saved with their average in their place."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a stage stands after ``step`` steps; ``beside`` holds numbers of the loop's own."""

    step: int = 0
    metric: Metric | None = None
    beside: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Steps:
    """The steps of one stage in ``folder``; ``made`` says what they are checkpoints of, all but the tensors.

    ``trained_only`` leaves out the parameters that require no gradient: the network has to have them when it resumes.
    """

    folder: Path
    made: Checkpoint
    spread: Alone
    trained_only: bool = False

    def save(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, standing: Standing, raw: Mapping[str, Tensor]
    ) -> None:
        """Save what ``resume`` needs. ``raw`` are trained weights by name, where others stand in the network.

        CheckpointError when it cannot be saved: the steps before are untouched.
        """
        tensors = self._gather(self._held(network))
        training = self._gather(_optimizer_state(network, optimizer))
        training |= self._gather({f"{RAW}.{name}": value for name, value in raw.items()})
        training |= {f"{_BESIDE}.{name}": np.array(value) for name, value in standing.beside.items()}
        if not self.spread.is_first:
            return
        whole = replace(self.made, tensors=tensors, training=training, step=standing.step, metric=standing.metric)
        try:
            save(step_folder(self.folder, standing.step), whole)
        except CheckpointError as error:
            before = saved_steps(self.folder)
            where = f"at {before[-1].name}" if before else "from its beginning"
            raise CheckpointError(
                f"step {standing.step} could not be saved: {error}; the same command, given again, goes on {where}"
            ) from error

    def resume(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Standing, dict[str, Tensor]]:
        """Put the newest whole step back: where it stands, and its ``raw`` weights, spread as the network's are.

        Says which newer ones are damaged. CheckpointError when it was saved by another network.
        """
        newest = self._newest() if self.spread.is_first else None
        if self.spread.tell(newest is None):
            return Standing(), {}
        saved = self._load(newest, network, optimizer) if newest else None
        standing = self.spread.tell(_standing(saved) if saved else Standing())
        self._fill(self._held(network), saved.tensors if saved else {})
        names = self.spread.tell([name for name in saved.training if not name.startswith(_BESIDE)] if saved else [])
        parameters, raw = dict(network.named_parameters()), {}
        for full_name in names:
            key, _, name = full_name.partition(".")
            parameter, value = parameters[name], saved.training[full_name] if saved else None
            # as its parameter lies in memory, which the fused optimizer walks through
            place = torch.empty_like(parameter, requires_grad=False) if key not in _SCALARS else _scalar(parameter)
            self.spread.fill(place, None if value is None else torch.from_numpy(value))
            if key == RAW:
                raw[name] = place
            else:
                optimizer.state[parameter][key] = place
        return standing, raw

    def best(self) -> Standing | None:
        """The step of the best metric, the earliest of equals; None where none has one."""
        return self.spread.tell(self._best() if self.spread.is_first else None)

    def put_back(self, network: nn.Module, step: int) -> None:
        """Give the network the weights of a saved step. CheckpointError where that is damaged or of another network."""
        folder = step_folder(self.folder, step)
        saved = self._load(folder, network, None) if self.spread.is_first else None
        self._fill(self._held(network), saved.tensors if saved else {})

    def _newest(self) -> Path | None:
        newest = newest_whole(self.folder)
        for newer in sorted(self.folder.glob(f"{STEP_PREFIX}*")):
            if is_saved(newer) and (newest is None or newer.name > newest.name):
                standing = f"at {newest.name}" if newest else "from its beginning"
                print(f"{newer} is damaged ({damage_of(newer)}); this stage goes on {standing}", flush=True)
        return newest

    def _best(self) -> Standing | None:
        manifests = [read_manifest(folder) for folder in saved_steps(self.folder)]
        judged = [(each.step, each.metric) for each in manifests if each.step is not None and each.metric is not None]
        same = [Standing(step, metric) for step, metric in judged if metric.name == judged[-1][1].name]
        return min(same, key=_badness, default=None)

    def _held(self, network: nn.Module) -> dict[str, Tensor]:
        """The tensors of a step: the state of the network, or what of it is trained, and its buffers."""
        named = network.named_parameters(remove_duplicate=False)
        frozen = {name for name, each in named if not each.requires_grad} if self.trained_only else set()
        return {name: value for name, value in network.state_dict().items() if name not in frozen}

    def _gather(self, tensors: Mapping[str, Tensor]) -> Tensors:
        return {name: _array(self.spread.gather(value)) for name, value in tensors.items()}

    def _fill(self, targets: Mapping[str, Tensor], values: Tensors) -> None:
        for name, target in targets.items():
            self.spread.fill(target, torch.from_numpy(values[name]) if values else None)

    def _load(self, folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer | None) -> Checkpoint:
        saved = load(folder, training=optimizer is not None)
        fault = _misfit(self._held(network), saved.tensors)
        if not fault and optimizer is not None:
            fault = _training_misfit(network, optimizer, saved.training)
        if fault:
            raise CheckpointError(
                f"{folder} was saved by a network of other sizes or parts ({fault}): "
                "give the settings that the run began with, or begin in another folder"
            )
        return saved


_BESIDE = "loop"
_SCALARS = ("step",)


def damage_of(folder: Path) -> str:
    """What is wrong with a checkpoint of ours, in a sentence, empty where every byte is right.

    CheckpointError for one of another version, or that cannot be read.
    """
    try:
        read_manifest(folder)
    except DamagedCheckpointError as error:
        return error.damage
    verdict = verify(folder)
    return "" if verdict.state is State.WHOLE else verdict.damage


def _optimizer_state(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state named by what it is and by its parameter: ``exp_avg.head.0.weight``."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in network.named_parameters()}
    return {
        f"{key}.{names[parameter]}": value
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
    }


def _standing(saved: Checkpoint) -> Standing:
    mine = {name: float(value) for name, value in saved.training.items() if name.startswith(_BESIDE)}
    return Standing(saved.step or 0, saved.metric, {name.partition(".")[2]: value for name, value in mine.items()})


def _badness(standing: Standing) -> float:
    metric = standing.metric
    if metric is None:
        return float("inf")
    return metric.value if metric.better == "lower" else -metric.value


def _misfit(own: Mapping[str, Tensor], saved: Tensors) -> str:
    for name, value in own.items():
        if name not in saved:
            return f"it has no {name}"
        if saved[name].shape != value.shape:
            return f"{name} is of shape {saved[name].shape}, here of {tuple(value.shape)}"
    return next((f"it has {name}" for name in saved if name not in own), "")


def _training_misfit(network: nn.Module, optimizer: torch.optim.Optimizer, saved: Tensors) -> str:
    trained = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    own = {name: parameter for name, parameter in network.named_parameters() if parameter in trained}
    for full_name, value in saved.items():
        key, _, name = full_name.partition(".")
        if key == _BESIDE:
            continue
        if name not in own:
            return f"it trained {name}"
        if value.shape != (() if key in _SCALARS else own[name].shape):
            return f"{full_name} is of shape {value.shape}"
    return ""


def _array(value: Tensor) -> "np.ndarray[tuple[int, ...], np.dtype[np.generic]]":
    """As the file has it; numpy knows no bfloat16, and every one of its numbers is one of float32's."""
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()


def _scalar(parameter: Tensor) -> Tensor:
    return torch.empty((), device=parameter.device)
