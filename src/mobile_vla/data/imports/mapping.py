"""The mapping file: what the numbers and pictures of a source mean. Every answer is asked for, none is guessed."""

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml
from typing_extensions import Self

from mobile_vla.core import AXES, ActionContract, ConfigError, ContractMismatchError
from mobile_vla.data.imports.contents import Contents, Part, Role
from mobile_vla.data.store import Extras

FROM_ACTION = "from_action"
ZERO = "zero"
ENCODING = "encoding"
POSITIVE = dict(
    zip(AXES, (("forward", "backward"), ("left", "right"), ("counter-clockwise", "clockwise")), strict=True)
)
"""What a positive number of the source may mean, by axis; ours is the first."""
UNITS = dict(zip(AXES, ({"m/s": 1.0}, {"m/s": 1.0}, {"rad/s": 1.0, "deg/s": math.pi / 180}), strict=True))
"""Factors to ours, which is the first, by axis."""
UNITLESS = "none"
OUTSIDE = ("error", "clip")
CHUNKS = ("exact", "hold", "none")
STAMPS = ("header", "received")
OWN_EXTRAS = "import."
"""What our own notes beside an imported episode begin with."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How a kind of source calls a part, how one of its numbers is told, and where instructions can come from."""

    place: str
    elements: tuple[str, ...]
    instructions: tuple[str, ...]
    orders: tuple[str, ...] = ("rgb", "bgr")


KINDS = {
    "lerobot": Kind("column", ("name", "index"), ("task", "text")),
    "hdf5": Kind("dataset", ("index",), ("dataset", "attribute", "file_name", "text")),
    "bag": Kind("topic", ("field",), ("topic", "file_name", "text"), (ENCODING, "rgb", "bgr")),
}


@dataclass(frozen=True, slots=True)
class AxisSource:
    """One axis: number ``index`` of the part ``place``, times ``factor``, is the velocity in the contract's unit."""

    place: str
    index: int
    factor: float


Axes = tuple[AxisSource | None, AxisSource | None, AxisSource | None]
"""Of ``AXES``; None for an axis along which the base cannot move."""


@dataclass(frozen=True, slots=True)
class Words:
    """Where instructions come from: ``origin`` is a key of ``Kind.instructions``, ``value`` what stands there.

    ``texts`` says the instruction for what was found; empty: what was found is the instruction.
    """

    origin: str
    value: str
    texts: Mapping[str, str]

    def instruction(self, found: str, name: str) -> str:
        """The instruction of the episode ``name`` for what was found; ConfigError when ``texts`` lacks it."""
        if not self.texts:
            return found
        if self.origin == "file_name":
            parts = [part for part in self.texts if part in found]
            if len(parts) != 1:
                raise ConfigError(
                    f"the name of {name} has {' and '.join(parts) or 'none'} of the parts under "
                    f"instruction.file_name ({', '.join(self.texts)}): every name must have exactly one of them"
                )
            return self.texts[parts[0]]
        if found not in self.texts:
            raise ConfigError(
                f"{name} has {found!r} for its instruction, and instruction.texts does not say what that means: "
                f'add the line `{found!r}: "..."` below it'
            )
        return self.texts[found]


