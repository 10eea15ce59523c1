"""Which kinds of camera and base there are, and how one is made from its settings.

A kind is a Python entry point in the group ``mobile_vla.cameras`` or ``mobile_vla.bases``. It names a frozen dataclass
whose fields are the settings of that kind and which has ``build(clock)``. A laboratory adds its robot by a package with
such an entry point (https://packaging.python.org/en/latest/specifications/entry-points/).
"""

import dataclasses
import difflib
import logging
import types
import typing
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import dacite

from mobile_vla.core import Clock, ConfigError
from mobile_vla.robot.protocols import Base, Camera

CAMERAS = "mobile_vla.cameras"
BASES = "mobile_vla.bases"

NOT_INSTALLED = "the package is not installed, run pip install -e . in its checkout"
"""Why no kind at all is known: Python finds the package on its path, but not its entry points."""

_NOUNS = {CAMERAS: "camera", BASES: "base"}
_WORDS = {
    bool: "true or false",
    float: "a number",
    int: "a whole number",
    str: "text",
    Path: "a path",
    types.NoneType: "nothing",
}
_COUNTS = {2: "two", 3: "three", 4: "four"}

_log = logging.getLogger(__name__)

_Settings = TypeVar("_Settings")


class CameraSettings(Protocol):
    """The settings of one kind of camera: a frozen dataclass."""

    def build(self, clock: Clock) -> Camera:
        """A closed camera whose frames are stamped on ``clock``.

        ConfigError when the settings contradict, CameraError when a file that they name cannot be read.
        """
        ...


class BaseSettings(Protocol):
    """The settings of one kind of base: a frozen dataclass."""

    def build(self, clock: Clock) -> Base:
        """A closed base that measures its timeouts on ``clock``. ConfigError when the settings contradict."""
        ...


def camera_kinds() -> dict[str, type]:
    """The settings of every kind of camera that is installed, by name; one that cannot be imported is logged."""
    return _kinds(CAMERAS)


def base_kinds() -> dict[str, type]:
    """The settings of every kind of base that is installed, by name; one that cannot be imported is logged."""
    return _kinds(BASES)


def camera_settings(kind: str, settings: Mapping[str, Any]) -> CameraSettings:
    """Settings of this kind of camera, checked. ConfigError for an unknown kind or key, or a value that does not fit.

    The error suggests the nearest kind or key.
    """
    return cast(CameraSettings, read_settings(_load(_entry(CAMERAS, kind)), settings, f"camera {kind}"))


def base_settings(kind: str, settings: Mapping[str, Any]) -> BaseSettings:
    """Settings of this kind of base, checked; errors as for ``camera_settings``."""
    return cast(BaseSettings, read_settings(_load(_entry(BASES, kind)), settings, f"base {kind}"))


def make_camera(kind: str, settings: Mapping[str, Any], clock: Clock) -> Camera:
    """A closed camera of this kind; errors as for ``camera_settings``."""
    return camera_settings(kind, settings).build(clock)


def make_base(kind: str, settings: Mapping[str, Any], clock: Clock) -> Base:
    """A closed base of this kind; errors as for ``camera_settings``."""
    return base_settings(kind, settings).build(clock)


def read_settings(kind: type[_Settings], values: Mapping[str, Any], where: str) -> _Settings:
    """A settings dataclass from plain values as YAML gives them: lists become tuples, whole numbers floats.

    ``where`` names the place in errors. ConfigError for a key that ``kind`` does not have, at any depth (suggests the
    nearest), for a missing one, for a value of another type, and for what ``__post_init__`` refuses.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"the settings of {where} need keys and values, not {values!r}")
    prepared = _prepare(kind, values, where, "")
    try:
        return dacite.from_dict(kind, prepared, dacite.Config(strict=True))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    except dacite.WrongTypeError as error:
        given, wanted = _at(values, error.field_path, error.value), _in_words(error.field_type)
        raise ConfigError(f"the setting {error.field_path} of {where} is {given!r}; it needs {wanted}") from error
    except dacite.MissingValueError as error:
        raise ConfigError(f"{where} needs a value for {error.field_path}: add it to its settings") from error
    except dacite.DaciteError as error:
        raise ConfigError(f"the settings of {where} do not fit: {error}; correct that value") from error


def nearest(word: str, known: Iterable[str], prefix: str = "") -> str:
    """How an error about an unknown ``word`` ends: a suggestion when one is near, else all that are known."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1)
    if near:
        return f"; did you mean {prefix}{near[0]}?"
    return f"; known are {', '.join(names)}" if names else "; none is known"


