"""The training loop: one page, for every stage. Killed and started again, it gives the same result."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from mobile_vla.checkpoint import Checkpoint, Metric
from mobile_vla.checkpoint.keep import prune
from mobile_vla.core import ConfigError
from mobile_vla.train.curves import Curves
from mobile_vla.train.steps import resume, save_step

LossFunction = Callable[[np.random.Generator], tuple[Tensor, dict[str, float]]]
"""Draws a batch with the generator given and returns its loss and the figures worth a curve."""

_VALIDATION_BATCHES, _VALIDATION_SEED = 8, 1_986_096_233


@dataclass(frozen=True)
class LoopConfig:
    """``steps`` of AdamW with warm-up and cosine decay; every ``save_every`` of them a checkpoint to resume from.

    Of these the last ``keep_last`` stay, and the ``keep_best`` of the lowest validation loss.
    """

    steps: int
    batch: int
    learning_rate: float
    weight_decay: float = 0.02
    warmup: int = 200
    clip_norm: float = 5.0
    save_every: int = 500
    keep_last: int = 2
    keep_best: int = 1

    def __post_init__(self) -> None:
        for name, least in (("steps", 0), ("batch", 1), ("save_every", 1), ("keep_last", 1), ("keep_best", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} needs to be at least {least}, got {getattr(self, name)}")


@dataclass(frozen=True)
class Stage:
    """What is learnt: ``parameters`` by ``loss``, which is also taken on data that is not learnt from, if there is any.

    Steps are kept in ``folder``; ``made`` says what they are checkpoints of, all but the tensors.
    """

    name: str
    folder: Path
    seed: int
    parameters: list[nn.Parameter]
    loss: LossFunction
    validation: LossFunction | None
    made: Checkpoint


def fit(network: nn.Module, stage: Stage, config: LoopConfig) -> Metric | None:
    """Train ``stage.parameters`` of ``network`` in place; resumes from ``stage.folder`` where that holds a whole step.

    The network ends with its last weights, which the cosine has settled, not with those of the best step. Returns their
    validation loss. CheckpointError when a step cannot be saved; those before it stay.
    """
    name, parameters = stage.name, stage.parameters
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
    start, metric = resume(stage.folder, network, optimizer)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Curves(stage.folder / "tensorboard") as curves, Progress(*columns, TextColumn("{task.fields[f]}")) as bar:
        task = bar.add_task(name, total=config.steps, completed=start, f="")
        for step in range(start, config.steps):
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * schedule(step, config)
            # every step has generators of its own, so that a resumed run draws what the first would have drawn
            torch.manual_seed(stage.seed * 1_000_003 + step)
            loss, figures = stage.loss(np.random.default_rng([stage.seed, step]))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(parameters, config.clip_norm)
            if not torch.isfinite(norm):
                raise FloatingPointError(f"{name}: the gradient is not finite at step {step}; lower the learning rate")
            optimizer.step()
            if step % 50 == 0 or step + 1 == config.steps:
                curves.add(figures, step)
                bar.update(task, f=" ".join(f"{key} {value:.3f}" for key, value in figures.items()))
            bar.update(task, completed=step + 1)
            if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
                metric = validate(network, stage)
                if metric is not None:
                    curves.add({"validation_loss": metric.value}, step)
                save_step(stage.folder, stage.made, network, optimizer, step + 1, metric)
                prune(stage.folder, last=config.keep_last, best=config.keep_best)
    return metric


@torch.no_grad()
def validate(network: nn.Module, stage: Stage) -> Metric | None:
    """The mean loss over a few batches that are not learnt from, the same at every call; None where there are none."""
    if stage.validation is None:
        return None
    modes = {module: module.training for module in network.modules()}
    network.eval()
    draws = (np.random.default_rng([_VALIDATION_SEED, stage.seed, number]) for number in range(_VALIDATION_BATCHES))
    value = float(np.mean([stage.validation(rng)[0].item() for rng in draws]))
    for module, training in modes.items():
        module.training = training
    return Metric(f"{stage.name} validation loss", value, "lower") if np.isfinite(value) else None


def schedule(step: int, config: LoopConfig) -> float:
    """Share of the full learning rate: linear warm-up, then a cosine to 2 %."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return float(0.02 + 0.98 * 0.5 * (1.0 + np.cos(np.pi * done)))
