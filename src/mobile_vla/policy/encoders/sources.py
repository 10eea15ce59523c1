"""Where a tower comes from: a hub name, a local folder, or a size that is trained from nothing.

What is in the hub's cache is used without asking the hub. Only what is lacking is fetched, and nothing is where
``HF_HUB_OFFLINE`` is set. Weights are loaded strictly: every tensor that is missing or not expected is named, and none
is left at random values in silence. Pickled weights are read by ``mobile_vla.checkpoint``, which runs no code.
"""

import difflib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi, is_offline_mode, snapshot_download
from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoTokenizer, CLIPConfig, Kosmos2Config, Kosmos2Model

from mobile_vla.core import CheckpointError, ConfigError
from mobile_vla.policy.encoders.clip import FAMILIES, ClipTower
from mobile_vla.policy.encoders.kosmos import KosmosTower
from mobile_vla.policy.encoders.texts import BEGIN, END, PAD, made_from_grammar
from mobile_vla.policy.encoders.tower import TowerSpec
from mobile_vla.policy.weights import read_tensors

KOSMOS, CLIP, SIGLIP = (
    "microsoft/kosmos-2-patch14-224",
    "openai/clip-vit-base-patch32",
    "google/siglip-base-patch16-224",
)
"""Hub names that are known to fit."""

SIZES = ("tiny", "small")
"""Trained from nothing: ``tiny`` for trying things out and beside a larger tower, ``small`` in simulation."""

MADE_FOR = {"kosmos": ("kosmos-2",), "clip": tuple(FAMILIES)}
"""Model types that can stand in each place."""

_UNUSED = {"kosmos-2": ("text_model.lm_head.weight",)}
"""Tensors of a hub checkpoint that are left out on purpose: the vocabulary's logits, tied to the embeddings."""