@dataclass(frozen=True, slots=True)
class ImportMapping:
    """All answers, checked against what the source has. ``states`` None: taken from the actions."""

    contract: ActionContract
    camera: str
    channel_order: str
    actions: Axes
    states: Axes | None
    words: Words
    every: int
    source_rate_hz: float | None
    outside: str
    chunk: str
    stamps: str
    command_timeout_s: float
    state_timeout_s: float
    extras: Extras
    digest: str

    @classmethod
    def of(cls, values: Mapping[str, Any], contents: Contents) -> Self:
        """ConfigError that names the key, says what the source has, and gives the line to add."""
        kind = KINDS[contents.kind]
        answers = Answers(values, "", contents)
        is_bag = contents.kind == "bag"
        contract = _contract(answers)
        camera = answers.section(
            "camera", f"camera: {{{kind.place}: ..., channel_order: {kind.orders[0]}}}", Role.CAMERA
        )
        camera_part = camera.part(kind.place, Role.CAMERA, f"camera: {{{kind.place}: ...}}").name
        channel_order = camera.choice("channel_order", kind.orders, None)
        camera.done()
        actions = _axes(answers.section("action", _axis_line("action", AXES[0], kind), Role.NUMBERS), kind)
        states = _states(answers, kind)
        mapping = cls(
            contract=contract,
            camera=camera_part,
            channel_order=channel_order,
            actions=actions,
            states=states,
            words=_words(answers, kind),
            every=1 if is_bag else answers.whole("every", 1),
            source_rate_hz=answers.positive("source_rate_hz", None) if contents.kind == "hdf5" else contents.rate_hz,
            outside=answers.choice("outside", OUTSIDE, "error"),
            chunk=answers.choice("chunk", CHUNKS, "exact"),
            stamps=answers.choice("stamps", STAMPS, None) if is_bag else "synthetic",
            command_timeout_s=answers.positive("command_timeout_s", None) if is_bag else math.inf,
            state_timeout_s=answers.positive("state_timeout_s", None) if is_bag and states is not None else math.inf,
            extras=_extras(answers),
            digest=sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16],
        )
        answers.done()
        return mapping


class Answers:
    """The keys of a mapping under ``path``, taken one by one; ``done`` refuses what nobody asked for."""

    def __init__(self, values: Mapping[str, Any], path: str, contents: Contents) -> None:
        self._values, self.path, self._contents = values, path, contents
        self._asked: set[str] = set()

    def full(self, key: str) -> str:
        """With the keys above it."""
        return f"{self.path}.{key}" if self.path else key

    def get(self, key: str) -> Any:
        """None where it is missing or left blank."""
        self._asked.add(key)
        return self._values.get(key)

    def need(self, key: str, line: str, *roles: Role) -> Any:
        """ConfigError with ``line`` and the parts of ``roles`` when there is no answer."""
        value = self.get(key)
        if value is None:
            has = f"; {self._contents.path} has {self._contents.sentence(*roles)}" if roles else ""
            raise ConfigError(
                f"the mapping does not say {self.full(key)}{has}; add the line `{line}` "
                f"(--show prints what the source has and a template)"
            )
        return value

    def section(self, key: str, line: str, *roles: Role) -> "Answers":
        """The keys below ``key``; ConfigError as for ``need``."""
        value = self.need(key, line, *roles)
        if not isinstance(value, Mapping):
            raise ConfigError(f"the mapping has {value!r} under {self.full(key)}: write keys and values, e.g. `{line}`")
        return Answers(value, self.full(key), self._contents)

    def part(self, key: str, role: Role, line: str) -> Part:
        """A part of the source with ``role``."""
        name = str(self.need(key, line, role))
        part = self._contents.part(name)
        if part is None or part.role is not role:
            what = "does not exist" if part is None else f"cannot be used for that ({part.what})"
            raise ConfigError(
                f"{self.full(key)}: {name} {what}; {self._contents.path} has {self._contents.sentence(role)}"
            )
        return part

    def choice(self, key: str, known: Sequence[str], default: str | None) -> str:
        """One of ``known``; ``default`` None: it must be given."""
        line = f"{self.full(key)}: {' or '.join(known)}"
        value = self.need(key, line) if default is None else self.get(key) or default
        if value not in known:
            raise ConfigError(f"{self.full(key)} is {value!r} in the mapping: write {' or '.join(known)}")
        return str(value)

    def positive(self, key: str, default: float | None, example: str = "0.5") -> float:
        """A number above zero."""
        value = self.need(key, f"{self.full(key)}: {example}") if default is None else self.get(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise ConfigError(f"{self.full(key)} is {value!r} in the mapping: write a number above zero")
        return float(value)

    def whole(self, key: str, default: int | None, example: str = "8") -> int:
        """A whole number of at least one."""
        value = self.need(key, f"{self.full(key)}: {example}") if default is None else self.get(key)
        value = default if value is None else value
        if type(value) is not int or value < 1:
            raise ConfigError(f"{self.full(key)} is {value!r} in the mapping: write a whole number of at least 1")
        return value

    def done(self) -> None:
        """ConfigError for a key that has no meaning here."""
        for key in self._values:
            if key not in self._asked:
                near = difflib.get_close_matches(str(key), self._asked, 1)
                hint = f"did you mean {self.full(near[0])}?" if near else f"known are {', '.join(sorted(self._asked))}"
                raise ConfigError(f"the mapping has an unknown key {self.full(str(key))}; {hint}")


def read_mapping(path: Path | None, overrides: Sequence[str]) -> dict[str, Any]:
    """The file, then overrides such as ``contract.horizon=10``; not checked yet. ConfigError when it is no mapping."""
    values: Any = {}
    if path is not None:
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"cannot read the mapping {path}: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"the mapping {path} holds no keys and values: --show prints a template")
    for override in overrides:
        key, equals, text = override.partition("=")
        *parents, last = key.strip().split(".")
        if not equals or not all((*parents, last)):
            raise ConfigError(f"{override!r} is no override: write key=value, e.g. contract.horizon=10")
        place = values
        for parent in parents:
            place[parent] = inner = place.get(parent) or {}
            if not isinstance(inner, dict):
                raise ConfigError(f"{key} cannot be set: {parent} is {inner!r}, which has no keys")
            place = inner
        try:
            place[last] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"the value of the override {override!r} cannot be read: put it in quotes") from error
    return values


