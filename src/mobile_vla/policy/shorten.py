"""Less of a full-size policy for inference: early exit from its layers, fewer patches, fewer latent tokens.

Nothing is trained again: what is left out is left out of a policy that was trained with all of it. What that costs in
success is measured by ``benchmarks/shortened.py``. Of several towers only the one that leads is shortened: CLIP beside
Kosmos-2 is 2 % of the products.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar, cast

from torch import nn

from mobile_vla.core import ConfigError
from mobile_vla.policy.encoders.clip import ClipTower
from mobile_vla.policy.encoders.kosmos import KosmosTower
from mobile_vla.policy.encoders.merged import MergedEncoder, share_of
from mobile_vla.policy.vla import VlaNetwork
from mobile_vla.robot.registry import read_settings

_Network = TypeVar("_Network", bound=VlaNetwork)


@dataclass(frozen=True)
class Shortening:
    """What is left of the leading tower; by default all of it.

    ``decoder_layers``, ``vision_layers``: the answer is taken after so many layers, the last norm applied (early exit;
    Schuster et al. 2022). ``patches``: share of the patches that go through the vision transformer's later layers, by
    default its second half, else those behind ``after_layer`` (``encoders.merged``). ``latents``: share of the latent
    tokens that the decoder reads, evenly spread, in the places where they stood. Shares are above 0, and rounded up to
    whole tokens.
    """

    decoder_layers: int | None = None
    vision_layers: int | None = None
    patches: float = 1.0
    latents: float = 1.0
    after_layer: int | None = None

    def __post_init__(self) -> None:
        for name in ("decoder_layers", "vision_layers", "after_layer"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise ConfigError(f"{name}={count}: choose at least 1, or leave it out to keep all")
        for name in ("patches", "latents"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"{name}={getattr(self, name)}: choose a share above 0 and at most 1")
        if self.after_layer is not None and self.patches == 1:
            raise ConfigError(f"after_layer={self.after_layer} means nothing without patches: give a share below 1")

    def __str__(self) -> str:
        """As ``read_shortening`` reads it; empty where nothing is left out."""
        said = {
            item.name: getattr(self, item.name) for item in fields(self) if getattr(self, item.name) != item.default
        }
        return " ".join(f"{name}={value}" for name, value in said.items())


def read_shortening(text: str) -> Shortening:
    """From words such as ``decoder_layers=16 latents=0.5``. ConfigError for what cannot be read."""
    values: dict[str, Any] = {}
    for word in text.split():
        key, equals, value = word.partition("=")
        if not equals or not value:
            raise ConfigError(f"{word!r} does not say what to leave out: write key=value, e.g. decoder_layers=16")
        if key in values:
            raise ConfigError(f"the shortening {text!r} gives {key} twice: give it once")
        values[key] = _number(value)
    return read_settings(Shortening, values, "the shortening")


def shorten(network: _Network, how: Shortening) -> _Network:
    """Another network on the same weights, in evaluation mode; ``network`` stays as it was.

    With the default of ``how`` it gives the same numbers, bit by bit. It says of itself how it was ``shortened``, and
    it is not saved: save the network that it was made of. ConfigError where the network has not what is to be left out.
    """
    if not isinstance(network, VlaNetwork):
        raise ConfigError(f"a network of class {type(network).__name__} cannot be shortened: choose a full-size policy")
    if network.shortened:
        raise ConfigError(f"this network is shortened already ({network.shortened}): shorten the whole one")
    made = _on_the_same_weights(network).eval()
    tower = cast("KosmosTower | ClipTower", made.towers[made.config.towers[0]])
    if isinstance(tower, KosmosTower):
        vision, decoder = tower.model.vision_model.model, tower.model.text_model.model
        decoder.layers = nn.ModuleList(_first(decoder.layers, how.decoder_layers, "decoder_layers", made.kind))
        if how.latents < 1:
            tower.keep_latents(share_of(tower.latents, how.latents))
    elif how.decoder_layers is not None or how.latents < 1:
        raise ConfigError(
            f"a policy of kind {made.kind} has no decoder and no latents: choose vision_layers or patches"
        )
    else:
        vision = tower.model.vision_model
    layers = _first(vision.encoder.layers, how.vision_layers, "vision_layers", made.kind)
    vision.encoder.layers = nn.ModuleList(layers)
    if how.patches < 1:
        after = len(layers) // 2 if how.after_layer is None else how.after_layer
        if not 1 <= after < len(layers):
            raise ConfigError(
                f"patches={how.patches} after layer {after} of {len(layers)}: choose an after_layer of at least 1 that "
                "leaves a layer behind it"
            )
        cells = tower.grid[0] * tower.grid[1]
        kept = share_of(cells, how.patches)
        vision.encoder = MergedEncoder(layers[:after], layers[after:], cells, kept)
    made.shortened = str(how)
    return made


def _on_the_same_weights(network: _Network) -> _Network:
    """Modules of its own; tensors, and what no one changes, are the network's."""
    shared: list[Any] = [*network.parameters(), *network.buffers(), network.config, network.contract, network.specs]
    shared += [getattr(tower, "tokenizer", None) for tower in network.towers.values()]
    return copy.deepcopy(network, {id(each): each for each in shared})


def _first(layers: Sequence[nn.Module], count: int | None, name: str, kind: str) -> list[nn.Module]:
    if count is not None and count > len(layers):
        raise ConfigError(f"{name}={count}: this {kind} has {len(layers)} layers there, choose at most so many")
    return list(layers)[:count]


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
