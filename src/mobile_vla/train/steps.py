"""The saved steps of a stage: checkpoints with the optimizer's state, where a stage that was cut off goes on."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from mobile_vla.checkpoint import Checkpoint, Metric, is_saved, load, save
from mobile_vla.checkpoint.keep import STEP_PREFIX, newest_whole, saved_steps, step_folder
from mobile_vla.checkpoint.manifest import read_manifest
from mobile_vla.checkpoint.store import Tensors
from mobile_vla.checkpoint.verify import State, verify
from mobile_vla.core import CheckpointError, DamagedCheckpointError
from mobile_vla.policy.weights import tensors_of


def save_step(
    folder: Path,
    made: Checkpoint,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    metric: Metric | None,
) -> None:
    """Save what ``resume`` needs after ``step`` steps; ``made`` says what it is a checkpoint of, all but the tensors.

    CheckpointError when it cannot be saved: the steps before are untouched.
    """
    state = optimizer_state(network, optimizer)
    standing = replace(made, tensors=tensors_of(network), training=state, step=step, metric=metric)
    try:
        save(step_folder(folder, step), standing)
    except CheckpointError as error:
        before = saved_steps(folder)
        where = f"at {before[-1].name}" if before else "from its beginning"
        raise CheckpointError(
            f"step {step} could not be saved: {error}; the same command, given again, goes on {where}"
        ) from error


def resume(folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, Metric | None]:
    """Put the newest whole step below ``folder`` back; returns how many steps were done, 0 where none is saved.

    Says which newer ones are damaged. CheckpointError when it was saved by another network.
    """
    newest = newest_whole(folder)
    for newer in sorted(folder.glob(f"{STEP_PREFIX}*")):
        if is_saved(newer) and (newest is None or newer.name > newest.name):
            standing = f"at {newest.name}" if newest else "from its beginning"
            print(f"{newer} is damaged ({damage_of(newer)}); this stage goes on {standing}", flush=True)
    if newest is None:
        return 0, None
    saved = load(newest, training=True)
    try:
        network.load_state_dict({name: torch.from_numpy(value) for name, value in saved.tensors.items()})
        _restore(network, optimizer, saved.training)
    except (RuntimeError, KeyError) as error:
        raise CheckpointError(
            f"{newest} was saved by a network of other sizes or parts ({str(error).splitlines()[0]}): "
            "give the settings that the run began with, or begin in another folder"
        ) from error
    return saved.step or 0, saved.metric


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


def optimizer_state(network: nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
    """The optimizer's state as arrays named by what they are and by their parameter: ``exp_avg.head.0.weight``."""
    names: dict[torch.Tensor, str] = {parameter: name for name, parameter in network.named_parameters()}
    return {
        f"{key}.{names[parameter]}": value.numpy()
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
    }


def _restore(network: nn.Module, optimizer: torch.optim.Optimizer, state: Tensors) -> None:
    parameters = dict(network.named_parameters())
    trained = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    for full_name, value in state.items():
        key, _, name = full_name.partition(".")
        parameter = parameters[name]
        if parameter not in trained or value.shape not in ((), parameter.shape):
            raise KeyError(full_name)
        # the fused optimizer walks through memory: the state must lie there as its parameter does
        place = torch.empty_like(parameter, requires_grad=False) if value.ndim else torch.empty(())
        optimizer.state[parameter][key] = place.copy_(torch.from_numpy(value))
