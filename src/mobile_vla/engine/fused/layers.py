"""Transformer layers made for inference alone, from those of ``transformers``: fewer operations, the same function.

Up to rounding, each of these changes nothing:

- queries, keys and values are one product instead of three, with the queries' scale in the weights;
- what a LayerNorm multiplies and adds afterwards is part of the next product;
- what depends on no input (positions, masks, the class token's first row) is computed once;
- x * sigmoid(1.702 x) is one operation on a scaled product, SiLU;
- the normalisation of pixels is part of the product that embeds patches, which are cut out of the bytes themselves.

A layer is the usual one (Vaswani et al. 2017; normalised before attention and before the perceptron), here with the two
inner normalisations of Magneto (Wang et al. 2022) that Kosmos-2's decoder has.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import QuickGELUActivation

from mobile_vla.core import ConfigError
from mobile_vla.engine.fused.narrow import Form
from mobile_vla.policy.encoders.merged import MergedEncoder

MIDDLE = 128
"""Taken from every byte: whole numbers of -128..127 are exact in bfloat16, and their mean is near zero."""


_QUICK = 1.702


class Weights(NamedTuple):
    """Of a linear layer, float32: (outputs, inputs) and (outputs,)."""

    weight: Tensor
    bias: Tensor


class LayerParts(NamedTuple):
    """A transformer layer taken apart; the inner norms are those of a decoder, or None."""

    before: nn.LayerNorm
    attention: Any
    scale: float
    inner: nn.LayerNorm | None
    between: nn.LayerNorm
    up: nn.Linear
    activation: nn.Module
    middle: nn.LayerNorm | None
    down: nn.Linear


def parts_of_encoder(layer: Any) -> LayerParts:
    """Of a vision transformer: Kosmos-2's, CLIP's and SigLIP's have the same names."""
    attention, perceptron = layer.self_attn, layer.mlp
    return LayerParts(
        layer.layer_norm1, attention, attention.scale, None,
        layer.layer_norm2, perceptron.fc1, perceptron.activation_fn, None, perceptron.fc2,
    )  # fmt: skip


def parts_of_decoder(layer: Any) -> LayerParts:
    """Of Kosmos-2's text decoder."""
    attention, perceptron = layer.self_attn, layer.ffn
    return LayerParts(
        layer.self_attn_layer_norm, attention, attention.scaling, attention.inner_attn_ln,
        layer.final_layer_norm, perceptron.fc1, perceptron.activation_fn, perceptron.ffn_layernorm, perceptron.fc2,
    )  # fmt: skip


class FusedLayer(nn.Module):
    """One layer: four products and one attention. ``causal``: each token sees those before it and itself."""

    def __init__(self, parts: LayerParts, form: Form, causal: bool) -> None:
        super().__init__()
        attention = parts.attention
        self.heads, self.causal = attention.num_heads, causal
        self.before, self.between = Normalised(parts.before), Normalised(parts.between)
        self.inner = None if parts.inner is None else Normalised(parts.inner)
        self.middle = None if parts.middle is None else Normalised(parts.middle)
        query, key, value = (weights_of(each) for each in (attention.q_proj, attention.k_proj, attention.v_proj))
        asked = stacked([scaled(query, parts.scale), key, value])
        self.attend = form.large(*after(parts.before, asked))
        self.leave = form.large(*after(parts.inner, weights_of(attention.out_proj)))
        up, down = after(parts.between, weights_of(parts.up)), after(parts.middle, weights_of(parts.down))
        self.activation = parts.activation
        if isinstance(parts.activation, QuickGELUActivation) and parts.middle is None:
            up, self.activation = scaled(up, _QUICK), nn.SiLU()
            down = Weights(down.weight / _QUICK, down.bias)
        self.up, self.down = form.large(*up), form.large(*down)

    def forward(self, hidden: Tensor, seen: Tensor | None = None, past: Tensor | None = None) -> Tensor:
        """(N, T, D) to the same.

        ``seen`` (N, 1, T, P + T), or what becomes that: which tokens each looks at, or what is added to their scores,
        where it is neither all nor ``causal``. ``past`` (N, 2, heads, P, D / heads): keys and values of what stands
        before.
        """
        queries, keys, values = by_head(self.attend(self.before(hidden)), 3, self.heads)
        if past is not None:
            keys, values = torch.cat([past[:, 0], keys], dim=2), torch.cat([past[:, 1], values], dim=2)
        causal = self.causal and seen is None
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=seen, is_causal=causal, scale=1.0)
        mixed = mixed.transpose(1, 2).flatten(2)
        hidden = hidden + self.leave(mixed if self.inner is None else self.inner(mixed))
        wide = self.activation(self.up(self.between(hidden)))
        result: Tensor = hidden + self.down(wide if self.middle is None else self.middle(wide))
        return result


class Normalised(nn.Module):
    """A LayerNorm without what it multiplies and adds, which is part of the product that follows."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.shape, self.eps = norm.normalized_shape, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to zero mean and unit variance."""
        return F.layer_norm(x, self.shape, eps=self.eps)


