"""A small compact policy that has learnt nothing, on the disk."""

from pathlib import Path

import torch

from mobile_vla.core import ActionContract
from mobile_vla.policy.compact import CompactConfig, CompactNetwork
from mobile_vla.policy.weights import save_network

SLIM = CompactConfig(stem=4, middle=8, top=16)
"""Takes and gives what the shipped policy does, with fewer weights between."""


def network(config: CompactConfig = SLIM, seed: int = 3) -> CompactNetwork:
    torch.manual_seed(seed)
    return CompactNetwork(config, ActionContract()).eval()


def checkpoint(folder: Path, config: CompactConfig = SLIM) -> Path:
    save_network(folder, network(config), {"seed": 3})
    return folder
