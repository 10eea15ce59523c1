import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.core import Colour, Goal, InstructionError, Kind, Mode, Side, Target
from mobile_vla.language import (
    ALPHABET,
    LANGUAGES,
    MAX_LENGTH,
    PADDING,
    SPLITS,
    UNKNOWN,
    VOCABULARY_HASH,
    VOCABULARY_SIZE,
    Grammar,
    encode,
)
from mobile_vla.language.tokeniser import symbols


def _letters(text: str) -> str:
    return "".join(ALPHABET[number - 2] for number in encode(text) if number > UNKNOWN)


def test_an_instruction_is_a_padded_row_of_numbers() -> None:
    encoded = encode("Go!")
    assert encoded.dtype == np.int64
    assert encoded.shape == (MAX_LENGTH,)
    assert (encoded[:3] > UNKNOWN).all()
    assert (encoded[3:] == PADDING).all()


def test_the_alphabet_has_no_symbol_twice_and_its_hash_is_fixed() -> None:
    assert len(set(ALPHABET)) == len(ALPHABET) == VOCABULARY_SIZE - 2
    assert VOCABULARY_HASH == "91f663dd8985aebb"  # a change makes every checkpoint unusable: change it knowingly


def test_hangul_falls_into_jamo_and_back() -> None:
    assert unicodedata.normalize("NFC", _letters("빨간 컵까지 가")) == "빨간 컵까지 가"
    assert len(_letters("컵")) == 3


def test_case_width_spaces_and_composition_do_not_matter() -> None:
    plain = encode("don't go to the red cup")
    for other in ("DON’T go to the RED cup", "ｄｏｎ't go to the red cup", "  don't  go\tto the red\ncup "):
        np.testing.assert_array_equal(encode(other), plain)
    np.testing.assert_array_equal(encode(unicodedata.normalize("NFD", "빨간 컵")), encode("빨간 컵"))


def test_what_is_not_in_the_alphabet_is_unknown() -> None:
    assert encode("猫")[0] == UNKNOWN


def test_too_long_or_empty_is_refused() -> None:
    assert encode("a" * MAX_LENGTH).all()
    with pytest.raises(InstructionError, match="129 symbols"):
        encode("a" * (MAX_LENGTH + 1))
    with pytest.raises(InstructionError, match="4 symbols"):
        encode("abcd", length=3)
    with pytest.raises(InstructionError, match="empty"):
        encode(" \n")


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20))
def test_every_number_is_in_the_vocabulary(text: str) -> None:
    if symbols(text) and len(symbols(text)) <= MAX_LENGTH:
        encoded = encode(text)
        assert encoded.min() >= 0
        assert encoded.max() < VOCABULARY_SIZE
        assert np.count_nonzero(encoded) == len(symbols(text))


def test_every_phrase_of_the_grammar_fits_with_a_margin_and_is_fully_known() -> None:
    grammar = Grammar.load()
    for language in LANGUAGES:
        vocabulary = grammar.vocabularies[language]
        longest = {
            "target": _longest(vocabulary.colours.values()) + " " + _longest(vocabulary.kinds.values()),
            "side": _longest(vocabulary.sides.values()),
            "other_side": _longest(vocabulary.sides.values()),
            "rotation": _longest(vocabulary.rotations.values()),
            "obstacle": _longest([vocabulary.obstacles]),
        }
        for templates in vocabulary.templates.values():
            for template in templates:
                assert len(symbols(template.fill(longest))) <= MAX_LENGTH - 16
    rng = np.random.default_rng(0)
    goal = Goal(Mode.GO, Target(Kind.PLANT_POT, Colour.ORANGE), Side.LEFT)
    for language in LANGUAGES:
        for split in SPLITS:
            for _ in range(200):
                assert UNKNOWN not in encode(grammar.phrase(goal, rng, language, split, 1.0))


def _longest(groups: object) -> str:
    return max((word for words in groups for word in words), key=lambda word: len(symbols(word)))  # type: ignore[attr-defined]