class FusedEye(nn.Module):
    """A vision transformer up to its last layer: uint8 (N, height, width, 3) to (N, tokens, D), class token first.

    ``embeddings`` and ``encoder`` are those of ``transformers``, the latter perhaps one that merges patches. ``size``:
    (rows, columns) of the frames, whose values in 0..1 were normalised by ``mean`` and ``std`` in training.
    ``interpolate``: the frames are of another size than they were then.
    """

    places: Tensor
    first: Tensor | None

    def __init__(
        self,
        embeddings: Any,
        norm: nn.LayerNorm | None,
        encoder: Any,
        size: tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
        interpolate: bool,
        form: Form,
    ) -> None:
        super().__init__()
        convolution = embeddings.patch_embedding
        self.cell = convolution.kernel_size[0]
        self.grid = (size[0] // self.cell, size[1] // self.cell)
        weight, bias = _of_bytes(convolution, mean, std)
        classed = hasattr(embeddings, "class_embedding")
        places = _places(embeddings, size, int(classed) + self.grid[0] * self.grid[1], interpolate)
        self.enter = form.plain(weight, None)
        self.dtype = form.dtype
        self.register_buffer("places", form.constant(places[int(classed) :] + bias))
        self.norm = None if norm is None else form.as_it_is(norm)
        self.register_buffer("first", None)
        if classed:
            first = embeddings.class_embedding.detach().float() + places[0]
            if norm is not None:
                first = F.layer_norm(first, norm.normalized_shape, norm.weight.float(), norm.bias.float(), norm.eps)
            self.first = form.constant(first)
        self.merging = None
        if isinstance(encoder, MergedEncoder):
            before = fused_layers(parts_of_encoder, encoder.before, form, causal=False)
            behind = fused_layers(parts_of_encoder, encoder.behind, form, causal=False)
            self.merging = MergedEncoder(before, behind, encoder.cells, encoder.kept)
            self.layers = nn.ModuleList()
        else:
            self.layers = fused_layers(parts_of_encoder, encoder.layers, form, causal=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """See the class."""
        (rows, columns), cell = self.grid, self.cell
        cells = pixels.view(-1, rows, cell, columns, cell, 3).transpose(2, 3)
        bytes_of_cells = cells.reshape(len(pixels), rows * columns, cell * cell * 3)
        hidden: Tensor = self.enter(bytes_of_cells.to(self.dtype) - MIDDLE) + self.places
        if self.norm is not None:
            hidden = self.norm(hidden)
        if self.first is not None:
            hidden = torch.cat([self.first.expand(len(pixels), 1, -1), hidden], dim=1)
        for layer in self.layers:
            hidden = layer(hidden)
        if self.merging is not None:
            hidden = self.merging(hidden).last_hidden_state
        return hidden


def fused_layers(
    taken_apart: Callable[[Any], LayerParts], layers: Iterable[nn.Module], form: Form, causal: bool
) -> nn.ModuleList:
    """One after another, so that what a layer was made from can be given up before the next."""
    made = nn.ModuleList()
    for layer in layers:
        made.append(FusedLayer(taken_apart(layer), form, causal))
        form.give_up(layer)
    return made


def weights_of(linear: nn.Module) -> Weights:
    """In float32. ConfigError where the layer is not a plain linear one, an adapter not yet merged for example."""
    if type(linear) is not nn.Linear:
        raise ConfigError(
            f"the network has a {type(linear).__name__} where a linear layer was expected: merge what was added to it "
            "first, or drive with the checkpoint itself"
        )
    weight = linear.weight.detach().float()
    return Weights(weight, weight.new_zeros(len(weight)) if linear.bias is None else linear.bias.detach().float())


def scaled(linear: Weights, factor: float) -> Weights:
    """Its outputs times ``factor``."""
    return Weights(linear.weight * factor, linear.bias * factor)


def stacked(linears: Sequence[Weights]) -> Weights:
    """Side by side: the outputs of the first, then those of the next."""
    return Weights(torch.cat([each.weight for each in linears]), torch.cat([each.bias for each in linears]))


def after(norm: nn.LayerNorm | None, linear: Weights) -> Weights:
    """To be put after ``Normalised(norm)``; as it is where there is no norm."""
    if norm is None:
        return linear
    weight, bias = norm.weight.detach().float(), norm.bias.detach().float()
    return Weights(linear.weight * weight, linear.bias + linear.weight @ bias)


def chained(first: Weights, second: Weights) -> Weights:
    """Two linear layers with nothing between them as one."""
    return Weights(second.weight @ first.weight, second.weight @ first.bias + second.bias)


def by_head(joined: Tensor, kinds: int, heads: int) -> tuple[Tensor, ...]:
    """(N, T, kinds * D) to so many tensors (N, heads, T, D / heads), without a copy."""
    split = torch.unflatten(joined, -1, (kinds, heads, -1)).permute(2, 0, 3, 1, 4)
    return tuple(split.unbind(0))


def _of_bytes(convolution: nn.Conv2d, mean: Sequence[float], std: Sequence[float]) -> Weights:
    """Of the product that takes a cell's bytes less ``MIDDLE``, row by row and RGB each, to the embedding."""
    weight = convolution.weight.detach().float()
    spread = 255.0 * torch.tensor(std, device=weight.device)[:, None, None]
    offset = (MIDDLE / 255.0 - torch.tensor(mean, device=weight.device)) / torch.tensor(std, device=weight.device)
    bias = (weight * offset[:, None, None]).sum(dim=(1, 2, 3))
    if convolution.bias is not None:
        bias = bias + convolution.bias.detach().float()
    return Weights((weight / spread).permute(0, 2, 3, 1).flatten(1), bias)


def _places(embeddings: Any, size: tuple[int, int], tokens: int, interpolate: bool) -> Tensor:
    """What is added to the embedding of each token, (tokens, D)."""
    table: Tensor = embeddings.position_embedding.weight.detach()
    if interpolate:
        table = embeddings.interpolate_pos_encoding(table.new_zeros(1, tokens, table.shape[1]), *size).detach()[0]
    return table.float()
