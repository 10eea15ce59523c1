import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobile_vla.core import Colour, Goal, InstructionError, Kind, Mode, Side, Target
from mobile_vla.language import LANGUAGES, SPLITS, Grammar, Language, Split, parse

GRAMMAR = Grammar.load()
GOALS = [
    *(
        Goal(Mode.GO, Target(kind, colour), side)
        for kind in Kind
        for colour in (None, Colour.ORANGE)
        for side in (None, *Side)
    ),
    *(Goal(mode) for mode in Mode if mode is not Mode.GO),
]
CUP = Target(Kind.CUP)
RED_CUP = Target(Kind.CUP, Colour.RED)
RED_BOX = Target(Kind.BOX, Colour.RED)
BLUE_BOX = Target(Kind.BOX, Colour.BLUE)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("split", SPLITS)
def test_every_template_is_understood_as_the_goal_that_made_it(language: Language, split: Split) -> None:
    rng = np.random.default_rng(0)
    for goal in GOALS:
        for template in GRAMMAR.templates(goal.mode, goal.side is not None, language, split):
            said = GRAMMAR.say(goal, template, language, rng)
            assert parse(said, GRAMMAR) == goal, said


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("split", SPLITS)
def test_phrases_with_typos_are_nearly_always_understood_and_hardly_ever_misunderstood(
    language: Language, split: Split
) -> None:
    rng = np.random.default_rng(1)
    understood = misunderstood = 0
    draws = 400
    for _ in range(draws):
        goal = GOALS[rng.integers(len(GOALS))]
        try:
            read = parse(GRAMMAR.phrase(goal, rng, language, split, typo_rate=1.0), GRAMMAR)
        except InstructionError:
            continue
        understood += read == goal
        misunderstood += read != goal
    assert understood / draws >= 0.97
    assert misunderstood / draws <= 0.005


@pytest.mark.parametrize(
    ("text", "goal"),
    [
        ("stop", Goal(Mode.STOP)),
        ("STOP!!!", Goal(Mode.STOP)),
        ("stop turning", Goal(Mode.STOP)),
        ("stp", Goal(Mode.STOP)),
        ("전지", Goal(Mode.STOP)),
        ("don't move", Goal(Mode.STOP)),
        ("stop at the red cup", Goal(Mode.GO, RED_CUP)),
        ("go back", Goal(Mode.BACK)),
        ("go back to the red cup", Goal(Mode.GO, RED_CUP)),
        ("turn left", Goal(Mode.TURN_LEFT)),
        ("turn left at the box and go to the cup", Goal(Mode.GO, CUP, Side.LEFT)),
        ("go closer to the red cup", Goal(Mode.GO, RED_CUP)),
        ("go round the box on the left and stop at the red cup", Goal(Mode.GO, RED_CUP, Side.LEFT)),
        ("stop at the red box", Goal(Mode.GO, RED_BOX)),
        ("go round the red box on the left and stop at the blue box", Goal(Mode.GO, BLUE_BOX, Side.LEFT)),
        ("keep the box on your right and go to the red cup", Goal(Mode.GO, RED_CUP, Side.LEFT)),
        ("keep to the left, and go to the red box", Goal(Mode.GO, RED_BOX, Side.LEFT)),
        ("go to the red box, keeping left", Goal(Mode.GO, RED_BOX, Side.LEFT)),
        ("pass the boxes on the right-hand side, then stop by the cup", Goal(Mode.GO, CUP, Side.RIGHT)),
        ("go to the red cup right now", Goal(Mode.GO, RED_CUP)),
        ("the red-coloured cup, please", Goal(Mode.GO, RED_CUP)),
        ("go to the red cup without touching the boxes", Goal(Mode.GO, RED_CUP)),
        ("가장 왼쪽 외곽으로 돌아 컵까지 가세요", Goal(Mode.GO, CUP, Side.LEFT)),
        ("상자 왼쪽으로 돌아 빨간 컵 앞에 멈춰", Goal(Mode.GO, RED_CUP, Side.LEFT)),
        ("상자를 오른쪽에 두고 빨간 상자까지 가", Goal(Mode.GO, RED_BOX, Side.LEFT)),
        ("상자에 부딪히지 않게 컵까지 가", Goal(Mode.GO, CUP)),
        ("빨간컵까지왼쪽으로돌아가", Goal(Mode.GO, RED_CUP, Side.LEFT)),
        ("red cup으로 가", Goal(Mode.GO, RED_CUP)),
        ("왼쪽으로 돌아", Goal(Mode.TURN_LEFT)),
        ("좌회전하세요", Goal(Mode.TURN_LEFT)),
        ("멈춰주시겠어요?", Goal(Mode.STOP)),
        ("움직이지 마", Goal(Mode.STOP)),
        ("뒤로 가", Goal(Mode.BACK)),
    ],
)
def test_words_mean(text: str, goal: Goal) -> None:
    assert parse(text, GRAMMAR) == goal


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("go to the giraffe", "names 'giraffe', which I do not know; I know cup, bottle"),
        ("go to the cap", "'cap'"),
        ("go to the pink cup", "'pink'"),
        ("빨간 기린까지 가", "'기린'"),
        ("분홍색 컵으로 가", "'분홍색'"),
        ("콘센트로 가", "'콘센트'"),
        ("사자로 가", "'사자'"),
        ("hello there", "no object and no motion"),
        ("xyzzy", "do not understand 'xyzzy'"),
        ("go to the red cup and the blue ball", "2 targets, red cup and blue ball"),
        ("빨간 컵과 파란 공까지 가", "2 targets"),
        ("the red cup or the blue cup", "2 targets"),
        ("pass on the left and the right and go to the cup", "both sides"),
        ("go to the red blue cup", "two colours"),
        ("go to the red one", "colour 'red' but not of what"),
        ("go round the box on the left", "not where to go"),
        ("go past the chair and stop at the cup", "pass boxes only"),
        ("don't go to the cup", "what not to do"),
        ("don't move to the red cup", "what not to do"),
        ("don't stop", "what not to do"),
        ("멈추지 마", "what not to do"),
        ("컵으로 가지 마", "what not to do"),
        ("pick up the red cup", "'pick'"),
        ("turn around", "not to which side"),
        ("turn left and stop", "several motions"),
        ("뒤로 돌아", "several motions"),
        ("go left", 'say "turn left"'),
        ("turn to the red cup", "another motion"),
        ("   ", "empty"),
        ("go to the cup " * 20, "shorten"),
    ],
)
def test_what_the_robot_cannot_do_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(InstructionError, match=re.escape(reason)):
        parse(text, GRAMMAR)


WORDS = "go stop the to red blue cup box left right of keep not turn back , 왼쪽으로 돌아 상자 빨간 컵까지 두고 멈춰"
SENTENCES = st.lists(st.sampled_from(WORDS.split()), min_size=1, max_size=12).map(" ".join)


@settings(max_examples=100, deadline=None)
@given(st.text(min_size=1, max_size=60) | SENTENCES)
def test_any_text_is_understood_or_refused_always_alike(text: str) -> None:
    def outcome() -> Goal | str:
        try:
            return parse(text, GRAMMAR)
        except InstructionError as error:
            return str(error)

    assert outcome() == outcome()


def test_a_long_word_without_sense_is_refused_at_once() -> None:
    for word in ("가" * 150 + "힣", "더가" * 80 + "힣", "컵이" * 99 + "힣", "x" * 200):
        with pytest.raises(InstructionError):
            parse(word, GRAMMAR)
