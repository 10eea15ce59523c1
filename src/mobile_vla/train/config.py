"""What a training run does, from a YAML file and from ``key=value`` on the command line."""

import dataclasses
import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dacite
import yaml

from mobile_vla.core import ConfigError
from mobile_vla.policy.compact import CompactConfig
from mobile_vla.train.loop import LoopConfig


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


def read_config(path: Path | None, overrides: Sequence[str]) -> TrainConfig:
    """Defaults, then the file, then overrides such as ``see.steps=2000``. ConfigError names and corrects a bad key."""
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
    merged = _merge(TrainConfig(), values, "")
    try:
        return dacite.from_dict(TrainConfig, merged, dacite.Config(strict=True, cast=[float]))
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
