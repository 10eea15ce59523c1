"""The training loop: one page, for every stage. Killed and started again, it gives the same result."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

LossFunction = Callable[[np.random.Generator], tuple[Tensor, dict[str, float]]]
"""Draws a batch with the generator given and returns its loss and the figures worth a curve."""


@dataclass(frozen=True)
class LoopConfig:
    """``steps`` of AdamW with warm-up and cosine decay; a checkpoint to resume from every ``save_every`` steps."""

    steps: int
    batch: int
    learning_rate: float
    weight_decay: float = 0.02
    warmup: int = 200
    clip_norm: float = 5.0
    save_every: int = 500


def fit(
    network: nn.Module,
    parameters: list[nn.Parameter],
    loss_function: LossFunction,
    config: LoopConfig,
    folder: Path,
    seed: int,
    name: str,
) -> None:
    """Train ``parameters`` of ``network`` in place; resumes from ``folder`` where that holds a part of this stage."""
    folder.mkdir(parents=True, exist_ok=True)
    resume = folder / "resume.pt"
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
    start = 0
    if resume.exists():
        saved = torch.load(resume, weights_only=True)
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        start = saved["step"]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with SummaryWriter(str(folder / "tensorboard")) as board, Progress(*columns, TextColumn("{task.fields[f]}")) as bar:
        task = bar.add_task(name, total=config.steps, completed=start, f="")
        for step in range(start, config.steps):
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * schedule(step, config)
            # every step has generators of its own, so that a resumed run draws what the first would have drawn
            torch.manual_seed(seed * 1_000_003 + step)
            loss, figures = loss_function(np.random.default_rng([seed, step]))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(parameters, config.clip_norm)
            if not torch.isfinite(norm):
                raise FloatingPointError(f"{name}: the gradient is not finite at step {step}; lower the learning rate")
            optimizer.step()
            if step % 50 == 0 or step + 1 == config.steps:
                for key, value in figures.items():
                    board.add_scalar(key, value, step)
                bar.update(task, f=" ".join(f"{key} {value:.3f}" for key, value in figures.items()))
            bar.update(task, completed=step + 1)
            if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
                state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
                torch.save(state, resume.with_suffix(".tmp"))
                os.replace(resume.with_suffix(".tmp"), resume)


def schedule(step: int, config: LoopConfig) -> float:
    """Share of the full learning rate: linear warm-up, then a cosine to 2 %."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return float(0.02 + 0.98 * 0.5 * (1.0 + np.cos(np.pi * done)))
