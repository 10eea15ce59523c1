"""A small training that processes share: what the tests of ``train.spread`` run, in processes and kill."""

import importlib
import io
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from mobile_vla.checkpoint import Checkpoint, Metric
from mobile_vla.core import ActionContract
from mobile_vla.train.loop import LoopConfig, Piece, Stage, fit
from mobile_vla.train.spread import Spread

BATCH = 8
CONFIG = LoopConfig(steps=8, batch=BATCH, learning_rate=0.01, warmup=3, save_every=4, keep_last=9)
MADE = Checkpoint("test", {}, ActionContract(), {"seed": 7}, {})
LIMIT_S = 200.0


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.layer = nn.LayerNorm(16), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.layer(self.norm(x)))


class Shared(nn.Module):
    """What makes sharing hard: frozen and unused parameters, sizes that two cannot divide, a part the loss calls."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.given = nn.Linear(6, 16), nn.Linear(16, 16).requires_grad_(False)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.leave, self.unused = nn.Linear(16, 3), nn.Linear(3, 2)
        self.register_parameter("number", nn.Parameter(torch.tensor(0.5), requires_grad=False))
        self.register_buffer("scale", torch.tensor([1.0, 2.0, 0.5]))
        self.register_buffer("flags", torch.tensor([True, False, True]))

    def forward(self, x: Tensor) -> Tensor:
        x = self.given(self.enter(x)) * self.number
        for block in self.blocks:
            x = block(x)
        return x


def shared() -> Shared:
    torch.manual_seed(0)
    return Shared()


def draw(rng: np.random.Generator, piece: Piece) -> tuple[Tensor, Tensor]:
    x = rng.normal(size=(BATCH, 6)).astype(np.float32)
    part = piece.part(BATCH)
    return torch.from_numpy(x[part]), torch.from_numpy(np.sin(x[part, :3]))


def error(network: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, float]]:
    loss = (network.leave(network(batch[0])) * network.scale - batch[1]).square().mean()
    return loss, {"error": loss.item()}


def judge(network: nn.Module) -> Metric:
    """By its error on one batch, as a figure that is better higher."""
    assert not network.training
    return Metric("success", 1.0 - error(network, draw(np.random.default_rng(5), Piece()))[0].item(), "higher")


@dataclass(frozen=True)
class Run:
    """``world`` processes train in ``folder``; process ``victim`` comes to its end in ``kill_at`` or ``fail_at``."""

    folder: str
    kind: Literal["alone", "ddp", "fsdp2"] = "alone"
    world: int = 1
    victim: int = 0
    kill_at: int | None = None
    fail_at: int | None = None
    judged: bool = False
    trained_only: bool = False
    second_stage: bool = False
    config: LoopConfig = field(default=CONFIG)


@dataclass
class Ended:
    """Of one process: what its passes lost, in order, what it ended with, and what it said."""

    curve: list[float] = field(default_factory=list)
    metric: Any = None
    weights: list[float] = field(default_factory=list)
    error: str = ""
    said: str = ""


def one_process(run: Run, rank: int) -> Ended:
    """Train, as the process ``rank``."""
    ended, network = Ended(), shared()
    steps = [0]

    def watched(network: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, float]]:
        loss, figures = error(network, batch)
        if torch.is_grad_enabled():
            if run.kill_at == steps[0] and rank == run.victim:
                os.kill(os.getpid(), signal.SIGKILL)
            steps[0] += 1
            ended.curve.append(loss.item())
        return loss, figures

    def drawn(rng: np.random.Generator, piece: Piece) -> tuple[Tensor, Tensor]:
        if run.fail_at is not None and rank == run.victim:
            raise ValueError("no such file")
        return draw(rng, piece)

    parameters = [each for each in network.parameters() if each.requires_grad]
    stage = Stage("test", Path(run.folder) / "parts", 7, parameters, drawn, watched, draw, MADE)
    stage = replace(stage, judge=judge if run.judged else None, trained_only=run.trained_only)
    said = io.StringIO()
    try:
        with redirect_stdout(said):
            spread = None if run.kind == "alone" else Spread.from_environment(run.kind, [Block], limit_s=LIMIT_S)
            with spread or nullcontext():
                metric = fit(network, stage, run.config, spread)
                if run.second_stage:
                    network.blocks.requires_grad_(False)
                    parameters = [each for each in network.parameters() if each.requires_grad]
                    again = replace(stage, folder=stage.folder.with_name("again"), parameters=parameters)
                    metric = fit(network, again, run.config, spread)
                ended.metric = metric and asdict(metric)
                state = network.state_dict()
                whole = [(spread.gather(each) if spread else each).double().flatten() for each in state.values()]
                ended.weights = torch.cat(whole).tolist()
    except Exception as fault:
        ended.error = f"{type(fault).__name__}: {fault}"
    except SystemExit as exit:
        ended.error = f"SystemExit: {exit.code}"
    ended.said = "".join(line for line in said.getvalue().splitlines(True) if not line.isspace())
    return ended


def together(run: Run) -> list[dict[str, Any] | None]:
    """How each process ended, None where it was killed."""
    Path(run.folder).mkdir(parents=True, exist_ok=True)
    ports = socket.create_server(("127.0.0.1", 0))
    port = ports.getsockname()[1]
    ports.close()
    results = [Path(run.folder) / f"ended-{rank}.json" for rank in range(run.world)]
    children = []
    for rank, result in enumerate(results):
        result.unlink(missing_ok=True)
        child = os.fork()
        if child == 0:
            if run.kind != "alone":
                places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": run.world, "MASTER_PORT": port}
                os.environ.update({name: str(value) for name, value in places.items()}, MASTER_ADDR="127.0.0.1")
            result.write_text(json.dumps(asdict(one_process(run, rank))))
            os._exit(0)
        children.append(child)
    _wait(children)
    return [json.loads(result.read_text()) if result.exists() else None for result in results]


def _wait(children: list[int]) -> None:
    until = time.monotonic() + LIMIT_S
    left = set(children)
    while left:
        left = {child for child in left if os.waitpid(child, os.WNOHANG)[0] == 0}
        if left and time.monotonic() > until:
            for child in left:
                os.kill(child, signal.SIGKILL)
        time.sleep(0.01)


def load_what_torch_loads_late(folder: Path) -> None:
    """Here, once, instead of in each process: the modules that a training with FSDP2 has in the end."""
    loaded = folder / "modules"
    child = os.fork()
    if child == 0:
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
        folder.mkdir(parents=True, exist_ok=True)
        one_process(Run(str(folder), "fsdp2", config=replace(CONFIG, steps=1)), 0)
        loaded.write_text("\n".join(name for name in sys.modules if name.startswith(("torch.", "mobile_vla."))))
        os._exit(0)
    os.waitpid(child, 0)
    for name in loaded.read_text().splitlines():
        with suppress(ImportError):
            importlib.import_module(name)


def play(runs: list[tuple[str, Run]], say: Callable[[str], None]) -> None:
    """Play them one after the other; each prints a line of JSON: its name and how its processes ended."""
    for name, run in runs:
        began = time.monotonic()
        ended = together(run)
        say(json.dumps({"name": name, "ended": ended, "took_s": time.monotonic() - began}))


def all_runs(folder: Path) -> list[tuple[str, Run]]:
    """Every run that the tests look at; those in one folder go on where the one before was cut off."""

    def run(name: str, **settings: Any) -> tuple[str, Run]:
        config = replace(CONFIG, **settings.pop("config", {}))
        return name, Run(str(folder / settings.pop("where", name)), config=config, **settings)

    two_ddp, two_fsdp = {"kind": "ddp", "world": 2}, {"kind": "fsdp2", "world": 2}
    short = {"config": {"steps": 4}, "second_stage": True}
    average = {"config": {"ema": 0.9}, "judged": True}
    return [
        run("alone"),
        run("alone in passes", config={"accumulate": 4}),
        run("ddp", **two_ddp),
        run("ddp in passes", **two_ddp, config={"accumulate": 2}),
        run("fsdp2", **two_fsdp),
        run("fsdp2 in passes", **two_fsdp, config={"accumulate": 2}),
        run("ddp killed", **two_ddp, victim=1, kill_at=6, where="a"),
        run("ddp, then fsdp2", **two_fsdp, where="a"),
        run("fsdp2 killed", **two_fsdp, victim=1, kill_at=6, where="b"),
        run("fsdp2, then alone", where="b"),
        run("alone killed", kill_at=6, where="c"),
        run("alone, then ddp", **two_ddp, where="c"),
        run("first killed", **two_fsdp, victim=0, kill_at=6, where="d"),
        run("fsdp2, then ddp", **two_ddp, where="d"),
        run("average alone", **average),
        run("average fsdp2 killed", **two_fsdp, victim=1, kill_at=6, where="e", **average),
        run("average, then fsdp2", **two_fsdp, where="e", **average),
        run("trained only killed", **two_fsdp, victim=1, kill_at=6, where="f", trained_only=True),
        run("trained only, then ddp", **two_ddp, where="f", trained_only=True),
        run("two stages alone", **short),
        run("two stages ddp", **two_ddp, **short),
        run("two stages fsdp2", **two_fsdp, **short),
        run("a draw fails", **two_ddp, victim=1, fail_at=0),
        run("uneven", **two_ddp, config={"batch": 7}),
    ]


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) > 2:  # as torchrun starts it
        print(json.dumps(asdict(one_process(Run(sys.argv[1], sys.argv[2], 2), int(os.environ["RANK"])))), flush=True)
    else:
        load_what_torch_loads_late(Path(sys.argv[1]) / "first")
        play(all_runs(Path(sys.argv[1])), lambda line: print(line, flush=True))