def _kinds(group: str) -> dict[str, type]:
    kinds = {}
    for name in sorted(_entries(group)):
        try:
            kinds[name] = _load(_entry(group, name))
        except ConfigError as error:
            _log.warning("%s", error)
    return kinds


def _entries(group: str) -> dict[str, list[EntryPoint]]:
    """By name; the same entry point may be found twice where a package lies on the path twice."""
    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=group):
        others = found.setdefault(entry.name, [])
        if entry.value not in {other.value for other in others}:
            others.append(entry)
    return found


def _entry(group: str, kind: str) -> EntryPoint:
    known, noun = _entries(group), _NOUNS[group]
    if kind not in known:
        hint = nearest(str(kind), known) if known else f"; none is known: {NOT_INSTALLED}"
        raise ConfigError(f"there is no kind of {noun} called {kind!r}{hint}")
    entries = known[kind]
    if len(entries) > 1:
        values = " and ".join(entry.value for entry in entries)
        raise ConfigError(f"the kind of {noun} {kind!r} is claimed by {values}: uninstall one of the packages")
    return entries[0]


def _load(entry: EntryPoint) -> type:
    noun = _NOUNS[entry.group]
    try:
        kind = entry.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"the kind of {noun} {entry.name!r} ({entry.value}) cannot be imported: {error}; install what it needs"
        ) from error
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind) and callable(getattr(kind, "build", None))):
        raise ConfigError(
            f"the kind of {noun} {entry.name!r} ({entry.value}) is no dataclass with a method build: correct it"
        )
    return kind


def _prepare(hint: Any, value: Any, where: str, path: str) -> Any:
    """``value`` with its keys checked and in the types that YAML lacks, where ``hint`` asks; dacite judges the rest."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = _arm_for(value, typing.get_args(hint))
    if isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return _prepare_fields(hint, value, where, f"{path}." if path else "")
    if typing.get_origin(hint) is tuple and isinstance(value, list):
        items = [item for item in typing.get_args(hint) if item is not Ellipsis]
        hints = items * len(value) if len(items) == 1 else [*items, *[Any] * len(value)]
        return tuple(_prepare(hints[k], item, where, f"{path}[{k}]") for k, item in enumerate(value))
    if hint is float and isinstance(value, int):
        if isinstance(value, bool):
            raise ConfigError(f"the setting {path} of {where} is {value}; it needs a number")
        return float(value)
    return Path(value) if hint is Path and isinstance(value, str) else value


def _prepare_fields(kind: type, values: Mapping[str, Any], where: str, prefix: str) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    names = {field.name for field in dataclasses.fields(kind) if field.init}
    for key in values:
        if key not in names:
            raise ConfigError(f"{where} has no setting {prefix}{key}{nearest(str(key), names, prefix)}")
    return {key: _prepare(hints[key], value, where, f"{prefix}{key}") for key, value in values.items()}


def _in_words(hint: Any) -> str:
    """What a person has to write for a field of the type ``hint``."""
    arms = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_in_words(arm) for arm in arms)
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(map(repr, arms))
    if typing.get_origin(hint) is tuple:
        one = _in_words(arms[0]).removeprefix("a ")
        if arms[-1] is Ellipsis:
            return "a list"
        same = set(arms) == {arms[0]} and arms[0] in (int, float)
        return f"{_COUNTS.get(len(arms), len(arms))} {f'{one}s' if same else 'values'} in a list"
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return "keys and values"
    return _WORDS.get(hint, f"a value of the type {getattr(hint, '__name__', hint)}")


def _at(values: Any, path: str | None, otherwise: Any) -> Any:
    """What stands under a dotted path, as it was given."""
    for key in (path or "").split("."):
        if not isinstance(values, Mapping) or key not in values:
            return otherwise
        values = values[key]
    return values


def _arm_for(value: Any, arms: Iterable[Any]) -> Any:
    """The arm of a union that ``value`` may become."""
    for arm in arms:
        if isinstance(value, Mapping) and dataclasses.is_dataclass(arm):
            return arm
        if isinstance(value, list) and typing.get_origin(arm) is tuple:
            return arm
        if arm is float and type(value) is int and int not in arms:
            return arm
        if arm is Path and isinstance(value, str) and str not in arms:
            return arm
    return type(value)
