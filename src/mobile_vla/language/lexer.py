"""Text to pieces: which words of an instruction name an object, a colour or a side, slips of the fingers forgiven."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import product

from rapidfuzz import process
from rapidfuzz.distance import OSA

from mobile_vla.core.goal import Colour, Kind, Side
from mobile_vla.language.typos import KEYBOARD_NEIGHBOURS
from mobile_vla.language.vocabulary import Language, Vocabulary

Value = Kind | Colour | Side | None


class Part(Enum):
    """What a piece of an instruction is."""

    KIND = auto()
    COLOUR = auto()
    SIDE = auto()
    ROTATION = auto()
    OBSTACLE = auto()
    DETERMINER = auto()
    WORD = auto()
    UNKNOWN = auto()
    BREAK = auto()  # punctuation


@dataclass(frozen=True, slots=True)
class Piece:
    """A word, a particle or a name. ``cues``: what the words of the grammar's cue lists say here."""

    part: Part
    text: str
    value: Value = None
    cues: frozenset[str] = field(default=frozenset())


_SHORT = 6  # letters from which a slip may put any letter in another's place, not only its neighbour's on the keyboard
_LONG = 9  # letters (or jamo) from which two slips in one word are forgiven
_LONGEST_ENDING = 6  # syllables of a Korean verb's ending, as in 멈춰+주시겠어요
_LONGEST_WORD = 40  # syllables without a space in which slips are still looked for
_PUNCTUATION = re.compile(r"[.,;:!?]+")


def language_of(text: str) -> Language:
    """Korean as soon as there is a Hangul character."""
    return "ko" if any("HANGUL" in unicodedata.name(character, "") for character in text) else "en"


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text.replace("’", "'").replace("‘", "'")).lower()


def names_of(vocabulary: Vocabulary) -> dict[str, tuple[Part, Value]]:
    """Every name in lower case, with what it names. A word for boxes that is also a name of the kind is the kind."""
    names: dict[str, tuple[Part, Value]] = {word.lower(): (Part.OBSTACLE, None) for word in vocabulary.obstacles}
    tables = (
        (Part.KIND, vocabulary.kinds),
        (Part.COLOUR, vocabulary.colours),
        (Part.SIDE, vocabulary.sides),
        (Part.ROTATION, vocabulary.rotations),
    )
    for part, table in tables:
        names |= {word.lower(): (part, value) for value, words in table.items() for word in words}
    return names


def _literals(vocabulary: Vocabulary) -> Iterator[str]:
    """Words of the templates that stand outside the slots, with "{}" or "{rotation}" where a slot touches them."""
    for templates in vocabulary.templates.values():
        for template in templates:
            yield from re.sub(r"\{(?!rotation)[^{}/]*\}", "{}", template.text.lower()).split()


