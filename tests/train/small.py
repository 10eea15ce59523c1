"""A small training: what the tests of the loop and of its saved steps run, and kill, in this process or another."""

import contextlib
import hashlib
import io
import itertools
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mobile_vla.checkpoint import Checkpoint, Metric
from mobile_vla.checkpoint.keep import newest_whole
from mobile_vla.core import ActionContract
from mobile_vla.train.loop import LoopConfig, Piece, Stage, fit

CONFIG = LoopConfig(steps=40, batch=4, learning_rate=0.01, warmup=5, save_every=10)
MADE = Checkpoint("test", {}, ActionContract(), {"seed": 7}, {})


class Small(nn.Module):
    """Everything that makes resuming hard: dropout, running statistics, other memory formats, an unused parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.see = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.decide = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(32, 1))
        self.unused = nn.Linear(2, 2)
        self.to(memory_format=torch.channels_last)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.decide(self.see(pixels.contiguous(memory_format=torch.channels_last)))


def small() -> Small:
    torch.manual_seed(0)
    return Small().train()


def stage(network: Small, folder: Path, before_each: Callable[[], None] = lambda: None) -> Stage:
    def loss(module: nn.Module, pixels: Tensor) -> tuple[Tensor, dict[str, float]]:
        if torch.is_grad_enabled():
            before_each()
        error = (module(pixels) - pixels.mean((1, 2, 3))[:, None]).square().mean()
        return error, {"error": error.item()}

    return Stage("test", folder, 7, list(network.parameters()), draw, loss, draw, MADE)


def draw(rng: np.random.Generator, piece: Piece) -> Tensor:
    """A piece of a batch of pictures."""
    pixels = torch.from_numpy(rng.normal(size=(CONFIG.batch, 3, 4, 4)).astype(np.float32))
    return pixels[piece.part(CONFIG.batch)]


def digest(network: nn.Module) -> str:
    parts = [name.encode() + value.numpy().tobytes() for name, value in network.state_dict().items()]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def kill_at_the(number: int, folder: Path) -> None:
    """SIGKILL to this process just before it changes files below ``folder`` for the ``number``-th time."""
    left = [number]

    def count(event: str, arguments: tuple[object, ...]) -> None:
        writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wa+")
        changes = writes or event in ("os.rename", "os.mkdir")
        removes = event in ("os.remove", "os.rmdir")
        inside = (changes or removes) and str(folder) in str(arguments[0])
        if inside or (removes and arguments[1] != -1):  # -1: named by its whole path; else within an open folder
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def fit_small(
    folder: Path, config: LoopConfig = CONFIG, before_each: Callable[[], None] = lambda: None
) -> tuple[str, Metric | None, str]:
    """Train it: the digest of the weights it ends with, their validation loss, and what was said meanwhile."""
    network, said = small(), io.StringIO()
    with contextlib.redirect_stdout(said):
        metric = fit(network, stage(network, folder, before_each), config)
    return digest(network), metric, said.getvalue()


def drill(folder: Path) -> None:
    """Kill a training at each of its changes to files, resume it, and print a line of JSON for each kill."""
    config = replace(CONFIG, steps=6, save_every=2, keep_last=1)

    def train(where: Path, kill_at: int = 0) -> bool:
        child = os.fork()
        if child == 0:
            if kill_at:
                kill_at_the(kill_at, where)
            (where.parent / "ended").write_text(str(fit_small(where, config)[:2]))
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL

    fit_small(folder / "whole" / "parts", config)  # loads here, once, what torch loads late
    for number in itertools.count(1):
        where = folder / str(number) / "parts"
        where.parent.mkdir()
        killed = train(where, number)
        whole = newest_whole(where)
        train(where)
        ended = (where.parent / "ended").read_text()
        print(json.dumps({"killed": killed, "newest": whole and whole.name, "ended": ended}), flush=True)
        if not killed:
            break


if __name__ == "__main__":
    torch.set_num_threads(1)
    drill(Path(sys.argv[1]))