def describe(source: str, place: str) -> TowerSpec:
    """What stands at ``source``, for the place "kosmos" or "clip", without its weights.

    ConfigError for a name that is neither a size, a folder nor of the form owner/name, and for a model of another type;
    CheckpointError for one that cannot be had.
    """
    if source in SIZES:
        return _made(source, place)
    if not Path(source).is_dir() and source.count("/") != 1:
        known = [*SIZES, KOSMOS if place == "kosmos" else CLIP, *([SIGLIP] if place == "clip" else [])]
        near = difflib.get_close_matches(source, known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(
            f"unknown backbone {source!r}: {hint}give a hub name (owner/name), a local folder, or one of the sizes "
            f"that are trained from nothing ({', '.join(SIZES)})"
        )
    file = _found(source, ((_DESCRIPTION, (_CONFIG,)),))
    if file is None:
        raise CheckpointError(f"{source} holds no {_CONFIG}: {_WHOLE_FOLDER}")
    folder = file.parent
    try:
        config = AutoConfig.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        picture = json.loads((folder / _PICTURES).read_text(encoding="utf-8"))
        mean, std = (tuple(float(each) for each in picture[key]) for key in ("image_mean", "image_std"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{source} cannot be read ({_first_line(error)}): {_WHOLE_FOLDER}") from error
    if config.model_type not in MADE_FOR[place]:
        raise ConfigError(
            f"{source} is a model of type {config.model_type!r}, and {place} needs {' or '.join(MADE_FOR[place])}"
        )
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_padding()
    backend.no_truncation()
    return TowerSpec(source, config.to_dict(), backend.to_str(), mean, std)


def load_weights(tower: KosmosTower | ClipTower, dtype: torch.dtype = torch.float32) -> None:
    """Give the tower the pretrained weights of its source; nothing to do for a size that is trained from nothing.

    CheckpointError names what is missing, unexpected or of another shape. The tower's own weights are given up first,
    so that no two sets of them are held: after an error it is of no use.
    """
    source = tower.spec.source
    if source in SIZES:
        return
    files = _weights(source)
    model_class: Any = Kosmos2Model if isinstance(tower, KosmosTower) else FAMILIES[tower.family][1]
    learns = {name: parameter.requires_grad for name, parameter in tower.model.named_parameters()}
    config = tower.model.config
    tower.model.to("meta")
    options = {"config": config, "dtype": dtype, "output_loading_info": True, "ignore_mismatched_sizes": True}
    try:
        if files.name.startswith(_SAFE):
            model, report = model_class.from_pretrained(files.parent, use_safetensors=True, **options)
        else:
            model, report = model_class.from_pretrained(None, state_dict=read_tensors(files), **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"the weights of {source} cannot be read: {_first_line(error)}") from error
    left_out = _UNUSED.get(str(tower.spec.config.get("model_type")), ())
    wrong = {
        "missing": sorted(report["missing_keys"]),
        "unexpected": sorted(set(report["unexpected_keys"]) - set(left_out)),
        "of another shape": sorted(str(each[0]) for each in report["mismatched_keys"]),
    }
    if faults := [f"{len(names)} {what} ({_listed(names)})" for what, names in wrong.items() if names]:
        raise CheckpointError(
            f"the weights of {source} do not fit its config.json: {'; '.join(faults)}; nothing was loaded"
        )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(learns[name])
    tower.model = model


_CONFIG, _PICTURES = "config.json", "preprocessor_config.json"
_SAFE = "model.safetensors"
_WEIGHTS = (_SAFE, f"{_SAFE}.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_DESCRIPTION = ("*.json", "*.txt", "*.model")
_WHOLE_FOLDER = "give a folder that holds config.json, weights, tokenizer and preprocessor_config.json"
_REACHED_S = 5.0
"""The hub says within so many seconds that it is there."""


def _weights(source: str) -> Path:
    """The file, or the index of the files, that holds the weights: safetensors where there are any."""
    safe, pickled = ("*.safetensors", *_DESCRIPTION), ("pytorch_model*.bin", *_DESCRIPTION)
    file = _found(source, ((safe, _WEIGHTS[:2]), (pickled, _WEIGHTS[2:])))
    if file is None:
        raise CheckpointError(f"{source} holds no weights ({' or '.join(_WEIGHTS)}): {_WHOLE_FOLDER}")
    return file


def _found(source: str, choices: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]) -> Path | None:
    """The first file that is there: in the folder ``source``, or in the hub's cache, or fetched into it.

    Each choice is (patterns of the files that belong together, names of which one is enough).
    """
    folder = Path(source)
    looks: list[Callable[[str, tuple[str, ...]], Path | None]] = [_cached, _fetched]
    for look in [lambda *_: folder] if folder.is_dir() else looks:
        for patterns, names in choices:
            place = look(source, patterns)
            file = next((place / name for name in names if (place / name).is_file()), None) if place else None
            if file is not None:
                return file
    return None


def _cached(source: str, patterns: tuple[str, ...]) -> Path | None:
    try:
        return Path(snapshot_download(source, allow_patterns=list(patterns), local_files_only=True))
    except (OSError, ValueError):
        return None


def _fetched(source: str, patterns: tuple[str, ...]) -> Path:
    if is_offline_mode():
        raise _lacking(source, "it is not in the cache, and HF_HUB_OFFLINE is set")
    try:
        HfApi().model_info(source, timeout=_REACHED_S)  # the download itself would try for long
        return Path(snapshot_download(source, allow_patterns=list(patterns)))
    except Exception as error:  # the hub's errors, and those of whatever it speaks HTTP with
        raise _lacking(source, f"not in the cache, and not from the hub: {_first_line(error)}") from error


def _lacking(source: str, why: str) -> CheckpointError:
    return CheckpointError(
        f"{source} cannot be had ({why}): {_WHOLE_FOLDER}, or fetch it first where there is a network "
        f"(hf download {source}) and bring the cache along"
    )


def _made(size: str, place: str) -> TowerSpec:
    text = made_from_grammar()
    marks = {"pad_token_id": PAD, "bos_token_id": BEGIN, "eos_token_id": END}
    pieces = Tokenizer.from_str(text).get_vocab_size()
    small = size == "small"
    config: Any
    if place == "kosmos":
        config = Kosmos2Config(
            text_config={
                "vocab_size": pieces, "max_position_embeddings": 160, "embed_dim": 192 if small else 32,
                "layers": 3 if small else 2, "ffn_dim": 576 if small else 64, "attention_heads": 4,
                "dropout": 0.0, "attention_dropout": 0.0, **marks,
            },
            vision_config={
                "hidden_size": 192 if small else 32, "intermediate_size": 576 if small else 64,
                "num_hidden_layers": 5 if small else 2, "num_attention_heads": 4,
                "image_size": 132 if small else 96, "patch_size": 12 if small else 16,
            },
            latent_query_num=16 if small else 8,
        )  # fmt: skip
        return TowerSpec(size, config.to_dict(), text, _MIDDLE, _SPREAD)
    text = _with_ends(text)
    config = CLIPConfig(
        text_config={
            "vocab_size": pieces, "hidden_size": 128 if small else 32, "intermediate_size": 384 if small else 64,
            "num_hidden_layers": 3 if small else 2, "num_attention_heads": 4, "max_position_embeddings": 64, **marks,
        },
        vision_config={
            "hidden_size": 192 if small else 32, "intermediate_size": 576 if small else 64,
            "num_hidden_layers": 5 if small else 2, "num_attention_heads": 4,
            "image_size": 132 if small else 96, "patch_size": 12 if small else 16,
        },
        projection_dim=128 if small else 32,
    )  # fmt: skip
    return TowerSpec(size, config.to_dict(), text, _MIDDLE, _SPREAD)


_MIDDLE, _SPREAD = (0.45, 0.45, 0.45), (0.25, 0.25, 0.25)


def _with_ends(text: str) -> str:
    """CLIP's texts stand between a begin and an end mark, and the end mark's place is what is read."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = Tokenizer.from_str(text)
    tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", BEGIN), ("</s>", END)])
    return tokenizer.to_str()


def _listed(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
