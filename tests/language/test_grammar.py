import copy
import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mobile_vla.core import Colour, ConfigError, Goal, Kind, Mode, Side, Target
from mobile_vla.language import LANGUAGES, SPLITS, Grammar, Language, Split
from mobile_vla.language.hangul import particle
from mobile_vla.language.vocabulary import SHIPPED, Template

GRAMMAR = Grammar.load()
RAW = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
MODES = [(Mode.GO, False), (Mode.GO, True), *((mode, False) for mode in Mode if mode is not Mode.GO)]
CUP_LEFT = Goal(Mode.GO, Target(Kind.CUP, Colour.RED), Side.LEFT)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(("mode", "with_side"), MODES)
def test_every_mode_has_many_phrasings_and_keeps_some_for_testing(
    mode: Mode, with_side: bool, language: Language
) -> None:
    train = GRAMMAR.phrasings(mode, with_side, language, "train")
    held_out = GRAMMAR.phrasings(mode, with_side, language, "held_out")
    assert len(train) + len(held_out) >= (25 if with_side else 20 if mode is Mode.GO else 8)
    assert 0.10 <= len(held_out) / (len(train) + len(held_out)) <= 0.25
    assert len(held_out) >= 3
    assert not set(train) & set(held_out)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_kind_colour_and_side_has_a_name(language: Language) -> None:
    vocabulary = GRAMMAR.vocabularies[language]
    assert set(vocabulary.kinds) == set(Kind)
    assert set(vocabulary.colours) == set(Colour)
    assert set(vocabulary.sides) == set(vocabulary.rotations) == set(Side)


def test_a_phrase_says_the_side_and_the_target() -> None:
    rng = np.random.default_rng(0)
    vocabulary = GRAMMAR.vocabularies["en"]
    for _ in range(200):
        said = GRAMMAR.phrase(CUP_LEFT, rng, "en", "train")
        assert re.search(r"\b(red|scarlet) (cup|mug)\b", said)
        inverted = re.search(r"\b(with|keep|keeping|leave) the \w+ on your right\b", said)
        assert ("left" in said) != bool(inverted), said
        assert not any(
            re.search(rf"\b{word}\b", said)
            for c, words in vocabulary.colours.items()
            if c is not Colour.RED
            for word in words
        )


def test_the_same_generator_says_the_same() -> None:
    phrases = [
        [GRAMMAR.phrase(CUP_LEFT, rng, "ko", "held_out", 0.5) for _ in range(20)]
        for rng in (np.random.default_rng(7), np.random.default_rng(7))
    ]
    assert phrases[0] == phrases[1]
    assert len(set(phrases[0])) > 10


@pytest.mark.parametrize(
    ("before", "forms", "expected"),
    [
        ("컵", ("을", "를"), "을"),
        ("상자", ("을", "를"), "를"),
        ("의자", ("이", "가"), "가"),
        ("화분", ("이", "가"), "이"),
        ("왼쪽", ("으로", "로"), "으로"),
        ("원뿔", ("으로", "로"), "로"),
        ("원뿔", ("을", "를"), "을"),
        ("바구니", ("으로", "로"), "로"),
        ("공", ("이야", "야"), "이야"),
        ("", ("은", "는"), "는"),
    ],
)
def test_korean_particles_follow_the_last_sound(before: str, forms: tuple[str, str], expected: str) -> None:
    assert particle(before, *forms) == expected


def test_a_template_fills_its_slots_and_particles() -> None:
    template = Template.of("{obstacle}{을/를} {side}{으로/로} 돌아 {target}까지 가")
    words = {"obstacle": "상자", "side": "왼쪽", "target": "빨간 컵"}
    assert template.fill(words) == "상자를 왼쪽으로 돌아 빨간 컵까지 가"


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.sampled_from(Colour), st.sampled_from(Side), st.sampled_from(LANGUAGES),
    st.sampled_from(SPLITS),
)  # fmt: skip
def test_a_slip_never_makes_another_colour_or_the_other_side(
    seed: int, colour: Colour, side: Side, language: Language, split: Split
) -> None:
    vocabulary = GRAMMAR.vocabularies[language]
    goal = Goal(Mode.GO, Target(Kind.BALL, colour), side)
    for draw in range(5):
        rng = np.random.default_rng((seed, draw))
        said = GRAMMAR.phrase(goal, rng, language, split, typo_rate=1.0).lower()
        others = [word for c, words in vocabulary.colours.items() if c is not colour for word in words]
        if language == "en":
            assert not {*others} & set(re.findall(r"\w+", said))
            assert len({"left", "right"} & set(re.findall(r"\w+", said))) <= 1
        else:
            assert not any(word in said for word in others)
            assert not (any(word in said for word in vocabulary.sides[Side.LEFT]) and any(
                word in said for word in vocabulary.sides[Side.RIGHT]))  # fmt: skip


def test_no_typos_unless_asked_for_and_typos_when_asked() -> None:
    clean = {GRAMMAR.phrase(Goal(Mode.STOP), np.random.default_rng(i), "en", "train") for i in range(200)}
    slipped = {GRAMMAR.phrase(Goal(Mode.STOP), np.random.default_rng(i), "en", "train", 1.0) for i in range(200)}
    assert clean == set(GRAMMAR.phrasings(Mode.STOP, False, "en", "train"))
    assert len(slipped - clean) > 50


def test_the_split_hash_changes_with_the_split(tmp_path: Path) -> None:
    raw = copy.deepcopy(RAW)
    stop = raw["en"]["templates"]["stop"]
    stop["train"].append(stop["held_out"].pop())
    assert _load(raw, tmp_path).split_hash != GRAMMAR.split_hash
    assert Grammar.load(SHIPPED).split_hash == GRAMMAR.split_hash


def test_a_bad_file_is_refused_with_the_entry_named(tmp_path: Path) -> None:
    def changed(*keys: str, value: object) -> object:
        raw = copy.deepcopy(RAW)
        table = raw
        for key in keys[:-1]:
            table = table[key]
        table[keys[-1]] = value
        return raw

    cases = [
        (changed("en", "kinds", "cupp", value=["cup"]), "unknown key 'cupp'; did you mean 'cup'"),
        (changed("en", "kinds", "cup", value=[]), "must be a list"),
        (changed("ko", "kinds", "ball", value=["컵"]), "names both cup and ball"),
        (changed("en", "colours", "red", value=[True]), "put it in quotes"),
        (changed("en", "templates", "stop", "train", value=["stop", "stop"]), "twice"),
        (changed("en", "templates", "stop", "train", value=["stand still"]), "in train and in held_out"),
        (changed("en", "templates", "go", "train", value=["go to the {targt}"]), "did you mean 'target'"),
        (changed("en", "templates", "go", "train", value=["go there"]), "needs exactly one {target}"),
        (changed("en", "templates", "go_side", "train", value=["go to the {target}"]), "{side} or {other_side}"),
        (changed("ko", "templates", "go", "train", value=["{target}{을/를/은} 가"]), "two forms"),
        (changed("en", "cues_come", value="sideways"), "before or after"),
        (changed("en", "templates", value=["stop"]), "must be a table"),
        ({"en": {}}, "ko missing"),
    ]
    for raw, message in cases:
        with pytest.raises(ConfigError, match=re.escape(message)):
            _load(raw, tmp_path)
    with pytest.raises(ConfigError, match="cannot be read"):
        Grammar.load(tmp_path / "none.yaml")


def _load(raw: object, folder: Path) -> Grammar:
    path = folder / "grammar.yaml"
    path.write_text(json.dumps(raw), encoding="utf-8")  # JSON is YAML
    return Grammar.load(path)
