"""Which episodes: scenes that were never trained on, balanced over scenarios, told in English and Korean in turn."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Final

import numpy as np

from mobile_vla.core import ConfigError, Goal, Side
from mobile_vla.language import LANGUAGES, SPLITS, Grammar, Language, Split
from mobile_vla.sim.scenarios import MANOEUVRES, ROUTES, SCENARIOS, draw_scene

FIRST_TRAINED_SEED: Final = 1_000_000
"""Scene seeds below this are held out: training draws its scenes from here upwards (``train.run.SURVEY_SEED``)."""

_ROUTES_STRIDE = 7
"""Prime to the 24 routes: any few of them in a row hold all boxes, layouts, sides and distances about equally often."""

GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "routes": tuple(ROUTES[place * _ROUTES_STRIDE % len(ROUTES)] for place in range(len(ROUTES))),
    "distractors": ("distractors",),
    "hidden": ("hidden",),
    "absent": ("absent",),
    "manoeuvres": MANOEUVRES,
}
"""The scenarios of each suite, in the order in which they take turns."""

PAIRED = ("sides", "objects")
"""Suites of scenes driven twice, under words that differ in one thing; see ``counterfactual``."""

SUITES: Final = ("all", *GROUPS, "words", *PAIRED)
"""What can be asked for. "all" is every group; "words" is each scene in both languages, in phrasings taught and not."""

_OTHER_SCENE = 10_007
"""From the seed of a scene that does not serve to the next that is tried."""

_OTHER_SIDE = {Side.LEFT: Side.RIGHT, Side.RIGHT: Side.LEFT}


@dataclass(frozen=True, slots=True)
class PlannedEpisode:
    """One episode to drive: a scene (by scenario and seed), one of its goals, and the words that say it.

    ``phrasing``: whether the words come from phrasings that training uses ("train") or never does ("held_out").
    """

    suite: str
    scenario: str
    seed: int
    goal: Goal
    words: str
    language: Language
    phrasing: Split

    @property
    def group(self) -> str:
        """The key in ``GROUPS`` under which the scenario stands."""
        return next(name for name, scenarios in GROUPS.items() if self.scenario in scenarios)


def plan_episodes(
    suite: str, count: int, grammar: Grammar, first_seed: int = 0, phrasing: Split = "held_out"
) -> list[PlannedEpisode]:
    """The same ``count`` scenes of a suite every time (``count`` of each group for "all").

    A scene is one episode; in "words" it is four, in "sides" and "objects" two that follow one another. ``phrasing``
    does not matter to "words". ConfigError for an unknown suite, and for seeds that reach into those of training.
    """
    if suite not in SUITES:
        raise ConfigError(f"unknown suite {suite!r}: choose among {', '.join(SUITES)}")
    if suite == "all":
        parts = [plan_episodes(group, count, grammar, first_seed, phrasing) for group in GROUPS]
        return [episode for part in parts for episode in part]
    if count < 1:
        raise ConfigError(f"a suite of {count} scenes: ask for at least 1")
    if not 0 <= first_seed <= FIRST_TRAINED_SEED - count:
        raise ConfigError(
            f"seeds {first_seed} to {first_seed + count - 1}: those of evaluation lie in 0..{FIRST_TRAINED_SEED - 1}, "
            "the others were trained on; choose a smaller first seed"
        )
    scenarios = _SCENARIOS.get(suite) or GROUPS[suite]
    episodes: list[PlannedEpisode] = []
    for place in range(count):
        round_, turn = divmod(place, len(scenarios))
        language = LANGUAGES[(round_ + turn) % len(LANGUAGES)]  # round after round they swap: each scenario gets both
        scene = _Place(suite, scenarios[turn], first_seed + place, language, phrasing, grammar)
        episodes += _MAKERS.get(suite, _one)(scene)
    return episodes


def plan_suites(
    suites: Iterable[str], count: int, grammar: Grammar, first_seed: int = 0, phrasing: Split = "held_out"
) -> list[PlannedEpisode]:
    """``plan_episodes`` of each suite, without repetition."""
    planned: dict[PlannedEpisode, None] = {}
    for suite in suites:
        planned |= dict.fromkeys(plan_episodes(suite, count, grammar, first_seed, phrasing))
    return list(planned)


@dataclass(frozen=True)
class _Place:
    """A scene in a suite, and how it is to be told."""

    suite: str
    scenario: str
    seed: int
    language: Language
    phrasing: Split
    grammar: Grammar

    def rng(self, purpose: int) -> np.random.Generator:
        return np.random.default_rng([purpose, SCENARIOS.index(self.scenario), self.seed])

    def goal(self) -> Goal:
        """One of the scene's goals, drawn evenly."""
        goals = draw_scene(self.scenario, self.seed).scene.goals
        return goals[int(self.rng(17).integers(len(goals)))]

    def episode(self, goal: Goal) -> PlannedEpisode:
        """Under clean words; what is drawn of phrasing and synonyms hangs on the scene, not on target or side."""
        words = self.grammar.phrase(goal, self.rng(19), self.language, self.phrasing)
        return PlannedEpisode(self.suite, self.scenario, self.seed, goal, words, self.language, self.phrasing)


def _one(place: _Place) -> Iterator[PlannedEpisode]:
    yield place.episode(place.goal())


def _all_words(place: _Place) -> Iterator[PlannedEpisode]:
    goal = place.goal()
    for phrasing in SPLITS:
        for language in LANGUAGES:
            yield replace(place, language=language, phrasing=phrasing).episode(goal)


def _both_sides(place: _Place) -> Iterator[PlannedEpisode]:
    goal = place.goal()
    assert goal.side is not None  # every route names one
    yield place.episode(goal)
    yield place.episode(replace(goal, side=_OTHER_SIDE[goal.side]))


def _two_objects(place: _Place) -> Iterator[PlannedEpisode]:
    """Goals for two objects that are visible from the start, both said with their colour.

    A scene in which but one can be seen gives way to that of another seed, still one that was never trained on.
    """
    for seed in range(place.seed, FIRST_TRAINED_SEED, _OTHER_SCENE):
        goals = draw_scene(place.scenario, seed).scene.goals
        pairs = list(permutations([goal for goal in goals if goal.target and goal.target.colour], 2))
        if pairs:
            place = replace(place, seed=seed)
            for goal in pairs[int(place.rng(29).integers(len(pairs)))]:
                yield place.episode(goal)
            return
    raise ConfigError(f"no scene of {place.scenario} from seed {place.seed} on shows two objects: choose another seed")


_MAKERS: Final[dict[str, Callable[[_Place], Iterator[PlannedEpisode]]]] = {
    "words": _all_words,
    "sides": _both_sides,
    "objects": _two_objects,
}


def _in_turns(groups: Iterable[str]) -> tuple[str, ...]:
    """One scenario of each group after another, until the longest group is through."""
    listed = [GROUPS[group] for group in groups]
    longest = max(map(len, listed))
    return tuple(scenarios[turn % len(scenarios)] for turn in range(longest) for scenarios in listed)


_SCENARIOS: Final = {
    "words": _in_turns(GROUPS),
    "sides": GROUPS["routes"],
    "objects": _in_turns(("distractors", "routes")),
}
