from collections import Counter

import pytest

from mobile_vla.core import ConfigError
from mobile_vla.evaluate.plan import FIRST_TRAINED_SEED, GROUPS, SUITES, plan_episodes, plan_suites
from mobile_vla.language import SPLITS, Grammar, parse
from mobile_vla.sim.scenarios import MANOEUVRES, ROUTES, SCENARIOS, SEARCHES, draw_scene
from mobile_vla.train.run import DRIVE_SEED, SURVEY_SEED


def test_training_begins_where_evaluation_ends() -> None:
    assert min(SURVEY_SEED, DRIVE_SEED) >= FIRST_TRAINED_SEED


def test_every_scenario_stands_in_one_group() -> None:
    grouped = [scenario for scenarios in GROUPS.values() for scenario in scenarios]
    assert sorted(grouped) == sorted(SCENARIOS) == sorted((*ROUTES, *SEARCHES, *MANOEUVRES))


@pytest.mark.parametrize("suite", SUITES)
def test_a_plan_is_the_same_every_time_and_held_out(suite: str, grammar: Grammar) -> None:
    episodes = plan_episodes(suite, 6, grammar)
    assert episodes == plan_episodes(suite, 6, grammar)
    assert all(0 <= episode.seed < FIRST_TRAINED_SEED for episode in episodes)


@pytest.mark.parametrize("suite", SUITES)
def test_the_words_mean_the_goal(suite: str, grammar: Grammar) -> None:
    for episode in plan_episodes(suite, 8, grammar):
        assert parse(episode.words, grammar) == episode.goal


def test_a_longer_plan_begins_with_the_shorter_one(grammar: Grammar) -> None:
    assert plan_episodes("routes", 30, grammar)[:12] == plan_episodes("routes", 12, grammar)


def test_routes_are_balanced_even_when_few(grammar: Grammar) -> None:
    names = [episode.scenario.split("_") for episode in plan_episodes("routes", 12, grammar)]
    for part, ways in enumerate((2, 2, 2, 3)):
        amounts = Counter(name[part] for name in names)
        assert len(amounts) == ways
        assert max(amounts.values()) - min(amounts.values()) <= 2


def test_each_scenario_is_told_in_both_languages(grammar: Grammar) -> None:
    for suite in GROUPS:
        told = {(e.scenario, e.language) for e in plan_episodes(suite, 2 * len(GROUPS[suite]), grammar)}
        assert len(told) == 2 * len(GROUPS[suite])


def test_words_tell_one_goal_of_one_scene_in_four_ways(grammar: Grammar) -> None:
    episodes = plan_episodes("words", 5, grammar)
    for place in range(5):
        scene = episodes[4 * place : 4 * place + 4]
        assert len({(e.scenario, e.seed, e.goal) for e in scene}) == 1
        assert {(e.phrasing, e.language) for e in scene} == {(split, lang) for split in SPLITS for lang in ("en", "ko")}
    assert {e.group for e in episodes} == set(GROUPS)


def test_sides_differ_in_the_side_alone(grammar: Grammar) -> None:
    episodes = plan_episodes("sides", 8, grammar)
    for first, second in zip(episodes[::2], episodes[1::2], strict=True):
        assert (first.scenario, first.seed, first.goal.target) == (second.scenario, second.seed, second.goal.target)
        assert {first.goal.side, second.goal.side} == {"left", "right"}
        assert first.words != second.words
        assert len(first.words.split()) == len(second.words.split())


def test_objects_differ_in_the_object_alone(grammar: Grammar) -> None:
    episodes = plan_episodes("objects", 8, grammar)
    for first, second in zip(episodes[::2], episodes[1::2], strict=True):
        assert (first.scenario, first.seed, first.goal.side) == (second.scenario, second.seed, second.goal.side)
        scene = draw_scene(first.scenario, first.seed).scene
        targets = [episode.goal.target for episode in (first, second)]
        places = [scene.matching(target) for target in targets if target]
        assert len(places[0]) == len(places[1]) == 1
        assert places[0] != places[1]


def test_suites_are_joined_without_repetition(grammar: Grammar) -> None:
    assert plan_suites(["all", "routes"], 3, grammar) == plan_episodes("all", 3, grammar)


def test_errors_tell_what_to_do(grammar: Grammar) -> None:
    with pytest.raises(ConfigError, match="choose among all, routes"):
        plan_episodes("route", 3, grammar)
    with pytest.raises(ConfigError, match="smaller first seed"):
        plan_episodes("routes", 3, grammar, first_seed=FIRST_TRAINED_SEED - 2)
    with pytest.raises(ConfigError, match="at least 1"):
        plan_episodes("routes", 0, grammar)
