"""The towers of a full-size policy for inference: an eye that sees a frame, and a mind that asks it with words.

Made from ``policy.encoders``, whose functions they are up to rounding; words are read by the towers themselves.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobile_vla.engine.fused.layers import (
    FusedEye,
    by_head,
    chained,
    fused_layers,
    parts_of_decoder,
    scaled,
    stacked,
    weights_of,
)
from mobile_vla.engine.fused.narrow import Form
from mobile_vla.policy.encoders.clip import ClipTower
from mobile_vla.policy.encoders.kosmos import INSTRUCTION_FIRST, UNMARKED, KosmosTower
from mobile_vla.policy.encoders.tower import Seen


def eye_of(tower: KosmosTower | ClipTower, form: Form) -> nn.Module:
    """A module of frames uint8 (N, height, width, 3) to (tokens, patches) of ``Seen``; see ``mind_of``."""
    return KosmosEye(tower, form) if isinstance(tower, KosmosTower) else ClipEye(tower, form)


def mind_of(tower: KosmosTower | ClipTower, form: Form) -> nn.Module:
    """A module of tokens as from the tower's eye, and the tower's words, to the tower's answer."""
    return KosmosMind(tower, form) if isinstance(tower, KosmosTower) else ClipMind(tower)


class KosmosEye(nn.Module):
    """The vision transformer and the projector. Its tokens are embedded for the decoder: scaled, and in their places.

    The projector's queries, and the keys and values of its own latents, depend on no frame.
    """

    queries: Tensor
    own: Tensor
    places: Tensor | None

    def __init__(self, tower: KosmosTower, form: Form) -> None:
        super().__init__()
        vision, projector = tower.model.vision_model.model, tower.model.image_to_text_projection
        self.eye = FusedEye(
            vision.embeddings,
            vision.pre_layrnorm,
            vision.encoder,
            (tower.grid[0] * vision.embeddings.patch_size, tower.grid[1] * vision.embeddings.patch_size),
            tower.spec.mean,
            tower.spec.std,
            tower.interpolate,
            form,
        )
        self.after = form.as_it_is(vision.post_layernorm)
        attention = projector.x_attn
        self.heads = attention.num_heads
        latents = projector.latent_query.detach().float()
        held = stacked([weights_of(attention.k_proj), weights_of(attention.v_proj)])
        self.hold = form.large(*chained(weights_of(projector.dense), held))
        self.register_buffer("own", form.constant(F.linear(latents, *held)[None]))
        queries = F.linear(latents[_kept(tower)], *scaled(weights_of(attention.q_proj), attention.scaling))
        self.register_buffer("queries", form.constant(by_head(queries[None], 1, self.heads)[0]))
        decoder = tower.model.text_model.model
        leave = scaled(weights_of(attention.out_proj), decoder.embed_scale)
        self.leave = form.large(*leave)
        places = _places_of_latents(tower)
        self.register_buffer("places", None if places is None else form.constant(places))
        form.give_up(projector.dense, attention)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """See ``eye_of``."""
        count = len(pixels)
        features = self.after(self.eye(pixels))
        held = torch.cat([self.hold(F.normalize(features, dim=-1)), self.own.expand(count, -1, -1)], dim=1)
        keys, values = by_head(held, 2, self.heads)
        mixed = F.scaled_dot_product_attention(self.queries.expand(count, -1, -1, -1), keys, values, scale=1.0)
        latents = self.leave(mixed.transpose(1, 2).flatten(2))
        return latents if self.places is None else latents + self.places, features[:, 1:]


