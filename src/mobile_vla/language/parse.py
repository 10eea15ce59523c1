"""Words to a goal, by rules that give the same answer every time. Used for reports, for judging success and to refuse.

Names, colours and sides are found wherever they stand; the cue words of grammar.yaml decide what they are for. A cue
works on what comes next to it: before its object in English ("round the box"), after it in Korean ("상자를 피해").
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from mobile_vla.core.errors import InstructionError
from mobile_vla.core.goal import Colour, Goal, Kind, Mode, Side, Target
from mobile_vla.core.observation import Instruction
from mobile_vla.language.grammar import Grammar
from mobile_vla.language.lexer import EnglishLexer, KoreanLexer, Part, Piece, language_of, names_of
from mobile_vla.language.vocabulary import Language

_OTHER = {Side.LEFT: Side.RIGHT, Side.RIGHT: Side.LEFT}
_TURN = {Side.LEFT: Mode.TURN_LEFT, Side.RIGHT: Mode.TURN_RIGHT}
_MODE_CUES = {"stop": Mode.STOP, "closer": Mode.CLOSER, "back": Mode.BACK}
_PASSING = frozenset({"passing", "keeping"})
_APPROACHING = frozenset({"approaching", "closer"})
_ADVERB_ENDINGS = {"en": ("ly",), "ko": ("히", "게", "서", "고")}
_OBJECT_PARTICLES = frozenset({"까지", "으로", "로", "에", "에게", "한테", "을", "를", "의", "쪽", "쪽으로"})
_KNOWN_KINDS = ", ".join(kind.value.replace("_", " ") for kind in Kind)
_KNOWN_COLOURS = ", ".join(Colour)


@dataclass(frozen=True, slots=True)
class _Mention:
    """An object that is named: pieces ``start`` to ``end`` (exclusive). ``kind`` None: something in the way."""

    start: int
    end: int
    kind: Kind | None
    colour: Colour | None
    role: str  # the cue class it stands under, "approaching" where there is none


def parse(text: str, grammar: Grammar) -> Goal:
    """The goal the words ask for.

    Raises InstructionError, with a sentence for the person, where nothing or too much is asked: an unknown object, two
    targets, both sides, a motion the robot does not have.
    """
    Instruction(text)
    language = language_of(text)
    return _Reading(language, tuple(_pieces(text, language, grammar))).goal()


@lru_cache(maxsize=8)
def _lexer(grammar: Grammar, language: Language) -> EnglishLexer | KoreanLexer:
    if language == "ko":
        return KoreanLexer(grammar.vocabularies["ko"], also_named=names_of(grammar.vocabularies["en"]))
    return EnglishLexer(grammar.vocabularies["en"])


@lru_cache(maxsize=8)
def _cue_phrases(grammar: Grammar, language: Language) -> tuple[tuple[tuple[str, ...], frozenset[str]], ...]:
    """Cue phrases, the longest first, each with all classes that it belongs to."""
    classes: dict[tuple[str, ...], set[str]] = {}
    for name, texts in grammar.vocabularies[language].cues.items():
        for text in texts:
            classes.setdefault(tuple(text.lower().split()), set()).add(name)
    return tuple((phrase, frozenset(names)) for phrase, names in sorted(classes.items(), key=lambda x: -len(x[0])))


def _pieces(text: str, language: Language, grammar: Grammar) -> Iterator[Piece]:
    """The pieces with their cues; a longer cue phrase wins, and takes its words away from shorter ones."""
    pieces = _lexer(grammar, language).pieces(text)
    phrases = _cue_phrases(grammar, language)
    at = 0
    while at < len(pieces):
        matching = [(len(phrase), cues) for phrase, cues in phrases if _matches(phrase, pieces[at:])]
        length = matching[0][0] if matching else 1
        found = frozenset(cue for words, cues in matching if words == length for cue in cues)
        if "ignore" in found:
            yield from (Piece(Part.WORD, piece.text) for piece in pieces[at : at + length])
        else:
            # The cue sits on its last word: "left at" acts on what comes after "at".
            yield from pieces[at : at + length - 1]
            yield replace(pieces[at + length - 1], cues=found)
        at += length


def _matches(phrase: Sequence[str], pieces: Sequence[Piece]) -> bool:
    if len(phrase) > len(pieces):
        return False
    for word, piece in zip(phrase, pieces, strict=False):
        if word == "{side}":
            if piece.part is not Part.SIDE:
                return False
            continue
        alike = piece.text.startswith(word[:-1]) if word.endswith("*") else piece.text == word
        if piece.part not in (Part.WORD, Part.DETERMINER, Part.SIDE) or not alike:
            return False
    return True


@dataclass(frozen=True, slots=True)
class _Reading:
    """The pieces of one instruction, and the rules over them."""

    language: Language
    pieces: tuple[Piece, ...]

    def goal(self) -> Goal:
        if self._is_plain_stop():
            return Goal(Mode.STOP)
        self._refuse_what_cannot_be_done()
        if unknown := self._unknown_objects():
            raise InstructionError(f"the instruction names {unknown[0]!r}, which I do not know; I know {_KNOWN_KINDS}")
        mentions = self._mentions()
        target = self._target(mentions)
        sides = self._sides(mentions)
        if len(sides) > 1:
            raise InstructionError("the instruction names both sides, left and right: name the one to pass on")
        side = next(iter(sides), None)
        if target is not None:
            self._refuse_motion_beside_target()
            return Goal(Mode.GO, target, side)
        if mentions:
            raise InstructionError(
                f"the instruction says how to pass the boxes but not where to go: name a target ({_KNOWN_KINDS})"
            )
        return self._motion(side)

    def _is_plain_stop(self) -> bool:
        """The first motion asked for is a stop, whatever comes after it ("stop turning"), and nothing is named."""
        asked = [piece.cues for piece in self.pieces if piece.cues & _MODES_AND_REFUSALS]
        if not asked or "stop" not in asked[0] or self._unknown_objects():
            return False
        if self.language == "ko" and any("negation" in cues and "stop" not in cues for cues in asked):
            return False  # 멈추지 마: the verb is negated by what follows it
        return all(piece.part not in (Part.KIND, Part.COLOUR, Part.OBSTACLE) for piece in self.pieces)

    def _refuse_what_cannot_be_done(self) -> None:
        for piece in self.pieces:
            if "cannot" in piece.cues:
                raise InstructionError(
                    f"the instruction asks for {piece.text!r}: I can only go to an object, turn, stop or move a little"
                )
            if "negation" in piece.cues:
                raise InstructionError(f"the instruction says what not to do ({piece.text!r}): say what to do instead")

    def _unknown_objects(self) -> list[str]:
        """Unknown words where an object or its description is expected; other unknown words do no harm."""
        found: list[str] = []
        for at, piece in enumerate(self.pieces):
            if piece.part is not Part.UNKNOWN or piece.text.endswith(_ADVERB_ENDINGS[self.language]):
                continue
            before = self.pieces[at - 1] if at else None
            after = self.pieces[at + 1] if at + 1 < len(self.pieces) else None
            described = after is not None and after.part in (Part.KIND, Part.COLOUR, Part.OBSTACLE)
            described |= before is not None and before.part is Part.COLOUR
            if self.language == "en":
                expected = before is not None and (
                    before.part is Part.DETERMINER
                    or bool(before.cues & (_PASSING | {"approaching"}))
                    or (before.part is Part.UNKNOWN and before.text in found)
                )
            else:
                expected = after is not None and (
                    after.text in _OBJECT_PARTICLES or bool(after.cues & (_PASSING | {"approaching"}))
                )
            if described or expected:
                found.append(piece.text)
        return found

    def _mentions(self) -> list[_Mention]:
        spans: list[tuple[int, int, Kind | None, Colour | None]] = []
        used: set[int] = set()
        for at, piece in enumerate(self.pieces):
            if piece.part not in (Part.KIND, Part.OBSTACLE):
                continue
            start, colours = at, []
            while start > 0 and self.pieces[start - 1].part in (Part.COLOUR, Part.DETERMINER):
                start -= 1
                if self.pieces[start].part is Part.COLOUR:
                    colours.append(self.pieces[start])
                    used.add(start)
            if len({colour.value for colour in colours}) > 1:
                raise InstructionError(f"the instruction gives {piece.text!r} two colours: name one")
            kind = piece.value if isinstance(piece.value, Kind) else None
            colour = colours[0].value if colours else None
            spans.append((start, at + 1, kind, colour if isinstance(colour, Colour) else None))
        for at, piece in enumerate(self.pieces):
            if piece.part is Part.COLOUR and at not in used:
                raise InstructionError(
                    f"the instruction names the colour {piece.text!r} but not of what; I know {_KNOWN_KINDS}"
                )
        inside = {at for start, end, _, _ in spans for at in range(start, end)}
        return [
            _Mention(start, end, kind, colour, self._role(start, end, inside)) for start, end, kind, colour in spans
        ]

    def _role(self, start: int, end: int, named: set[int]) -> str:
        """The class of the nearest cue on the side where this language puts cues; a side word means passing."""
        before = self.language == "en"
        for at in range(start - 1, -1, -1) if before else range(end, len(self.pieces)):
            piece = self.pieces[at]
            if at in named or piece.part is Part.BREAK:
                break
            if "keeping" in piece.cues:
                return "keeping"
            if piece.part is Part.SIDE or "passing" in piece.cues:
                return "passing"
            if piece.cues & _APPROACHING:
                break
        return "approaching"

    def _target(self, mentions: Sequence[_Mention]) -> Target | None:
        """The one object that is approached; what is passed can only be a box."""
        targets: list[Target] = []
        for mention in mentions:
            if mention.role in _PASSING and mention.kind not in (None, Kind.BOX):
                name = self.pieces[mention.end - 1].text
                raise InstructionError(
                    f"the instruction tells how to pass {name!r}: I can pass boxes only, and go to other things"
                )
            if mention.kind is None or mention.role in _PASSING:
                continue
            target = Target(mention.kind, mention.colour)
            same = [t for t in targets if t.kind is target.kind and None in (t.colour, target.colour)]
            if same and target.colour is not None:
                targets[targets.index(same[0])] = target
            elif not same and target not in targets:
                targets.append(target)
        if len(targets) > 1:
            names = " and ".join(f"{t.colour or ''} {t.kind.replace('_', ' ')}".strip() for t in targets)
            raise InstructionError(f"the instruction names {len(targets)} targets, {names}: name one")
        return targets[0] if targets else None

    def _sides(self, mentions: Sequence[_Mention]) -> set[Side]:
        """Sides to pass or turn to; "keep the box on your right" passes it on the left."""
        sides: set[Side] = set()
        for at, piece in enumerate(self.pieces):
            if piece.part is Part.SIDE and isinstance(piece.value, Side):
                sides.add(_OTHER[piece.value] if self._is_where_boxes_stay(at, mentions) else piece.value)
        return sides

    def _is_where_boxes_stay(self, at: int, mentions: Sequence[_Mention]) -> bool:
        if self.language == "en":
            for before in range(at - 1, -1, -1):
                if self.pieces[before].part is Part.BREAK:
                    return False
                for mention in mentions:
                    if mention.end == before + 1:
                        return mention.role == "keeping"
            return False
        for piece in self.pieces[at + 1 :]:
            if piece.part in (Part.BREAK, Part.SIDE) or "passing" in piece.cues:
                return False
            if "keeping" in piece.cues:
                return True
        return False

    def _refuse_motion_beside_target(self) -> None:
        sided = any(piece.part is Part.SIDE for piece in self.pieces)
        for piece in self.pieces:
            turns = piece.part is Part.ROTATION or ("turn" in piece.cues and "passing" not in piece.cues and not sided)
            if turns or "back" in piece.cues:
                raise InstructionError(
                    f"the instruction names a target and another motion, {piece.text!r}: ask for one at a time"
                )

    def _motion(self, side: Side | None) -> Goal:
        modes = {mode for piece in self.pieces for cue, mode in _MODE_CUES.items() if cue in piece.cues}
        rotations = {piece.value for piece in self.pieces if piece.part is Part.ROTATION}
        turns = rotations | ({side} if side or not rotations else set())
        turns = turns if rotations or any("turn" in piece.cues for piece in self.pieces) else set()
        if len(modes) + len(turns) > 1:
            raise InstructionError("the instruction asks for several motions: ask for one at a time")
        if turns:
            turn = next(iter(turns))
            if not isinstance(turn, Side):
                raise InstructionError("the instruction asks for a turn but not to which side: say left or right")
            return Goal(_TURN[turn])
        if side is not None:
            raise InstructionError(
                f'the instruction names a side but no target: say "turn {side}", or where to go ({_KNOWN_KINDS})'
            )
        if modes:
            return Goal(modes.pop())
        unknown = [piece.text for piece in self.pieces if piece.part is Part.UNKNOWN]
        known = f"I know {_KNOWN_KINDS}, in {_KNOWN_COLOURS}, and stop, turn left, turn right, come closer, go back"
        if unknown:
            raise InstructionError(f"I do not understand {' '.join(unknown)!r}; {known}")
        raise InstructionError(f"the instruction names no object and no motion; {known}")


_MODES_AND_REFUSALS = frozenset({*_MODE_CUES, "turn", "cannot", "negation"})
