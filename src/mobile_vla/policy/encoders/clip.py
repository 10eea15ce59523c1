"""CLIP (Radford et al. 2021), or SigLIP (Zhai et al. 2023) in its place: one vector for the words, one for the frame.

The answer is both and their product: where the two agree is what the training of these networks put into it.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

from mobile_vla.core import ConfigError
from mobile_vla.policy.encoders.texts import numbered
from mobile_vla.policy.encoders.tower import Seen, TowerSpec, Words
from mobile_vla.policy.preprocess import normalise

FAMILIES: dict[str, tuple[Any, Any]] = {"clip": (CLIPConfig, CLIPModel), "siglip": (SiglipConfig, SiglipModel)}
"""By the ``model_type`` of the configuration."""


class ClipTower(nn.Module):
    """``size`` is (rows, columns) of the frames; another than the pretrained one interpolates position embeddings."""

    def __init__(self, spec: TowerSpec, size: tuple[int, int]) -> None:
        super().__init__()
        self.spec = spec
        self.family = str(spec.config.get("model_type"))
        if self.family not in FAMILIES:
            raise ConfigError(f"{spec.source} is a model of type {self.family!r}: choose among {', '.join(FAMILIES)}")
        config_class, model_class = FAMILIES[self.family]
        config = config_class.from_dict(dict(spec.config))
        self.model = model_class(config)
        for name, parameter in self.model.named_parameters():
            if name in ("logit_scale", "logit_bias"):  # of the contrastive loss alone
                parameter.requires_grad_(False)
        side, patch = config.vision_config.image_size, config.vision_config.patch_size
        self.grid = (size[0] // patch, size[1] // patch)
        if not min(self.grid):
            raise ConfigError(f"frames of {size[0]}x{size[1]} hold no patch of {patch}: choose a larger size")
        if size[0] % patch or size[1] % patch:
            raise ConfigError(f"frames of {size[0]}x{size[1]} do not divide into patches of {patch}: choose multiples")
        self.interpolate = size != (side, side)
        self.shared = config.projection_dim if self.family == "clip" else config.vision_config.hidden_size
        self.answer, self.patch = 3 * self.shared, config.vision_config.hidden_size
        self.max_words = config.text_config.max_position_embeddings
        self.pad = config.text_config.pad_token_id
        if self.family == "siglip" and self.pad is None:
            raise ConfigError(f"{spec.source} does not say what pads its texts: give pad_token_id in its config.json")
        self.tokenizer = Tokenizer.from_str(spec.tokenizer)

    def tokenise(self, texts: Sequence[str]) -> Words:
        """Numbers (N, L), with the marks of this family at their ends, and lengths (N,)."""
        return numbered(self.tokenizer, texts, self.max_words, marks=True)

    def read(self, tokens: Words) -> Words:
        """The words' unit vectors, (N, shared)."""
        numbers, lengths = tokens
        if self.family == "siglip":  # it was trained on texts padded to the full length, and looks at the padding
            numbers = F.pad(numbers, [0, self.max_words - numbers.shape[1]])
            place = torch.arange(self.max_words, device=numbers.device)
            numbers = numbers.masked_fill(place >= lengths[:, None], self.pad)
            features = self.model.get_text_features(numbers).pooler_output
        else:  # the last piece is the end mark; it looks back alone, so what follows needs no mask
            hidden = self.model.text_model(numbers).last_hidden_state
            at_end = hidden[torch.arange(len(numbers), device=numbers.device), lengths - 1]
            features = self.model.text_projection(at_end)
        return (F.normalize(features, dim=-1),)

    def see(self, pixels: Tensor) -> Seen:
        """The frames' unit vectors (N, shared), and patches (N, cells, patch)."""
        planes = normalise(pixels, self.spec.mean, self.spec.std).to(self.model.logit_scale.dtype)
        out = self.model.get_image_features(planes, interpolate_pos_encoding=self.interpolate)
        patches = out.last_hidden_state[:, 1:] if self.family == "clip" else out.last_hidden_state
        return Seen(F.normalize(out.pooler_output, dim=-1), patches)

    def ask(self, seen: Seen, words: Words) -> Tensor:
        """Frame, words and their product, scaled to about one a number: (N, answer)."""
        (text,) = words
        scale = math.sqrt(self.shared)
        return scale * torch.cat([seen.tokens, text, scale * seen.tokens * text], dim=-1)

    def widen(self, words: Words, most: int) -> Words:
        """As they are: one vector, however many pieces there were."""
        return words