class KosmosMind(nn.Module):
    """The text decoder, with the marks around the latents already embedded."""

    places: Tensor
    before: Tensor
    behind: Tensor
    offsets: Tensor
    looks_back: Tensor

    def __init__(self, tower: KosmosTower, form: Form) -> None:
        super().__init__()
        decoder = tower.model.text_model.model
        self.words_first = tower.prompt == INSTRUCTION_FIRST
        self.scale, self.start = float(decoder.embed_scale), _start(tower)
        latents = tower.model.config.latent_query_num  # those that are left out leave their places free
        table = decoder.embed_positions.weights.detach().float()
        with torch.no_grad():
            marks = decoder.embed_tokens(tower.marks).float() * self.scale
            begin, opened, closed = marks[:, None]
            action = tower.action.float()[None] * self.scale
        if self.words_first:
            before, behind = opened, torch.cat([closed, action])
        elif tower.prompt == UNMARKED:
            before, behind = begin, closed[:0]
        else:
            before, behind = torch.cat([begin, opened]), closed
        rest, end = len(before) + latents, len(before) + latents + len(behind)
        if not self.words_first:  # places are known, and the words stand behind
            table = table[self.start :]
            before, behind = before + table[: len(before)], behind + table[rest:end]
            table = table[end:]
        place = torch.arange(end, device=table.device)
        offsets = torch.cat([place[: len(before)], len(before) + _kept(tower), place[rest:]])
        self.here = here = len(offsets)
        self.register_buffer("offsets", offsets.to(form.device))
        self.register_buffer("places", form.constant(table))
        self.register_buffer("before", form.constant(before[None]))
        self.register_buffer("behind", form.constant(behind[None]))
        looks_back = torch.ones(here, here, dtype=torch.bool, device=form.device).tril()
        self.register_buffer("looks_back", looks_back)
        kept = Form(form.precision, form.device, form.gives_up and not self.words_first)  # which read the words first
        self.layers = fused_layers(parts_of_decoder, decoder.layers, kept, causal=True)
        self.norm = form.as_it_is(decoder.layer_norm)

    def forward(self, tokens: Tensor, kept: Tensor, lengths: Tensor) -> Tensor:
        """See ``mind_of``; the words as from ``KosmosTower.read`` without training."""
        count = len(tokens)
        around = [self.before.expand(count, -1, -1), tokens, self.behind.expand(count, -1, -1)]
        if self.words_first:
            return self._after_words(torch.cat(around, dim=1), kept, lengths)
        hidden = torch.cat([*around, kept * self.scale + self.places[: kept.shape[1]]], dim=1)
        for layer in self.layers:
            hidden = layer(hidden)
        ends = hidden[torch.arange(count, device=lengths.device), self.here + lengths]
        answer: Tensor = self.norm(ends)
        return answer

    def _after_words(self, hidden: Tensor, kept: Tensor, lengths: Tensor) -> Tensor:
        """``kept`` (N, layers, 2, heads, P, D / heads): keys and values of ``<s>`` and the words."""
        count, room = len(hidden), kept.shape[-2]
        place = torch.arange(room, device=lengths.device)
        read = (place <= lengths[:, None])[:, None, None].expand(-1, -1, self.here, -1)
        seen = torch.cat([read, self.looks_back.expand(count, 1, -1, -1)], dim=-1)
        after = self.start + 1 + lengths[:, None] + self.offsets
        hidden = hidden + self.places[after]
        for number, layer in enumerate(self.layers):
            hidden = layer(hidden, seen, kept[:, number])
        answer: Tensor = self.norm(hidden[:, -1])
        return answer


class ClipEye(nn.Module):
    """The vision transformer and what makes one vector of it, for CLIP and for SigLIP."""

    def __init__(self, tower: ClipTower, form: Form) -> None:
        super().__init__()
        vision = tower.model.vision_model
        cell = vision.embeddings.patch_size
        self.classed = tower.family == "clip"
        self.eye = FusedEye(
            vision.embeddings,
            vision.pre_layrnorm if self.classed else None,
            vision.encoder,
            (tower.grid[0] * cell, tower.grid[1] * cell),
            tower.spec.mean,
            tower.spec.std,
            tower.interpolate,
            form,
        )
        self.after = form.as_it_is(vision.post_layernorm)
        if self.classed:
            self.pool = form.plain(*weights_of(tower.model.visual_projection))
        else:
            self.pool = form.as_it_is(vision.head)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """See ``eye_of``."""
        hidden = self.eye(pixels)
        if self.classed:
            pooled, patches = self.pool(self.after(hidden[:, 0])), hidden[:, 1:]
        else:
            patches = self.after(hidden)
            pooled = self.pool(patches)
        return F.normalize(pooled, dim=-1), patches


class ClipMind(nn.Module):
    """It has no weights: words and frame meet in a product."""

    def __init__(self, tower: ClipTower) -> None:
        super().__init__()
        self._tower = (tower,)  # within a tuple: it is no part of what is compiled

    def forward(self, tokens: Tensor, text: Tensor) -> Tensor:
        """See ``mind_of``."""
        return self._tower[0].ask(Seen(tokens, tokens), (text,))


def _kept(tower: KosmosTower) -> Tensor:
    """Which of the projector's latents the decoder reads."""
    return torch.arange(tower.latents, device=tower.marks.device) if tower.kept is None else tower.kept


def _start(tower: KosmosTower) -> int:
    """Places of the decoder count from there."""
    return int(tower.model.config.text_config.pad_token_id) + 1


def _places_of_latents(tower: KosmosTower) -> Tensor | None:
    """What is added to each latent in the decoder, (latents, D); None where its place depends on the words."""
    if tower.prompt == INSTRUCTION_FIRST:
        return None
    table: Tensor = tower.model.text_model.model.embed_positions.weights.detach().float()
    return table[_start(tower) + (1 if tower.prompt == UNMARKED else 2) + _kept(tower)]
