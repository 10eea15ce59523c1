"""The grammar makes phrases from goals: the words and templates of grammar.yaml, drawn at random."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeVar

import numpy as np

from mobile_vla.core.goal import Goal, Mode, Side, Target
from mobile_vla.language.typos import slip_jamo, slip_letters
from mobile_vla.language.vocabulary import Language, Split, Template, Vocabulary, read_grammar

_TURNS: Final = {Mode.TURN_LEFT: Side.LEFT, Mode.TURN_RIGHT: Side.RIGHT}
_OTHER: Final = {Side.LEFT: Side.RIGHT, Side.RIGHT: Side.LEFT}
_ENDINGS: Final = ("", "", ".", "!", "..", " ")
_Option = TypeVar("_Option")


class Grammar:
    """The phrases the robot is taught and what it understands. ``vocabularies`` is read by the parser."""

    def __init__(self, vocabularies: Mapping[Language, Vocabulary]) -> None:
        self.vocabularies = vocabularies
        self._words = {name: vocabulary.known.union(vocabulary.not_typos) for name, vocabulary in vocabularies.items()}
        self.split_hash = _split_hash(vocabularies)

    @classmethod
    def load(cls, path: Path | str | None = None) -> "Grammar":
        """Read a grammar file (the shipped one by default). Raises ConfigError that names the bad entry."""
        return cls(read_grammar(path))

    def phrasings(self, mode: Mode, with_side: bool, language: Language, split: Split) -> tuple[str, ...]:
        """Texts of the templates that this mode draws from; ``with_side`` matters for GO alone."""
        return tuple(template.text for template in self.templates(mode, with_side, language, split))

    def templates(self, mode: Mode, with_side: bool, language: Language, split: Split) -> tuple[Template, ...]:
        """The templates that this mode draws from."""
        section = "turn" if mode in _TURNS else "go_side" if mode is Mode.GO and with_side else mode.value
        return self.vocabularies[language].templates[section, split]

    def phrase(
        self, goal: Goal, rng: np.random.Generator, language: Language, split: Split, typo_rate: float = 0.0
    ) -> str:
        """Say the goal in a drawn phrasing with drawn synonyms.

        ``typo_rate``: probability of one or two slips in the phrase and, drawn separately, of another case or ending.
        """
        templates = self.templates(goal.mode, goal.side is not None, language, split)
        said = self.say(goal, _draw(templates, rng), language, rng)
        if typo_rate > 0.0:
            if rng.random() < typo_rate:
                said = self._with_slips(said, language, rng)
            if rng.random() < typo_rate:
                said = _other_dress(said, rng)
        return said

    def say(self, goal: Goal, template: Template, language: Language, rng: np.random.Generator) -> str:
        """Say the goal in this phrasing with drawn synonyms."""
        vocabulary = self.vocabularies[language]
        words: dict[str, str] = {}
        for slot in template.slots:
            match slot:
                case "target":
                    assert goal.target is not None
                    words[slot] = _name(goal.target, vocabulary, rng)
                case "side" | "other_side" | "rotation":
                    side = goal.side or _TURNS[goal.mode]
                    side = _OTHER[side] if slot == "other_side" else side
                    words[slot] = _draw((vocabulary.rotations if slot == "rotation" else vocabulary.sides)[side], rng)
                case "obstacle":
                    words[slot] = _draw(vocabulary.obstacles, rng)
        return template.fill(words)

    def _with_slips(self, said: str, language: Language, rng: np.random.Generator) -> str:
        words = said.split(" ")
        known = self._words[language]
        slips = 1 + int(rng.random() * 2)
        for at in rng.permutation(len(words))[:slips]:
            if language == "en":
                words[at] = slip_letters(words[at], known, rng)
            elif at > 0 and rng.random() < 0.5:
                words[at - 1 : at + 1] = [words[at - 1] + words[at], ""]
            elif not self._starts_with_short_name(words[at]):
                words[at] = slip_jamo(words[at], known, rng)
        return " ".join(word for word in words if word)

    def _starts_with_short_name(self, word: str) -> bool:
        """A Korean noun of one syllable: a slip in it would be another noun."""
        kinds = self.vocabularies["ko"].kinds.values()
        return any(len(name) == 1 and word.startswith(name) for names in kinds for name in names)


def _name(target: Target, vocabulary: Vocabulary, rng: np.random.Generator) -> str:
    kind = _draw(vocabulary.kinds[target.kind], rng)
    return kind if target.colour is None else f"{_draw(vocabulary.colours[target.colour], rng)} {kind}"


def _draw(options: tuple[_Option, ...], rng: np.random.Generator) -> _Option:
    return options[int(rng.random() * len(options))]


def _other_dress(said: str, rng: np.random.Generator) -> str:
    """Another case and another ending, as hurried and as formal people write."""
    dress = int(rng.random() * 4)
    said = said.upper() if dress == 0 else said.lower() if dress == 1 else said[:1].upper() + said[1:]
    return said.rstrip("?.!") + _draw(_ENDINGS, rng)


def _split_hash(vocabularies: Mapping[Language, Vocabulary]) -> str:
    rows = sorted(
        [language, section, split, template.text]
        for language, vocabulary in vocabularies.items()
        for (section, split), templates in vocabulary.templates.items()
        for template in templates
    )
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]
