"""One robot in one YAML file: its camera, its base, and the limits within which it may move.

It stands in ``runtime`` because only from here both ``robot`` and ``safety`` can be seen.

    name: serbot
    camera: {kind: usb, device: /dev/video0, width: 640, height: 480}
    base: {kind: serbot, channel: can0, wheel_radius_m: 0.05, base_radius_m: 0.12}
    limits: {speed: [0.3, 0.3, 1.0], planar_speed: 0.3}
    safety: {stale_after_s: 0.4, clearance: {robot_radius_m: 0.15, stop_distance_m: 0.2}}
    ranges: {mount: [0.1, 0.0, 0.0]}
"""

import contextlib
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import yaml

from mobile_vla.core import Clock, ConfigError
from mobile_vla.robot.registry import (
    NOT_INSTALLED,
    BaseSettings,
    CameraSettings,
    base_kinds,
    base_settings,
    camera_kinds,
    camera_settings,
    nearest,
    read_settings,
)
from mobile_vla.safety import DepthCamera, Limits, SafetyConfig

_KEYS = ("name", "camera", "base", "limits", "safety", "ranges")


@dataclass(frozen=True, slots=True)
class RangeConfig:
    """The range sensor of ``safety.clearance``: a laser scanner, or a depth camera where ``depth`` is given.

    ``mount`` of the scanner: x, y (m) and yaw (rad) in ``base_link``.
    """

    mount: tuple[float, float, float] = (0.0, 0.0, 0.0)
    depth: DepthCamera | None = None

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, self.mount)):
            raise ConfigError(f"the mount of the range sensor is {self.mount}; it needs three finite numbers")


NO_KIND = "none"
"""The kind of a camera or base that is not configured."""


class _Device(NamedTuple):
    kinds: Callable[[], Mapping[str, type]]
    read: Callable[[str, Mapping[str, Any]], Any]


_DEVICES = {"camera": _Device(camera_kinds, camera_settings), "base": _Device(base_kinds, base_settings)}


@dataclass(frozen=True, slots=True)
class Absent:
    """In place of the settings of a ``part`` that is not configured: who needs no camera need not name one."""

    part: str

    def build(self, clock: Clock) -> NoReturn:
        """ConfigError that says how to configure it."""
        raise _not_configured(self.part)


@dataclass(frozen=True, slots=True)
class RobotConfig:
    """``camera`` and ``base`` are the settings of their kinds: ``config.camera.build(clock)`` makes the camera.

    One that is not configured is ``Absent`` and of the kind ``NO_KIND``.
    """

    camera_kind: str = NO_KIND
    camera: CameraSettings = Absent("camera")
    base_kind: str = NO_KIND
    base: BaseSettings = Absent("base")
    name: str = "robot"
    limits: Limits = field(default_factory=Limits)
    safety: SafetyConfig = field(default_factory=SafetyConfig)
    ranges: RangeConfig = field(default_factory=RangeConfig)


def read_robot(
    path: Path | None, overrides: Sequence[str] = (), needs: Collection[str] = tuple(_DEVICES)
) -> RobotConfig:
    """The file, then overrides such as ``camera.kind=usb camera.device=/dev/video2 safety.stale_after_s=0.3``.

    An override of ``camera.kind`` or ``base.kind`` by another kind leaves out the settings that the file has for its
    own. ``needs``: the parts that have to be configured, of "camera" and "base". ConfigError names a key that is
    unknown and suggests the nearest, names a value that does not fit, and says what is missing.
    """
    values = _read_file(path) if path is not None else {}
    _require_sections(values, f"the robot file {path}")
    _override(values, overrides)
    _require_sections(values, "the robot's configuration")
    with _named(path):
        camera_kind, camera = _device(values, "camera", needs)
        base_kind, base = _device(values, "base", needs)
        name = values.get("name", RobotConfig.__dataclass_fields__["name"].default)
        if not (isinstance(name, str) and name.strip()):
            raise ConfigError(f"the robot's name is {name!r}: give it a word, e.g. name: serbot")
        return RobotConfig(
            camera_kind=camera_kind,
            camera=camera,
            base_kind=base_kind,
            base=base,
            name=name,
            limits=read_settings(Limits, values.get("limits") or {}, "limits"),
            safety=read_settings(SafetyConfig, values.get("safety") or {}, "safety"),
            ranges=read_settings(RangeConfig, values.get("ranges") or {}, "ranges"),
        )


def _read_file(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read the robot file {path}: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"the robot file {path} holds no keys and values: begin with name, camera and base")
    return values


def _require_sections(values: Mapping[str, Any], what: str) -> None:
    for key, value in values.items():
        if key not in _KEYS:
            raise ConfigError(f"{what} has an unknown key {key}{nearest(str(key), _KEYS)}")
        if key != "name" and not isinstance(value, dict | None):
            raise ConfigError(f"{what} has {value!r} under {key}: give keys and values, e.g. {key}.kind")


def _override(values: dict[str, Any], overrides: Sequence[str]) -> None:
    read = [_read_override(override) for override in overrides]
    for keys, value in read:
        section = values.get(keys[0])
        if keys[1:] == ["kind"] and section and section.get("kind") not in (None, value):
            values[keys[0]] = {}
    for keys, value in read:
        place = values
        for key in keys[:-1]:
            place[key] = inner = place.get(key) or {}
            if not isinstance(inner, dict):
                raise ConfigError(f"{'.'.join(keys)} cannot be set: {key} is {inner!r}, which has no keys")
            place = inner
        place[keys[-1]] = value


def _read_override(override: str) -> tuple[list[str], Any]:
    key, equals, text = override.partition("=")
    keys = key.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"{override!r} is no override: write key=value, e.g. camera.kind=usb")
    try:
        return keys, yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"the value of the override {override!r} cannot be read: put it in quotes") from error


def _device(values: Mapping[str, Any], part: str, needs: Collection[str]) -> tuple[str, Any]:
    """The kind of this part, and the settings of that kind, checked."""
    settings = dict(values.get(part) or {})
    if not settings and part not in needs:
        return NO_KIND, Absent(part)
    kind = settings.pop("kind", None)
    if kind is None:
        raise _not_configured(part)
    return str(kind), _DEVICES[part].read(str(kind), settings)


def _not_configured(part: str) -> ConfigError:
    known = ", ".join(_DEVICES[part].kinds())
    return ConfigError(f"no {part} is configured: {f'set {part}.kind to one of {known}' if known else NOT_INSTALLED}")


@contextlib.contextmanager
def _named(path: Path | None) -> Iterator[None]:
    """Errors within name the file, where there is one."""
    try:
        yield
    except ConfigError as error:
        if path is None:
            raise
        raise ConfigError(f"the robot of {path}: {error}") from error


def at_rate(safety: SafetyConfig, rate_hz: float) -> SafetyConfig:
    """The same safety for a loop of ``rate_hz``: ``recover_steps`` are counted so that they take as long as before."""
    steps = math.ceil(safety.recover_steps * safety.period_s * rate_hz - 1e-9)
    return replace(safety, period_s=1.0 / rate_hz, recover_steps=max(1, steps))