def _contract(answers: Answers) -> ActionContract:
    example = "contract: {limits: [0.6, 0.6, 1.5], rate_hz: 10, horizon: 8, frame_rate_hz: 5}"
    section = answers.section("contract", example)
    limits = section.need("limits", example)
    if not isinstance(limits, list) or len(limits) != 3 or not all(type(each) in (int, float) for each in limits):
        raise ConfigError(f"contract.limits is {limits!r} in the mapping: write three numbers, in m/s, m/s and rad/s")
    try:
        contract = ActionContract(
            limits=tuple(float(each) for each in limits),
            rate_hz=section.positive("rate_hz", None, "10"),
            horizon=section.whole("horizon", None),
            frame_rate_hz=section.positive("frame_rate_hz", None, "5"),
        )
    except ContractMismatchError as error:
        raise ConfigError(f"the contract in the mapping cannot be: {error}") from error
    section.done()
    return contract


def _axis_line(section: str, axis: str, kind: Kind) -> str:
    unit = next(iter(UNITS[axis]))
    return (
        f"{section}: {{{axis}: {{{kind.place}: ..., {kind.elements[0]}: ..., unit: {unit}, "
        f"positive: {POSITIVE[axis][0]}}}}}"
    )


def _axes(section: Answers, kind: Kind) -> Axes:
    vx, vy, wz = (_axis(section, axis, kind) for axis in AXES)
    section.done()
    if vx is None and vy is None and wz is None:
        raise ConfigError(f"all axes of {section.path} are zero: map at least one")
    return vx, vy, wz


