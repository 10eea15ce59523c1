"""Networks of full size with weights drawn at random: for speed and memory alone, where no trained ones are at hand."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from mobile_vla.core import ActionContract, ConfigError
from mobile_vla.policy.kinds import PolicyKind, kind_named, kind_of

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
OURS = ("clip_lstm", "compact", "kosmos_clip", "kosmos_lstm")
"""Kinds of which the true configuration is known here."""

_SEED = 0
_ROWS = 10
"""Of a chunk, as the full-size policies give by default."""


def drawn(kind_name: str, precision: str = "fp32", device: str = "cpu") -> nn.Module:
    """A network of this kind with its default configuration and the towers it was published with, in evaluation mode.

    It is built in the precision ("fp32", "bf16" or "fp16"), so that no wider copy is ever held. On device "meta" it has
    shapes and no weights. The tokenizer is a small one. ConfigError for a kind whose true configuration is not known.
    """
    kind = kind_named(kind_name)
    if kind_name not in OURS:
        raise ConfigError(f"the full size of {kind_name} is not known here: choose among {', '.join(OURS)}")
    with torch.random.fork_rng(devices=[]), _default(DTYPES[precision]), torch.device(device):
        torch.manual_seed(_SEED)
        return _built(kind).eval().requires_grad_(False)


def require_full_size(network: nn.Module) -> None:
    """ConfigError unless every tensor has the name and shape that it has in the full-size network of its kind."""
    kind = kind_of(network)
    full = {name: tuple(each.shape) for name, each in drawn(kind.name, device="meta").state_dict().items()}
    own = {name: tuple(each.shape) for name, each in network.state_dict().items()}
    if own == full:
        return
    differing = sorted(name for name in own.keys() | full.keys() if own.get(name) != full.get(name))
    have, need = (sum(torch.Size(shape).numel() for shape in each.values()) for each in (own, full))
    raise ConfigError(
        f"this {kind.name} is not of full size: it holds {have:,} numbers where there are {need:,}, and "
        f"{len(differing)} tensors differ ({differing[0]} first); random weights are timed at full size alone"
    )


def _built(kind: PolicyKind) -> nn.Module:
    config = kind.config()
    towers: tuple[str, ...] = getattr(config, "towers", ())
    if not towers:
        return kind.make(config, ActionContract())
    from transformers import CLIPConfig, Kosmos2Config

    from mobile_vla.policy.encoders.sources import describe
    from mobile_vla.policy.encoders.tower import TowerSpec

    published = {"kosmos": Kosmos2Config, "clip": CLIPConfig}  # their defaults are Kosmos-2 and CLIP B/32
    little = describe("tiny", "kosmos")
    specs = {
        name: TowerSpec(f"random weights in place of {getattr(config, name)}", published[name]().to_dict(),
                        little.tokenizer, little.mean, little.std)
        for name in towers
    }  # fmt: skip
    return kind.network(config, ActionContract(horizon=_ROWS), specs)


@contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
