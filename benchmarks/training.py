"""How many frames a second the two stages of training learn from: seeing, and driving, on made-up data."""

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from machine import describe, rate
from mobile_vla.core import ActionContract
from mobile_vla.language import Grammar
from mobile_vla.policy.compact import COLUMNS, MOTION_SIZE, CompactConfig, CompactNetwork
from mobile_vla.policy.preprocess import HEIGHT, WIDTH
from mobile_vla.sim.scenarios import ROUTES, draw_scene
from mobile_vla.train.config import TrainConfig
from mobile_vla.train.drive import Drives, drive_loss
from mobile_vla.train.see import NAMES, Frames, see_loss

FRAMES_AN_EPISODE = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=TrainConfig().threads)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    describe()
    rng = np.random.default_rng(1)
    config, grammar = TrainConfig(), Grammar.load()
    network = CompactNetwork(CompactConfig(), ActionContract()).to(memory_format=torch.channels_last)
    print(f"{sum(parameter.numel() for parameter in network.parameters()):,} parameters, {options.threads} threads")
    network.train()
    words = torch.randn(8, len(NAMES), network.config.words)
    see = partial(see_loss, network, _frames(256, rng), words, config.see.batch)
    rate("see stage", "frames", _step(network, [network.eye, network.query, network.nothing], see, config.see.batch))
    drives = _drives(network, 128, rng)
    drive = partial(drive_loss, network, drives, grammar, config.drive.batch)
    parts = [network.enter, network.memory, network.head]
    rate("drive stage", "frames", _step(network, parts, drive, config.drive.batch * FRAMES_AN_EPISODE))


def _step(
    network: CompactNetwork,
    parts: list[nn.Module],
    loss: Callable[[np.random.Generator], tuple[Tensor, dict[str, float]]],
    frames: int,
) -> Callable[[], int]:
    optimizer = torch.optim.AdamW([p for part in parts for p in part.parameters()], lr=1e-4, fused=True)
    rng = np.random.default_rng(2)

    def step() -> int:
        value, _ = loss(rng)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        return frames

    return step


def _frames(count: int, rng: np.random.Generator) -> Frames:
    pixels = rng.integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8)
    objects = np.full((count, 8, 8), -1.0, np.float32)
    kinds, colours = rng.integers(0, 8, (count, 6)), rng.integers(0, 6, (count, 6))
    places = rng.uniform((0, 0), (WIDTH, HEIGHT), (count, 6, 2))
    sizes = rng.uniform(3, 15, (count, 6, 2))
    seen, away = rng.uniform(0.3, 1, (count, 6, 1)), rng.uniform(0.4, 4, (count, 6, 1))
    objects[:, :6] = np.concatenate([kinds[..., None], colours[..., None], places, sizes, seen, away], axis=2)
    return Frames(pixels, objects, rng.uniform(0.2, 4, (count, COLUMNS)).astype(np.float32))


def _drives(network: CompactNetwork, episodes: int, rng: np.random.Generator) -> Drives:
    drives, width = Drives(), network.enter.in_features - network.config.words - MOTION_SIZE
    for number in range(episodes):
        drives.goals.append(draw_scene(ROUTES[number % len(ROUTES)], number % 5).scene.goals[0])
        drives.words.append(torch.randn(network.config.words))
        drives.seen.append(torch.randn(FRAMES_AN_EPISODE, width).half())
        drives.motion.append(torch.randn(FRAMES_AN_EPISODE, MOTION_SIZE))
        drives.chunks.append(torch.rand(FRAMES_AN_EPISODE, network.contract.horizon, 3) * 2 - 1)
        drives.statuses.append(torch.from_numpy(rng.integers(0, 4, FRAMES_AN_EPISODE)))
    return drives


if __name__ == "__main__":
    main()
