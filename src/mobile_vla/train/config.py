"""What a training run does, from a YAML file and from ``key=value`` on the command line.

The compact policy is made by ``TrainConfig``, the full-size ones by ``VlaTrainConfig``.
"""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import dacite
import yaml

from mobile_vla.core import ConfigError
from mobile_vla.policy.compact import CompactConfig
from mobile_vla.policy.kinds import PolicyKind
from mobile_vla.policy.vla_config import VlaConfig
from mobile_vla.train.adapt import FULL, LORA, WAYS, LoraSettings
from mobile_vla.train.loop import LoopConfig

_T = TypeVar("_T")


@dataclass(frozen=True)
class TrainConfig:
    """Sizes of the two stages. ``processes`` collect data at once and ``threads`` train."""

    seed: int = 1
    processes: int = 2
    threads: int = 2
    survey_scenes: int = 10_000
    survey_poses: int = 12
    drive_rounds: int = 3
    drive_episodes: int = 1800
    lanes: int = 12
    max_frames: int = 100
    network: CompactConfig = field(default_factory=CompactConfig)
    read: LoopConfig = field(default_factory=lambda: LoopConfig(steps=1_500, batch=96, learning_rate=1.5e-3))
    settle: LoopConfig = field(default_factory=lambda: LoopConfig(steps=1_500, batch=96, learning_rate=1.0e-3))
    see: LoopConfig = field(default_factory=lambda: LoopConfig(steps=8_000, batch=64, learning_rate=1.5e-3))
    drive: LoopConfig = field(default_factory=lambda: LoopConfig(steps=1_100, batch=48, learning_rate=1.0e-3))
    final: LoopConfig = field(default_factory=lambda: LoopConfig(steps=3_000, batch=56, learning_rate=1.0e-3))


@dataclass(frozen=True)
class VlaTrainConfig:
    """Of a full-size policy: two stages, ``see`` on frames and ``drive`` on drives, and rounds of DAgger after them.

    ``see_towers`` and ``drive_towers`` say how the towers learn in each: "full", "lora" or "frozen". ``names``: asked
    of a frame; ``length``: frames of a window; ``wordings``: that each drive is looked at under, where towers are
    frozen; ``grounding``: weight of the target's place beside the velocities. ``checkpointing`` saves memory for time.
    ``horizon`` is the chunk's where data are made; with data given, their contract holds. ``judge_scenes``: closed-loop
    success over so many scenes decides which step is best; 0: the validation loss does. ``sharding``: how torchrun's
    processes share the network, "ddp" or "fsdp2". The rest is as in ``TrainConfig``.
    """

    network: VlaConfig
    seed: int = 1
    processes: int = 2
    threads: int = 2
    see_towers: str = FULL
    drive_towers: str = LORA
    lora: LoraSettings = field(default_factory=LoraSettings)
    checkpointing: bool = False
    names: int = 8
    length: int = 16
    wordings: int = 3
    grounding: float = 0.3
    cache_gib: float = 2.0
    horizon: int = 10
    survey_scenes: int = 10_000
    survey_poses: int = 12
    drive_rounds: int = 0
    drive_episodes: int = 1800
    lanes: int = 12
    max_frames: int = 100
    judge_scenes: int = 0
    sharding: str = "ddp"
    see: LoopConfig = field(default_factory=lambda: LoopConfig(2_500, 64, 1.0e-3, precision="bf16"))
    drive: LoopConfig = field(default_factory=lambda: LoopConfig(2_000, 32, 5.0e-4, precision="bf16"))

    def __post_init__(self) -> None:
        for name in ("see_towers", "drive_towers"):
            if getattr(self, name) not in WAYS:
                raise ConfigError(f"{name} is one of {', '.join(WAYS)}, not {getattr(self, name)!r}")
        if self.sharding not in ("ddp", "fsdp2"):
            raise ConfigError(f"sharding is ddp or fsdp2, not {self.sharding!r}")
        if min(self.names, self.length, self.wordings, self.horizon) < 1 or self.cache_gib < 0:
            raise ConfigError("names, length, wordings and horizon need to be at least 1, cache_gib at least 0")


def read_config(path: Path | None, overrides: Sequence[str]) -> TrainConfig:
    """Of the compact policy: defaults, then the file, then overrides such as ``see.steps=2000``.

    ConfigError names and corrects a bad key.
    """
    return _from_dict(TrainConfig, _merge(TrainConfig(), _values(path, overrides), ""))


def read_vla_config(kind: PolicyKind, path: Path | None, overrides: Sequence[str]) -> VlaTrainConfig:
    """As ``read_config``, for a full-size policy; ConfigError for a kind that is none."""
    default = kind.config()
    if not isinstance(default, VlaConfig):
        raise ConfigError(f"{kind.name} has no recipe here: train it with its own package's command")
    merged = _merge(VlaTrainConfig(default), _values(path, overrides), "")
    return _from_dict(VlaTrainConfig, merged | {"network": _from_dict(kind.config, merged["network"])})


def _values(path: Path | None, overrides: Sequence[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (OSError, yaml.YAMLError) as error:
            raise ConfigError(f"cannot read the configuration {path}: {error}") from error
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"{override!r} is no override: write key=value, e.g. see.steps=2000")
        *parents, last = key.split(".")
        place = values
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = yaml.safe_load(text)
    return values


def _from_dict(kind: type[_T], merged: Mapping[str, Any]) -> _T:
    try:
        return dacite.from_dict(kind, merged, dacite.Config(strict=True, cast=[float, tuple]))
    except dacite.DaciteError as error:
        raise ConfigError(f"the configuration does not fit: {error}") from error


def _merge(defaults: Any, values: Any, prefix: str) -> dict[str, Any]:
    names = [item.name for item in dataclasses.fields(defaults)]
    if not isinstance(values, dict):
        raise ConfigError(f"the configuration needs keys under {prefix or 'its top'}: {', '.join(names)}")
    for key in values:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1)
            hint = f"; did you mean {prefix}{near[0]}?" if near else f"; known are {', '.join(names)}"
            raise ConfigError(f"unknown configuration key {prefix}{key}{hint}")
    merged = {}
    for name in names:
        default = getattr(defaults, name)
        if dataclasses.is_dataclass(default):
            merged[name] = _merge(default, values.get(name, {}), f"{prefix}{name}.")
        else:
            merged[name] = values.get(name, default)
    return merged
