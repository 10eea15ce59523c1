"""Reading grammar.yaml: names, templates and cue words of each language, checked."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args

import yaml
from rapidfuzz import process

from mobile_vla.core.backports import StrEnum
from mobile_vla.core.errors import ConfigError
from mobile_vla.core.goal import Colour, Kind, Side
from mobile_vla.language.hangul import particle

Language = Literal["en", "ko"]
Split = Literal["train", "held_out"]
LANGUAGES: Final[tuple[Language, ...]] = get_args(Language)
SPLITS: Final[tuple[Split, ...]] = get_args(Split)
SHIPPED: Final = Path(__file__).with_name("grammar.yaml")
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same safe subset, ten times as fast
_Key = TypeVar("_Key", bound=StrEnum)

SECTIONS: Final = ("go", "go_side", "stop", "turn", "closer", "back")
CUES: Final = (
    "ignore",
    "stop",
    "turn",
    "closer",
    "back",
    "passing",
    "keeping",
    "approaching",
    "negation",
    "cannot",
)
# Slots a template of the section must have and may have; one of a tuple is enough.
_REQUIRED: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "go": (("target",),),
    "go_side": (("target",), ("side", "other_side")),
    "turn": (("side", "rotation"),),
}
_ALLOWED: Final[Mapping[str, frozenset[str]]] = {
    "go": frozenset({"target"}),
    "go_side": frozenset({"target", "side", "other_side", "obstacle"}),
    "turn": frozenset({"side", "rotation"}),
}
_SLOT: Final = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Template:
    """One phrasing. ``pieces`` alternate: literal, slot, literal, ...; a slot "을/를" is a Korean particle."""

    text: str
    pieces: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> "Template":
        """Cut the text at its slots."""
        return cls(text, tuple(_SLOT.split(text)))

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the slots and particles, in order."""
        return self.pieces[1::2]

    def fill(self, words: Mapping[str, str]) -> str:
        """Put words into the slots and choose the particles."""
        said = self.pieces[0]
        for slot, literal in zip(self.pieces[1::2], self.pieces[2::2], strict=True):
            said += (words[slot] if slot in words else particle(said, *slot.split("/"))) + literal
        return said


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Everything the file says about one language."""

    kinds: Mapping[Kind, tuple[str, ...]]
    colours: Mapping[Colour, tuple[str, ...]]
    sides: Mapping[Side, tuple[str, ...]]
    rotations: Mapping[Side, tuple[str, ...]]
    obstacles: tuple[str, ...]
    templates: Mapping[tuple[str, Split], tuple[Template, ...]]
    cues: Mapping[str, tuple[str, ...]]
    cues_before: bool
    particles: tuple[str, ...]
    determiners: tuple[str, ...]
    words: tuple[str, ...]
    not_typos: tuple[str, ...]
    known: frozenset[str]
    """Every word of names, templates, cues and lists, lower case, but for those that are only in not_typos."""


def read_grammar(path: Path | str | None = None) -> dict[Language, Vocabulary]:
    """Read and check a grammar file (the shipped one by default). Raises ConfigError that names the bad entry."""
    source = SHIPPED if path is None else Path(path)
    try:
        raw = yaml.load(source.read_text(encoding="utf-8"), _LOADER)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"the grammar {source} cannot be read: {error}") from error
    _same_keys(str(source), raw, LANGUAGES)
    return {language: _vocabulary(f"{source}: {language}", raw[language]) for language in LANGUAGES}


_KEYS: Final = (
    "cues_come",
    "kinds",
    "colours",
    "sides",
    "rotations",
    "obstacles",
    "templates",
    "cues",
    "particles",
    "determiners",
    "words",
    "not_typos",
)


def _vocabulary(where: str, raw: Any) -> Vocabulary:
    _same_keys(where, raw, _KEYS)
    if raw["cues_come"] not in ("before", "after"):
        raise ConfigError(f"{where}: cues_come is {raw['cues_come']!r}, it must be before or after")
    _same_keys(f"{where}.templates", raw["templates"], SECTIONS)
    templates: dict[tuple[str, Split], tuple[Template, ...]] = {}
    for section in SECTIONS:
        place = f"{where}.templates.{section}"
        _same_keys(place, raw["templates"][section], SPLITS)
        for split in SPLITS:
            texts = _texts(f"{place}.{split}", raw["templates"][section][split])
            templates[section, split] = tuple(_template(f"{place}.{split}", section, text) for text in texts)
        both = {t.text for t in templates[section, "train"]} & {t.text for t in templates[section, "held_out"]}
        if both:
            raise ConfigError(f"{place}: {min(both)!r} stands in train and in held_out")
    _same_keys(f"{where}.cues", raw["cues"], CUES)
    cues = {name: _texts(f"{where}.cues.{name}", raw["cues"][name], name == "ignore") for name in CUES}
    kinds = _names(f"{where}.kinds", raw["kinds"], Kind)
    colours = _names(f"{where}.colours", raw["colours"], Colour)
    sides = _names(f"{where}.sides", raw["sides"], Side)
    rotations = _names(f"{where}.rotations", raw["rotations"], Side)
    obstacles = _texts(f"{where}.obstacles", raw["obstacles"])
    particles, determiners, words, not_typos = (
        _texts(f"{where}.{key}", raw[key], True) for key in ("particles", "determiners", "words", "not_typos")
    )
    known = _known(
        [*obstacles, *determiners, *words, *(cue for texts in cues.values() for cue in texts)],
        [word for names in (kinds, colours, sides, rotations) for words in names.values() for word in words],
        [literal for row in templates.values() for template in row for literal in template.pieces[::2]],
    )
    return Vocabulary(
        kinds=kinds,
        colours=colours,
        sides=sides,
        rotations=rotations,
        obstacles=obstacles,
        templates=templates,
        cues=cues,
        cues_before=raw["cues_come"] == "before",
        particles=particles,
        determiners=determiners,
        words=words,
        not_typos=not_typos,
        known=known,
    )


def _known(*texts: Iterable[str]) -> frozenset[str]:
    words = (word for group in texts for text in group for word in text.lower().split())
    return frozenset(word.strip(".,;:!?*") for word in words) - {""}


def _names(where: str, raw: Any, keys: type[_Key]) -> dict[_Key, tuple[str, ...]]:
    """A table with every member of the enumeration and no other; no word may name two members."""
    _same_keys(where, raw, tuple(key.value for key in keys))
    names = {key: _texts(f"{where}.{key}", raw[key.value]) for key in keys}
    owner: dict[str, _Key] = {}
    for key, words in names.items():
        for word in words:
            if word in owner:
                raise ConfigError(f"{where}: the word {word!r} names both {owner[word]} and {key}")
            owner[word] = key
    return names


def _template(where: str, section: str, text: str) -> Template:
    template = Template.of(text)
    slots = [slot for slot in template.slots if "/" not in slot]
    allowed = _ALLOWED.get(section, frozenset())
    for slot in slots:
        if slot not in allowed:
            raise ConfigError(f"{where}: {text!r} has the slot {{{slot}}}{_nearest(slot, sorted(allowed))}")
    for choice in _REQUIRED.get(section, ()):
        if sum(slots.count(slot) for slot in choice) != 1:
            raise ConfigError(f"{where}: {text!r} needs exactly one {' or '.join(f'{{{slot}}}' for slot in choice)}")
    if any(slot.count("/") > 1 for slot in template.slots):
        raise ConfigError(f"{where}: {text!r} has a particle that is not two forms, like {{을/를}}")
    return template


def _texts(where: str, raw: Any, empty: bool = False) -> tuple[str, ...]:
    if not isinstance(raw, list) or not (raw or empty):
        raise ConfigError(f"{where} must be a list of words, got {raw!r}")
    for text in raw:
        if not isinstance(text, str) or not text.strip():
            raise ConfigError(f"{where}: {text!r} is not text; put it in quotes")
    if len(set(raw)) != len(raw):
        raise ConfigError(f"{where}: {max(raw, key=raw.count)!r} stands there twice")
    return tuple(raw)


def _same_keys(where: str, raw: Any, keys: tuple[str, ...]) -> None:
    if not isinstance(raw, dict):
        raise ConfigError(f"{where} must be a table with the keys {', '.join(keys)}, got {type(raw).__name__}")
    for key in raw:
        if key not in keys:
            raise ConfigError(f"{where}: unknown key {key!r}{_nearest(str(key), keys)}")
    missing = [key for key in keys if key not in raw]
    if missing:
        raise ConfigError(f"{where}: {', '.join(missing)} missing")


def _nearest(word: str, choices: Iterable[str]) -> str:
    choices = list(choices)
    found = process.extractOne(word, choices, score_cutoff=60)
    return f"; did you mean {found[0]!r}?" if found else f"; it can be {', '.join(choices) or 'none'}"
