"""Full-size policies in miniature: towers of the size "tiny", heads of a few numbers, frames of 96 x 192."""

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from transformers import SiglipConfig

from mobile_vla.core import ActionContract, Frame, Observation, Status, Twist
from mobile_vla.policy.clip_lstm import ClipLstmNetwork
from mobile_vla.policy.encoders.sources import describe
from mobile_vla.policy.encoders.tower import TowerSpec
from mobile_vla.policy.heads import STATUSES, HeadConfig
from mobile_vla.policy.kinds import kind_named
from mobile_vla.policy.preprocess import HEIGHT, WIDTH
from mobile_vla.policy.vla import VlaNetwork

CONTRACT = ActionContract(horizon=4)
WAYS = {
    "kosmos_clip": ("kosmos_clip", {}),
    "kosmos_clip instruction_first": ("kosmos_clip", {"prompt": "instruction_first"}),
    "kosmos_lstm": ("kosmos_lstm", {}),
    "kosmos_lstm instruction_first": ("kosmos_lstm", {"prompt": "instruction_first"}),
    "clip_lstm": ("clip_lstm", {}),
}
"""Kinds and prompt orders."""
HEADS: dict[str, dict[str, Any]] = {
    "lstm": {},
    "lstm without end": {"window": 0},
    "mlp": {"kind": "mlp"},
    "transformer": {"kind": "transformer", "attention": 4},
    "flow": {"kind": "flow", "flow_steps": 4},
    "flow without end": {"kind": "flow", "flow_steps": 4, "window": 0},
}


def head(name: str = "lstm") -> HeadConfig:
    return HeadConfig(**{"window": 3, "hidden": 24, "layers": 1, "decoder": (24,)} | HEADS[name])


def little(way: str = "kosmos_clip", head_name: str = "lstm", driving: bool = True) -> VlaNetwork:
    """``driving``: it says so, whatever it sees, so that its velocities are not those of standing still."""
    name, options = WAYS[way]
    kind = kind_named(name)
    config = kind.config(
        height=HEIGHT,
        width=WIDTH,
        pointer=16,
        head=head(head_name),
        **dict.fromkeys(kind.config.towers, "tiny"),
        **options,
    )
    torch.manual_seed(3)
    return settled(kind.make(config, CONTRACT), driving)


def settled(network: VlaNetwork, driving: bool) -> VlaNetwork:
    if driving:
        with torch.no_grad():
            network.head.status.bias[STATUSES.index(Status.DRIVING)] = 10.0
    return network.eval()


def siglip_spec() -> TowerSpec:
    """A SigLIP of random weights, with the tokenizer of a tiny CLIP."""
    clip = describe("tiny", "clip")
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = SiglipConfig(
        text_config={**small, "vocab_size": 600, "max_position_embeddings": 32, "pad_token_id": 1},
        vision_config={**small, "image_size": 96, "patch_size": 16},
    )
    return TowerSpec("a test's", config.to_dict(), clip.tokenizer, clip.mean, clip.std)


def with_siglip() -> VlaNetwork:
    kind = kind_named("clip_lstm")
    config = kind.config(height=HEIGHT, width=WIDTH, pointer=16, head=head(), clip="a test's")
    torch.manual_seed(3)
    network = kind.build({"config": asdict(config), "towers": {"clip": asdict(siglip_spec())}}, CONTRACT)
    assert isinstance(network, ClipLstmNetwork)
    return settled(network, driving=True)


def observation(seed: int, stamp_ns: int = 0) -> Observation:
    pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    return Observation(Frame(pixels, stamp_ns, "test", "front", seed), Twist(0.1, -0.05, 0.2))