def _axis(section: Answers, axis: str, kind: Kind) -> AxisSource | None:
    line = _axis_line(section.path, axis, kind)
    if (
        section.need(axis, f"{line}` or, for an axis that the base does not have, `{axis}: {ZERO}", Role.NUMBERS)
        == ZERO
    ):
        return None
    answers = section.section(axis, line)
    part = answers.part(kind.place, Role.NUMBERS, line)
    index = _index(answers, part, kind, line)
    positive = answers.choice("positive", POSITIVE[axis], None)
    unit = answers.choice("unit", (*UNITS[axis], UNITLESS), None)
    si = next(iter(UNITS[axis]))
    if unit == UNITLESS:
        factor = answers.positive("scale", None, f"0.3` (what 1 in the source is, in {si}) for `unit: {UNITLESS}")
    elif answers.get("scale") is not None:
        raise ConfigError(f"{answers.full('scale')} goes with `unit: {UNITLESS}` alone: {unit} is a unit of its own")
    else:
        factor = UNITS[axis][unit]
    answers.done()
    return AxisSource(part.name, index, factor if positive == POSITIVE[axis][0] else -factor)


def _index(answers: Answers, part: Part, kind: Kind, line: str) -> int:
    """Which number of ``part`` is meant."""
    given = [(key, answers.get(key)) for key in kind.elements]
    chosen = [(key, value) for key, value in given if value is not None]
    if not chosen and len(part.elements) == 1:
        return 0
    if len(chosen) != 1:
        raise ConfigError(
            f"the mapping must say {' or '.join(answers.full(key) for key in kind.elements)}, one of them: "
            f"{part.name} has the numbers {', '.join(part.elements)}; add the line `{line}`"
        )
    ((key, value),) = chosen
    if key == "index" and type(value) is int and 0 <= value < len(part.elements):
        return value
    if key != "index" and value in part.elements:
        return part.elements.index(str(value))
    raise ConfigError(
        f"{answers.full(key)} is {value!r} in the mapping: {part.name} has {', '.join(part.elements)}"
        + (", counted from 0" if key == "index" else "")
    )


def _states(answers: Answers, kind: Kind) -> Axes | None:
    """``state: from_action``, or axes as those of the action."""
    line = _axis_line("state", AXES[0], kind)
    value = answers.need("state", f"{line}` or, where no velocity was measured, `state: {FROM_ACTION}", Role.NUMBERS)
    return None if value == FROM_ACTION else _axes(answers.section("state", line), kind)


def _words(answers: Answers, kind: Kind) -> Words:
    examples = {
        "task": "{task: true}",
        "text": '{text: "go to the red cup"}',
        "dataset": "{dataset: language_instruction}",
        "attribute": "{attribute: ...}",
        "file_name": '{file_name: {left: "go round on the left", right: "..."}}',
        "topic": "{topic: /instruction}",
    }
    line = f"instruction: {' or '.join(examples[each] for each in kind.instructions)}"
    value = answers.need("instruction", line, Role.TEXT)
    section = answers.section("instruction", line)
    chosen = [(key, section.get(key)) for key in kind.instructions if value.get(key) is not None]
    if len(chosen) != 1:
        raise ConfigError(f"instruction needs one of {', '.join(kind.instructions)}, e.g. `{line}`")
    ((origin, where),) = chosen
    texts = section.get("texts") if origin in ("task", "dataset", "attribute", "topic") else None
    if origin in ("dataset", "topic"):
        where = section.part(origin, Role.TEXT, line).name
    if origin == "file_name":
        texts, where = where, ""
    if texts is not None and (
        not isinstance(texts, Mapping) or not texts or not all(isinstance(each, str) for each in texts.values())
    ):
        raise ConfigError(f"{section.full('file_name' if origin == 'file_name' else 'texts')} needs `what: sentence`")
    section.done()
    return Words(origin, str(where), {str(key): text for key, text in (texts or {}).items()})


def _extras(answers: Answers) -> Extras:
    extras = answers.get("extras") or {}
    if not isinstance(extras, Mapping):
        raise ConfigError(
            f"extras is {extras!r} in the mapping: write keys and values, e.g. `extras: {{driver: operator}}`"
        )
    for key, value in extras.items():
        if str(key).startswith(OWN_EXTRAS) or not isinstance(value, str | int | float | bool):
            raise ConfigError(f"extras.{key} cannot be {value!r}: write a plain value under a name of your own")
    return {str(key): value for key, value in extras.items()}
