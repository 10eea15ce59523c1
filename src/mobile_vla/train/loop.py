"""The training loop: one page, for every stage. Killed and started again, it gives the same result.

It is the same page for one process and for many, which are told apart in ``spread`` alone.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from mobile_vla.checkpoint import Checkpoint, Metric
from mobile_vla.checkpoint.keep import prune
from mobile_vla.core import ConfigError, TrainingError
from mobile_vla.train.ahead import Ahead
from mobile_vla.train.ema import Average
from mobile_vla.train.report import Report
from mobile_vla.train.spread import Alone, Spread
from mobile_vla.train.steps import Standing, Steps


@dataclass(frozen=True, slots=True)
class Piece:
    """One of ``of`` equal pieces of a batch: of this process, and of this pass where gradients are accumulated."""

    place: int = 0
    of: int = 1

    def part(self, batch: int) -> slice:
        """Which of the ``batch`` samples are in this piece. ConfigError where the pieces would not be equal."""
        size, left = divmod(batch, self.of)
        if left:
            near = " or ".join(str(each * self.of) for each in (size, size + 1) if each)
            raise ConfigError(
                f"a batch of {batch} cannot be cut into {self.of} equal pieces, one for each pass of each process: "
                f"set batch to {near}, or change accumulate"
            )
        return slice(self.place * size, (self.place + 1) * size)


Draw = Callable[[np.random.Generator, Piece], Any]
"""Makes a piece of a batch, on the CPU. All pieces of a batch are given the generator in the same state, so that they
draw the same, of which each makes its part. It runs in a thread, ahead of time: it may depend on nothing else."""

LossFunction = Callable[[nn.Module, Any], tuple[Tensor, dict[str, float]]]
"""Takes the network and what was drawn, which it brings to the network's device, to the loss and the figures worth a
curve. The mean of the losses of all pieces has to be the loss of the whole batch."""

_VALIDATION_BATCHES, _VALIDATION_SEED = 8, 1_986_096_233
_PIECE_SEED = 2**44


@dataclass(frozen=True)
class LoopConfig:
    """``steps`` of AdamW with warm-up and cosine decay; every ``save_every`` of them a checkpoint to resume from.

    Of these the last ``keep_last`` stay, and the ``keep_best`` of the best metric. A ``batch``, of all processes, is
    learnt from in ``accumulate`` passes, and the next ``ahead`` pieces are drawn meanwhile. ``ema`` is the decay of a
    moving average of the weights, which is then what is judged and kept; 0: none. ``precision`` is what a pass computes
    in; fp16 needs a GPU. After ``patience`` saved steps in a row without a better metric the stage ends, and its result
    is the best step; 0: it ends with its last weights.
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
    accumulate: int = 1
    ema: float = 0.0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    patience: int = 0
    ahead: int = 2

    def __post_init__(self) -> None:
        least = {"steps": 0, "batch": 1, "save_every": 1, "keep_last": 1, "keep_best": 0}
        for name, number in (least | {"accumulate": 1, "patience": 0, "ahead": 0}).items():
            if getattr(self, name) < number:
                raise ConfigError(f"{name} needs to be at least {number}, got {getattr(self, name)}")
        if not 0.0 <= self.ema < 1.0:
            raise ConfigError(f"ema is a decay from 0, which is none, to below 1, such as 0.999; got {self.ema}")
        if self.precision not in _DTYPES:
            raise ConfigError(f"precision is one of {', '.join(_DTYPES)}, not {self.precision!r}")
        if self.patience and not self.keep_best:
            raise ConfigError(f"patience={self.patience} ends with the best step, so keep_best needs to be at least 1")
        Piece(0, self.accumulate).part(self.batch)


_DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Stage:
    """What is learnt: ``parameters`` by ``loss`` on what ``draw`` gives; on ``validation``, not learnt from, if any.

    ``judge``, where given, says how good the network is, in evaluation mode, in place of the validation loss; it is
    called on one process. Steps are kept in ``folder``; ``made`` says what they are checkpoints of, all but the
    tensors. With ``trained_only`` they hold the parameters that require a gradient, and the buffers, and no others.
    """

    name: str
    folder: Path
    seed: int
    parameters: list[nn.Parameter]
    draw: Draw
    loss: LossFunction
    validation: Draw | None
    made: Checkpoint
    judge: Callable[[nn.Module], Metric] | None = None
    trained_only: bool = False


