"""Kosmos-2 (Peng et al. 2023): vision transformer, projector to latent tokens, text decoder; no vocabulary logits.

Per frame the decoder reads the image's latent tokens, the instruction and a learned action token at the end, whose
last hidden state is the answer. ``image_first`` is the order it was pretrained in. ``instruction_first`` lets the
keys and values of the instruction be computed once and kept from frame to frame. ``unmarked`` is the image first,
without the marks around it, as RoboVLMs and its kin train it.

The parts of ``Kosmos2Model`` are put together here rather than through its ``forward``: that gives the same hidden
states, and avoids logits, placeholder tokens and an in-place write that gradients of inputs do not survive.
"""

from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Kosmos2Config, Kosmos2Model
from transformers.cache_utils import DynamicCache

from mobile_vla.core import CheckpointError, ConfigError, InstructionError
from mobile_vla.policy.encoders.texts import numbered
from mobile_vla.policy.encoders.tower import Seen, TowerSpec, Words
from mobile_vla.policy.preprocess import normalise

IMAGE_FIRST, INSTRUCTION_FIRST, UNMARKED = "image_first", "instruction_first", "unmarked"
PROMPTS = (IMAGE_FIRST, INSTRUCTION_FIRST, UNMARKED)


class KosmosTower(nn.Module):
    """``size`` is (rows, columns) of the frames; another than the pretrained one interpolates position embeddings."""

    model: Any  # a Kosmos2Model, whose attributes have no types
    marks: Tensor
    kept: Tensor | None
    """Which of the projector's latent tokens the decoder reads, in order; None for all of them."""

    def __init__(self, spec: TowerSpec, size: tuple[int, int], prompt: str = IMAGE_FIRST, max_words: int = 64) -> None:
        super().__init__()
        if prompt not in PROMPTS:
            raise ConfigError(f"unknown prompt order {prompt!r}: choose among {', '.join(PROMPTS)}")
        self.spec, self.prompt, self.max_words = spec, prompt, max_words
        config: Any = Kosmos2Config.from_dict(dict(spec.config))
        self.model = Kosmos2Model(config)
        side, patch = config.vision_config.image_size, config.vision_config.patch_size
        self.grid = (size[0] // patch, size[1] // patch)
        if size[0] % patch or size[1] % patch or not min(self.grid):
            raise ConfigError(f"frames of {size[0]}x{size[1]} do not divide into patches of {patch}: choose multiples")
        self.interpolate = size != (side, side)
        self.answer, self.patch = config.text_config.embed_dim, config.vision_config.hidden_size
        self.latents = config.latent_query_num
        places = config.text_config.max_position_embeddings
        if max_words < 1 or max_words + self.latents + 4 > places:  # and <s>, <image>, </image>, the action token
            raise ConfigError(
                f"max_words={max_words} with the {places} places of {spec.source}: choose at least 1 and at most "
                f"{places - self.latents - 4}"
            )
        self.action = nn.Parameter(0.02 * torch.randn(self.answer))
        self.tokenizer = Tokenizer.from_str(spec.tokenizer)
        numbers = [self.tokenizer.token_to_id(mark) for mark in ("<s>", "<image>", "</image>")]
        if None in numbers:
            raise CheckpointError(
                f"the tokenizer of {spec.source} lacks <s>, <image> or </image>: give one of Kosmos-2's kind"
            )
        self.register_buffer("marks", torch.tensor(numbers), persistent=False)
        self.register_buffer("kept", None, persistent=False)

    def keep_latents(self, count: int) -> None:
        """From now on the decoder reads ``count`` of the latent tokens, evenly spread, each in its own place."""
        self.kept = torch.arange(count, device=self.marks.device) * self.model.config.latent_query_num // count
        self.latents = count

    def tokenise(self, texts: Sequence[str]) -> Words:
        """Numbers (N, L), zero after the end, and lengths (N,)."""
        return numbered(self.tokenizer, texts, self.max_words)

    def read(self, tokens: Words) -> Words:
        """Image first, marked or not: embeddings with the action token at each end (N, L + 1, D), and lengths (N,).

        Instruction first: keys and values of ``<s>`` and the words, (N, layers, 2, heads, L + 1, D / heads), and
        lengths (N,); in a training that computes layers again instead of keeping them, which can cache nothing,
        embeddings of the same (N, L + 1, D).
        """
        numbers, lengths = tokens
        embedded = self._embed(numbers)
        place = torch.arange(numbers.shape[1] + 1, device=numbers.device)
        if self.prompt != INSTRUCTION_FIRST:
            extended = torch.cat([embedded, embedded[:, :1]], dim=1)
            is_end = (place == lengths[:, None])[..., None]
            return torch.where(is_end, self.action.to(extended.dtype), extended), lengths
        begun = torch.cat([self._embed(self.marks[:1]).expand(len(numbers), 1, -1), embedded], dim=1)
        if self.training and self.model.text_model.is_activation_checkpointing:
            return begun, lengths
        cache: Any = DynamicCache()
        self.model.text_model(inputs_embeds=begun, past_key_values=cache, use_cache=True)
        layers = [torch.stack([layer.keys, layer.values], dim=1) for layer in cache.layers]
        kept = torch.stack(layers, dim=1)
        there = (place <= lengths[:, None])[:, None, None, None, :, None]
        return torch.where(there, kept, torch.zeros_like(kept)), lengths

    def see(self, pixels: Tensor) -> Seen:
        """Latent tokens (N, I, D), and the vision transformer's patches (N, cells, patch)."""
        planes = normalise(pixels, self.spec.mean, self.spec.std).to(self.action.dtype)
        vision = self.model.vision_model
        hidden = vision(pixel_values=planes, interpolate_pos_encoding=self.interpolate).last_hidden_state
        features = vision.model.post_layernorm(hidden)
        latents, _ = self.model.image_to_text_projection(F.normalize(features, dim=-1))
        if self.kept is not None:
            latents = latents.index_select(1, self.kept)
        return Seen(latents, features[:, 1:])

    def ask(self, seen: Seen, words: Words) -> Tensor:
        """The action token's last hidden state, (N, answer)."""
        marks = self._embed(self.marks)
        count = len(seen.tokens)
        begin, opened, closed = (mark.expand(count, 1, -1) for mark in marks)
        latents = seen.tokens.to(begin.dtype)
        kept, lengths = words
        if self.prompt != INSTRUCTION_FIRST:
            before_words = [begin, latents] if self.prompt == UNMARKED else [begin, opened, latents, closed]
            sequence = torch.cat([*before_words, kept], dim=1)
            places = None
            if self.kept is not None:
                opening = 1 if self.prompt == UNMARKED else 2
                places = self._start + self._offsets(opening, sequence.shape[1]).repeat(count, 1)
            hidden = self.model.text_model(
                inputs_embeds=sequence, position_ids=places, use_cache=False
            ).last_hidden_state
            end = sequence.shape[1] - kept.shape[1] + lengths
            answer: Tensor = hidden[torch.arange(count, device=lengths.device), end]
            return answer
        action = self.action.to(begin.dtype).expand(count, 1, -1)
        sequence = torch.cat([opened, latents, closed, action], dim=1)
        before, here = kept.shape[-2], sequence.shape[1]
        place = torch.arange(before, device=lengths.device)
        is_read = torch.cat([place <= lengths[:, None], lengths.new_ones(count, here, dtype=torch.bool)], dim=1)
        places = self._start + 1 + lengths[:, None] + self._offsets(1, here)  # <s> and the words stand before
        cache = None
        if kept.dim() == 3:  # embeddings
            sequence = torch.cat([kept, sequence], dim=1)
            places = torch.cat([(self._start + place).expand(count, -1), places], dim=1)
        else:
            cache = DynamicCache()
            for number, layer in enumerate(kept.unbind(1)):
                cache.update(layer[:, 0], layer[:, 1], number)
        hidden = self.model.text_model(
            inputs_embeds=sequence,
            attention_mask=is_read.long(),
            position_ids=places,
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state
        newest: Tensor = hidden[:, -1]
        return newest

    def widen(self, words: Words, most: int) -> Words:
        """The same words in as much room as ``most`` pieces need; InstructionError for more of them."""
        kept, lengths = words
        if kept.shape[-2] > most + 1:
            raise InstructionError(
                f"the instruction is {kept.shape[-2] - 1} word pieces long, more than the {most} that there is room "
                "for: shorten it"
            )
        return F.pad(kept, [0, 0, 0, most + 1 - kept.shape[-2]]), lengths

    @property
    def _start(self) -> int:
        """Places of the decoder count from the padding's number + 1."""
        return int(self.model.config.text_config.pad_token_id) + 1

    def _offsets(self, before: int, tokens: int) -> Tensor:
        """Where each of ``tokens`` stands that the decoder reads, latents after ``before`` of them: (tokens,).

        Latents that are left out leave their places free, so that all others stand where they were trained.
        """
        offsets = torch.arange(tokens, device=self.marks.device)
        if self.kept is None:
            return offsets
        behind = offsets[before + self.latents :] + self.model.config.latent_query_num - self.latents
        return torch.cat([offsets[:before], before + self.kept, behind])

    def _embed(self, numbers: Tensor) -> Tensor:
        embedded: Tensor = self.model.text_model.model.embed_tokens(numbers)
        return embedded