class EnglishLexer:
    """Words between spaces; a word of no list is corrected to the nearest one, names first."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._names = {tuple(name.split()): what for name, what in names_of(vocabulary).items()}
        self._longest = max(map(len, self._names))
        self._determiners = frozenset(vocabulary.determiners)
        self._known = vocabulary.known
        self._not_typos = frozenset(vocabulary.not_typos)
        self._stopping = frozenset(vocabulary.cues["stop"])
        naming = {name for name, (part, _) in self._names.items() if part not in (Part.SIDE, Part.ROTATION)}
        self._nouns = frozenset(word for name in naming for word in name)
        refusing = (*vocabulary.cues["negation"], *vocabulary.cues["cannot"])
        self._refusing = frozenset(word for cue in refusing for word in cue.split())
        self._correctable = sorted(self._known)

    def pieces(self, text: str) -> list[Piece]:
        """Cut the text into pieces, cues not marked yet."""
        words = re.findall(r"[\w']+|[.,;:!?]+", _plain(text))
        for at, word in enumerate(words):
            behind_name_word = at > 0 and (words[at - 1] in self._determiners or words[at - 1] in self._nouns)
            before_noun = at + 1 < len(words) and self._corrected(words[at + 1], True) in self._nouns
            words[at] = self._corrected(word, behind_name_word or before_noun)
        pieces: list[Piece] = []
        while words:
            for length in range(min(self._longest, len(words)), 0, -1):
                if named := self._names.get(tuple(words[:length])):
                    pieces.append(Piece(named[0], " ".join(words[:length]), named[1]))
                    del words[:length]
                    break
            else:
                pieces.append(self._plain_word(words.pop(0)))
        return pieces

    def _plain_word(self, word: str) -> Piece:
        if _PUNCTUATION.fullmatch(word):
            return Piece(Part.BREAK, word)
        if word in self._determiners:
            return Piece(Part.DETERMINER, word)
        return Piece(Part.WORD if word in self._known or word.isdecimal() else Part.UNKNOWN, word)

    def _corrected(self, word: str, in_name: bool) -> str:
        """The nearest known word; of equally near ones an object or colour inside a name, another word elsewhere.

        In doubt it is a stop.
        """
        if word in self._known or word in self._not_typos or not word[0].isalpha():
            return word
        slips = 2 if len(word) >= _LONG else 1
        found = process.extract(word, self._correctable, scorer=OSA.distance, score_cutoff=slips, limit=None)
        fitting = [(choice, slips) for choice, slips, _ in found if _is_slip(word, choice)]
        ranked = [
            (
                slips,
                choice in self._refusing,
                (choice in self._nouns) != in_name,
                choice not in self._stopping,
                -len(choice),
                choice,
            )
            for choice, slips in fitting
        ]
        return min(ranked)[-1] if ranked else word


def _is_slip(written: str, meant: str) -> bool:
    """A short word differs by more than one letter for another: that would be another word."""
    if len(meant) >= _SHORT or len(written) != len(meant):
        return True
    changed = [(a, b) for a, b in zip(written, meant, strict=True) if a != b]
    return len(changed) != 1 or changed[0][0] in KEYBOARD_NEIGHBOURS.get(changed[0][1], "")


class KoreanLexer:
    """Words with their particles, cut apart even where spaces are missing.

    A word is cut into names, particles and words of the grammar when these cover all of it; so the 콘 of 콘센트 is no
    cone. Failing that, the nearest known form within a slip is read, and failing that the word is unknown.
    """

    def __init__(self, vocabulary: Vocabulary, also_named: Mapping[str, tuple[Part, Value]]) -> None:
        """``also_named``: names of another language, as in "cup으로 가"."""
        names = {**also_named, **names_of(vocabulary)}
        self._joined = {name: name.replace(" ", "") for name in names if " " in name}
        self._names = {name.replace(" ", ""): what for name, what in names.items()}
        cues = {word for cues in vocabulary.cues.values() for cue in cues for word in cue.split()} - {"{side}"}
        self._stems = sorted((cue[:-1] for cue in cues if cue.endswith("*")), key=len, reverse=True)
        self._exact_cues = frozenset(cue for cue in cues if not cue.endswith("*"))
        self._stopping = frozenset(cue for cue in vocabulary.cues["stop"] if not cue.endswith("*"))
        self._stopping_stems = tuple(cue[:-1] for cue in vocabulary.cues["stop"] if cue.endswith("*"))
        self._approaching = frozenset(vocabulary.cues["approaching"])
        self._determiners = frozenset(vocabulary.determiners)
        self._not_typos = frozenset(vocabulary.not_typos)
        literals = [_PUNCTUATION.sub("", literal) for literal in _literals(vocabulary)]
        self._words = (
            {literal for literal in literals if "{" not in literal}
            | self._exact_cues
            | set(vocabulary.words)
            | self._determiners
        ) - {""}
        ends = {end for literal in literals if literal.startswith("{}") for end in _endings(literal[2:])}
        verbs = {literal.removeprefix("{rotation}") for literal in literals if literal.startswith("{rotation}")} - {""}
        self._particles = sorted((ends | set(vocabulary.particles)) - {""}, key=len, reverse=True)
        self._words |= verbs
        self._words -= {particle for particle in self._particles if len(particle) == 1} - verbs
        self._lexemes = sorted({*self._names, *self._words}, key=len, reverse=True)
        forms = [name + end for name, end in product(self._names, ["", *self._particles])]
        forms += sorted(word for word in self._words if len(word) > 1)
        self._forms = list(dict.fromkeys(forms))
        self._form_jamo = [unicodedata.normalize("NFD", form) for form in self._forms]

    def pieces(self, text: str) -> list[Piece]:
        """Cut the text into pieces, cues not marked yet."""
        text = " ".join(_plain(text).split())
        for name, joined in self._joined.items():
            text = text.replace(name, joined)
        pieces: list[Piece] = []
        for word in re.findall(r"[\w'-]+|[.,;:!?]+", text):
            if _PUNCTUATION.fullmatch(word):
                pieces.append(Piece(Part.BREAK, word))
            else:
                pieces += (
                    self._exact(word) or self._near(word) or self._exact(word, with_stems=True) or self._unknown(word)
                )
        return pieces

    def _exact(self, word: str, with_stems: bool = False) -> list[Piece] | None:
        """Cover the whole word with lexemes and particles, the longest first; None where that cannot be done.

        ``with_stems``: the last of them may be a verb known by its stem alone.
        """
        if word in self._particles:
            return [Piece(Part.WORD, word)]
        return self._cover(word, None, with_stems, set())

    def _cover(
        self, word: str, last: Piece | None, with_stems: bool, dead: set[tuple[int, bool]]
    ) -> list[Piece] | None:
        """As _exact for what is left behind ``last``; ``dead`` keeps the ends already found impossible."""
        if not word:
            return []
        bears_particle = last is not None and (
            last.part is not Part.WORD or len(last.text) > 1 or last.text in self._approaching
        )
        if (len(word), bears_particle) in dead:
            return None
        fitting = [
            self._piece(lexeme)
            for lexeme in self._lexemes
            if word.startswith(lexeme) and (word == lexeme or lexeme in self._names or self._may_go_on(lexeme))
        ]
        if bears_particle:
            fitting += [Piece(Part.WORD, particle) for particle in self._particles if word.startswith(particle)]
        for piece in fitting:
            if (rest := self._cover(word[len(piece.text) :], piece, with_stems, dead)) is not None:
                return [piece, *rest]
        if word.isdecimal() or (with_stems and any(self._is_of_stem(word, stem) for stem in self._stems)):
            return [Piece(Part.WORD, word)]
        dead.add((len(word), bears_particle))
        return None

    @staticmethod
    def _is_of_stem(word: str, stem: str) -> bool:
        return word.startswith(stem) and len(word) - len(stem) <= _LONGEST_ENDING

    def _may_go_on(self, lexeme: str) -> bool:
        """A cue of one syllable, such as 서, stands at the end of a word: else it is the start of some other word."""
        return len(lexeme) > 1 or lexeme not in self._exact_cues or lexeme in self._approaching

    def _piece(self, lexeme: str) -> Piece:
        if lexeme in self._names:
            part, value = self._names[lexeme]
            return Piece(part, lexeme, value)
        return Piece(Part.DETERMINER if lexeme in self._determiners else Part.WORD, lexeme)

    def _near(self, word: str) -> list[Piece] | None:
        """The nearest form for the whole word, or for one side of it where a space is missing as well."""
        if len(word) > _LONGEST_WORD or self._without_particle(word) in self._not_typos:
            return None
        if whole := self._nearest_form(word):
            return whole[1]
        readings: list[tuple[int, int, list[Piece]]] = []
        for cut in range(1, len(word)):
            left, right = word[:cut], word[cut:]
            if len(right) > 1 and (exact := self._exact(left)) and (near := self._nearest_form(right)):
                readings.append((near[0], -_named(near[1]), exact + near[1]))
            if len(left) > 1 and (exact := self._exact(right)) and (near := self._nearest_form(left)):
                readings.append((near[0], -_named(near[1]), near[1] + exact))
        return min(readings, key=lambda reading: reading[:2])[2] if readings else None

    def _nearest_form(self, word: str) -> tuple[int, list[Piece]] | None:
        """Slips and pieces. Of equally near forms: words before names, a stop before other words, then the longer."""
        jamo = unicodedata.normalize("NFD", word)
        allowed = 2 if len(jamo) >= _LONG else 1
        found = process.extract(jamo, self._form_jamo, scorer=OSA.distance, score_cutoff=allowed, limit=None)
        fitting = [(slips, at) for _, slips, at in found if self._same_short_head(word, self._forms[at])]
        if not fitting:
            return None
        least = min(fitting)[0]
        nearest = [self._forms[at] for slips, at in fitting if slips == least]
        readings = [pieces for form in sorted(nearest, key=_jamo_length, reverse=True) if (pieces := self._exact(form))]
        if len({meaning for pieces in readings if (meaning := _meaning(pieces))}) > 1:
            return None  # as near to one name as to another: no guess
        readings.sort(key=lambda pieces: (_named(pieces), not self._stops(pieces)))
        return (least, readings[0]) if readings else None

    def _stops(self, pieces: Iterable[Piece]) -> bool:
        return any(piece.text in self._stopping or piece.text.startswith(self._stopping_stems) for piece in pieces)

    def _same_short_head(self, word: str, form: str) -> bool:
        """Nouns of one syllable are never the result of a correction: 곰까지 is not 공까지."""
        head = self._exact(form)
        return not head or len(head[0].text) > 1 or word[0] == form[0]

    def _without_particle(self, word: str) -> str:
        return next((word.removesuffix(end) for end in self._particles if word.endswith(end) and word != end), word)

    def _unknown(self, word: str) -> list[Piece]:
        stem = self._without_particle(word)
        end = word[len(stem) :]
        return [Piece(Part.UNKNOWN, stem), *([Piece(Part.WORD, end)] if end else [])]


def _jamo_length(form: str) -> int:
    return len(unicodedata.normalize("NFD", form))


def _meaning(pieces: Iterable[Piece]) -> tuple[tuple[Part, Value], ...]:
    return tuple((piece.part, piece.value) for piece in pieces if piece.value is not None)


def _named(pieces: Iterable[Piece]) -> int:
    return len(_meaning(pieces))


def _endings(after_slot: str) -> Iterable[str]:
    """What may stick to a name by this template: both forms of a particle marker, with the literal behind it."""
    if match := re.fullmatch(r"\{([^{}/]+)/([^{}/]+)\}(.*)", after_slot):
        return (match[1] + match[3], match[2] + match[3])
    return () if "{" in after_slot else (after_slot,)