def fit(network: nn.Module, stage: Stage, config: LoopConfig, spread: Spread | None = None) -> Metric | None:
    """Train ``stage.parameters`` of ``network`` in place; resumes from ``stage.folder`` where that holds a whole step.

    The network is on the device that it trains on; under ``spread`` it is moved there, and all processes call this with
    the same arguments. It ends with its last weights, which the cosine has settled, or their average; with patience,
    those of the best step. Returns their metric. ConfigError for settings that do not go together, and where memory
    does not suffice; TrainingError when a gradient is not finite; CheckpointError when a step cannot be saved: those
    before it stay.
    """
    with enough_memory(config):
        metric = _fit(network, stage, config, spread or Alone())
    if spread is not None:
        gc.collect()  # DDP's wrapper is in a cycle, and would listen to the gradients of the next stage
    return metric


def _fit(network: nn.Module, stage: Stage, config: LoopConfig, spread: Alone) -> Metric | None:
    pieces = _pieces(config, spread)
    _check(network, stage, config)
    names = {parameter: name for name, parameter in network.named_parameters()}
    trained = [names[parameter] for parameter in stage.parameters]
    take = spread.wrap(network, stage.loss, judged=stage.judge is not None)
    parameters = {name: network.get_parameter(name) for name in trained}
    optimizer = _optimizer(list(parameters.values()), config)
    steps = Steps(stage.folder, stage.made, spread, stage.trained_only)
    standing, raw = steps.resume(network, optimizer)
    average = Average(parameters, config.ema)
    with torch.no_grad():
        for name, value in raw.items():
            parameters[name].copy_(value)
    scaler = _scaler(config, standing)
    draws = (
        partial(stage.draw, np.random.default_rng([stage.seed, step]), piece)
        for step in range(standing.step, config.steps)
        for piece in pieces
    )
    report = Report(stage.name, stage.folder, standing.step, config.steps, spread)
    with report, Ahead(draws, config.ahead) as drawn:
        for step in range(standing.step, config.steps):
            if step == standing.step and _out_of_patience(steps, step, config):
                break
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * schedule(step, config)
            optimizer.zero_grad(set_to_none=True)
            passes = []
            for piece in pieces:
                # every step has generators of its own, so that a resumed run draws what the first would have drawn
                torch.manual_seed(stage.seed * 1_000_003 + step + piece.place * _PIECE_SEED)
                batch = drawn.next()
                with spread.passing(take, last=piece is pieces[-1]):
                    with autocast(network, config):
                        loss, figures = take(batch)
                    scaler.scale(loss / len(pieces)).backward()  # type: ignore[no-untyped-call]
                passes.append(figures)
            scaler.unscale_(optimizer)
            norm = nn.utils.clip_grad_norm_(parameters.values(), config.clip_norm)
            _require_finite(norm, scaler, stage, step)
            scaler.step(optimizer)
            scaler.update()
            average.update(step)
            report.step(step, passes, drawn.waited_s)
            if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
                with average.applied():
                    metric = _judged(network, take, stage, config, spread, report, step)
                    standing = Standing(step + 1, metric, _beside(scaler))
                    steps.save(network, optimizer, standing, average.raw)
                if spread.is_first:
                    prune(stage.folder, last=config.keep_last, best=config.keep_best)
    average.exchange()
    best = steps.best() if config.patience else None
    if best is None:
        return standing.metric
    steps.put_back(network, best.step)
    return best.metric


def validate(
    network: nn.Module,
    stage: Stage,
    config: LoopConfig,
    spread: Alone | None = None,
    take: Callable[[Any], tuple[Tensor, dict[str, float]]] | None = None,
) -> Metric | None:
    """The mean loss over a few batches that are not learnt from, the same at every call; None where there are none.

    ``take`` is what takes a batch to its loss where the network is spread.
    """
    if stage.validation is None:
        return None
    losses, apart = [], spread or Alone()
    take = take or apart.wrap(network, stage.loss)
    with evaluating(network):
        for number in range(_VALIDATION_BATCHES):
            for piece in _pieces(config, apart):
                batch = stage.validation(np.random.default_rng([_VALIDATION_SEED, stage.seed, number]), piece)
                with autocast(network, config):
                    losses.append(take(batch)[0].item())
    value = apart.mean({"loss": float(np.mean(losses))})["loss"]
    return Metric(f"{stage.name} validation loss", value, "lower") if np.isfinite(value) else None


