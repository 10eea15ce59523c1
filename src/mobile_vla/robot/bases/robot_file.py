"""The section ``base`` of a robot file: read it, and change single settings without touching the rest of the text."""

from collections.abc import Mapping
from typing import Any

import yaml

from mobile_vla.core import ConfigError

SECTION = "base"


def base_section(text: str, name: str) -> tuple[str, dict[str, Any]]:
    """Kind and settings of the base in a robot file; ``name`` is the file's in errors. ConfigError when it has none."""
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"cannot read the robot file {name}: {error}") from error
    section = values.get(SECTION) if isinstance(values, dict) else None
    if not isinstance(section, dict) or not isinstance(section.get("kind"), str):
        raise ConfigError(f"the robot file {name} names no base: add base: and below it kind: and its settings")
    settings = {str(key): value for key, value in section.items() if key != "kind"}
    return section["kind"], settings


def with_settings(text: str, values: Mapping[str, float], name: str) -> str:
    """The same text, comments and order kept, with these settings of the base; new ones stand first in the section.

    ConfigError when the text cannot be changed so, for example where the section is made with anchors.
    """
    base_section(text, name)
    whole = _loaded(text)
    section = _section(text, name)
    edits = []
    for key, value in values.items():
        old = next((each for label, each in section.value if label.value == key), None)
        if old is not None:
            edits.append((old.start_mark.index, old.end_mark.index, repr(float(value))))
        elif section.flow_style:
            begin = section.start_mark.index + 1
            edits.append((begin, begin, f"{key}: {float(value)!r}, "))
        else:
            begin = section.value[0][0].start_mark.index
            edits.append((begin, begin, f"{key}: {float(value)!r}\n{' ' * section.start_mark.column}"))
    for begin, end, new in sorted(edits, reverse=True):
        text = text[:begin] + new + text[end:]
    if _loaded(text) != {**whole, SECTION: {**whole[SECTION], **{key: float(value) for key, value in values.items()}}}:
        lines = "; ".join(f"{key}: {value}" for key, value in values.items())
        raise ConfigError(f"{name} cannot be changed by a program: write these below base: yourself: {lines}")
    return text


def _loaded(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None


def _section(text: str, name: str) -> Any:
    root: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    for label, node in root.value:
        if label.value == SECTION:
            return node
    raise ConfigError(f"the robot file {name} has its base by a merge key: write it out")
