import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from mobile_vla.core import Colour, Goal, InstructionError, Kind, Mode, Target
from mobile_vla.language import LANGUAGES, Grammar
from mobile_vla.policy.encoders.texts import BEGIN, END, MARKS, PAD, UNKNOWN, made_from_grammar, numbered

TOKENIZER = Tokenizer.from_str(made_from_grammar())


def test_the_marks_have_the_numbers_that_they_are_used_by() -> None:
    assert [TOKENIZER.token_to_id(mark) for mark in MARKS] == list(range(len(MARKS)))
    assert (MARKS[BEGIN], MARKS[PAD], MARKS[UNKNOWN], MARKS[END]) == ("<s>", "<pad>", "<unk>", "</s>")


def test_the_same_tokenizer_is_made_each_time() -> None:
    assert made_from_grammar.__wrapped__() == made_from_grammar()


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("split", ["train", "held_out"])
def test_no_phrase_of_the_grammar_is_unknown_or_long(language: str, split: str) -> None:
    grammar, rng = Grammar.load(), np.random.default_rng(1)
    goals = [Goal(Mode.GO, Target(kind, colour)) for kind in Kind for colour in Colour]
    for goal in goals:
        ids = TOKENIZER.encode(grammar.phrase(goal, rng, language, split)).ids
        assert UNKNOWN not in ids
        assert len(ids) <= 62


@given(st.text("abcdefghijklmnopqrstuvwxyz ", min_size=1, max_size=20).filter(str.strip))
def test_a_typo_is_spelt(text: str) -> None:
    assert UNKNOWN not in TOKENIZER.encode(text).ids
    assert TOKENIZER.decode(TOKENIZER.encode(text).ids).split() == text.split()


def test_texts_of_different_lengths_are_padded_with_zeros() -> None:
    texts = ["stop", "go to the red cup"]
    numbers, lengths = numbered(TOKENIZER, texts, 30)
    for row, text in enumerate(texts):
        ids = TOKENIZER.encode(text).ids
        assert numbers[row, : len(ids)].tolist() == ids
        assert (numbers[row, len(ids) :] == 0).all()
        assert lengths[row] == len(ids)
    assert numbers.shape == (2, int(lengths.max()))


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_no_words_are_refused(text: str) -> None:
    with pytest.raises(InstructionError, match="empty: say where to go"):
        numbered(TOKENIZER, ["stop", text], 30)


def test_too_many_words_are_refused_with_both_figures() -> None:
    count = len(TOKENIZER.encode("go to the red cup").ids)
    with pytest.raises(InstructionError, match=f"is {count} word pieces long, more than the {count - 1} "):
        numbered(TOKENIZER, ["go to the red cup"], count - 1)