def schedule(step: int, config: LoopConfig) -> float:
    """Share of the full learning rate: linear warm-up, then a cosine to 2 %."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return float(0.02 + 0.98 * 0.5 * (1.0 + np.cos(np.pi * done)))


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients; afterwards every module is in the mode that it was in."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def autocast(network: nn.Module, config: LoopConfig) -> AbstractContextManager[object]:
    """What a pass computes in, on the network's device."""
    dtype = _DTYPES[config.precision]
    return torch.autocast(_device(network).type, dtype) if dtype else nullcontext()


@contextmanager
def enough_memory(config: LoopConfig) -> Iterator[None]:
    """Say what to lower where memory does not suffice: ConfigError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        where = next((place for sign, place in _NO_MEMORY.items() if sign in f"{type(error).__name__} {error}"), None)
        if where is None:
            raise
        raise ConfigError(
            f"{where} has no memory for a batch of {config.batch} with accumulate={config.accumulate}: lower batch, "
            "raise accumulate, or switch gradient checkpointing on"
        ) from error


_NO_MEMORY = {
    "OutOfMemoryError": "the GPU",
    "CUDA out of memory": "the GPU",
    "can't allocate memory": "this machine",
    "DefaultCPUAllocator": "this machine",
    "MemoryError": "this machine",
}


def _pieces(config: LoopConfig, spread: Alone) -> list[Piece]:
    """Those of a batch that are this process's; ConfigError where the batch cannot be cut so."""
    of = spread.world * config.accumulate
    Piece(0, of).part(config.batch)
    return [Piece(spread.rank * config.accumulate + number, of) for number in range(config.accumulate)]


def _check(network: nn.Module, stage: Stage, config: LoopConfig) -> None:
    if config.patience and stage.validation is None and stage.judge is None:
        raise ConfigError(
            f"{stage.name}: patience={config.patience} asks for data that is not learnt from, and there is none: "
            "set patience to 0, or give more data"
        )
    if config.precision == "fp16" and _device(network).type != "cuda":
        raise ConfigError("precision=fp16 needs a GPU: use bf16 or fp32 on this machine")


def _optimizer(parameters: list[nn.Parameter], config: LoopConfig) -> torch.optim.Optimizer:
    # the fused kernel takes no shards on the CPU
    fused = not any(isinstance(each, DTensor) and each.device.type == "cpu" for each in parameters)
    return torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=fused)


def _scaler(config: LoopConfig, standing: Standing) -> torch.amp.GradScaler:
    scaler = torch.amp.GradScaler("cuda", enabled=config.precision == "fp16")
    if scaler.is_enabled() and standing.beside:
        growth = {"_growth_tracker": int(standing.beside["growth_tracker"])}
        scaler.load_state_dict(scaler.state_dict() | {"scale": standing.beside["scale"]} | growth)
    return scaler


def _beside(scaler: torch.amp.GradScaler) -> dict[str, float]:
    if not scaler.is_enabled():
        return {}
    state = scaler.state_dict()
    return {"scale": state["scale"], "growth_tracker": state["_growth_tracker"]}


def _require_finite(norm: Tensor, scaler: torch.amp.GradScaler, stage: Stage, step: int) -> None:
    whole = norm.full_tensor() if isinstance(norm, DTensor) else norm
    # fp16 overflows now and then: its scaler leaves the step out and lowers the scale, as long as there is one to lower
    if torch.isfinite(whole) or (scaler.is_enabled() and scaler.get_scale() > 1.0):
        return
    raise TrainingError(
        f"{stage.name}: the gradient is not finite at step {step}: lower learning_rate, or look for odd values in the "
        "data (mobile-vla data validate)"
    )


def _judged(
    network: nn.Module,
    take: Callable[[Any], tuple[Tensor, dict[str, float]]],
    stage: Stage,
    config: LoopConfig,
    spread: Alone,
    report: Report,
    step: int,
) -> Metric | None:
    loss = validate(network, stage, config, spread, take)
    if loss is not None:
        report.curves({"validation_loss": loss.value}, step)
    if stage.judge is None:
        return loss
    with evaluating(network), spread.whole(network) as whole:
        metric = spread.tell(stage.judge(whole) if whole is not None else None)
    if metric is not None:
        report.curves({metric.name: metric.value}, step)
    return metric


def _out_of_patience(steps: Steps, step: int, config: LoopConfig) -> bool:
    best = steps.best() if config.patience else None
    return best is not None and (step - best.step) // config.save_every >= config.patience


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
