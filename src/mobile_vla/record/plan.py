"""What is to be recorded: scenarios at distances, each so many times, and how far the data set has come with it."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml

from mobile_vla.core import ConfigError, Goal, Instruction, InstructionError, Kind, Mode, Side, Target
from mobile_vla.data import EpisodeRecord, schema
from mobile_vla.data.store import Extras
from mobile_vla.language import LANGUAGES, Grammar, Language, parse
from mobile_vla.robot.registry import nearest, read_settings

DISTANCES = ("close", "medium", "far")
SCENARIOS = tuple(
    f"{boxes}_{layout}_{side}"
    for boxes, layout, side in product(("1box", "2box"), ("vertical", "horizontal"), ("left", "right"))
)
"""The eight scenarios of the simulator, by the same names."""

COUNT = 10
TRAIN: Final = "train"
OWN: Final = "own"
"""Where the words come from, noted beside an episode: the grammar that the robot is taught, or the plan."""


@dataclass(frozen=True, slots=True)
class Words:
    """One way to say what the robot is to do. ``goal`` is None for words that the grammar does not know."""

    text: str
    language: Language
    goal: Goal | None
    phrasing: str


@dataclass(frozen=True, slots=True)
class Cell:
    """One scenario at one distance, to be recorded ``count`` times; the words are taken in turn."""

    scenario: str
    distance: str
    count: int
    words: tuple[Words, ...]

    @property
    def name(self) -> str:
        """As the data set notes it, e.g. "1box_vertical_left_close"."""
        return f"{self.scenario}_{self.distance}"

    def words_for(self, number: int) -> Words:
        """The words of its episode ``number``, from 0."""
        return self.words[number % len(self.words)]

    def extras(self, words: Words) -> Extras:
        """What is noted beside an episode, under the names that the simulator's episodes have."""
        goal = words.goal
        target = goal.target if goal else None
        return {
            schema.EXTRA_SCENARIO: self.name,
            schema.EXTRA_LANGUAGE: words.language,
            schema.EXTRA_PHRASING: words.phrasing,
            schema.EXTRA_GOAL_MODE: goal.mode.value if goal else None,
            schema.EXTRA_GOAL_KIND: target.kind.value if target else None,
            schema.EXTRA_GOAL_COLOUR: target.colour.value if target and target.colour else None,
            schema.EXTRA_GOAL_SIDE: goal.side.value if goal and goal.side else None,
        }


@dataclass(frozen=True)
class Plan:
    """The cells in the order in which they are to be recorded; their names differ."""

    cells: tuple[Cell, ...]

    def __post_init__(self) -> None:
        if not self.cells:
            raise ConfigError("the plan names nothing to record: add a scenario")
        for name, count in Counter(cell.name for cell in self.cells).items():
            if count > 1:
                raise ConfigError(f"the plan has two cells called {name}: give their scenarios other names")

    def progress(self, records: Iterable[EpisodeRecord]) -> "Progress":
        """How often each cell stands in a data set, which is all that is kept of the progress."""
        return Progress(self, Counter(str(record.extras.get(schema.EXTRA_SCENARIO)) for record in records))


@dataclass(frozen=True)
class Progress:
    """``counts``: episodes by the name of their cell; those of other plans are not counted."""

    plan: Plan
    counts: Counter[str]

    @property
    def done(self) -> int:
        """Episodes that were wanted and are there."""
        return sum(min(self.counts[cell.name], cell.count) for cell in self.plan.cells)

    @property
    def wanted(self) -> int:
        """Episodes of the whole plan."""
        return sum(cell.count for cell in self.plan.cells)

    def next(self, after: Cell | None = None) -> Cell | None:
        """The first cell, in the order of the plan, that lacks episodes; None when the plan is done.

        With ``after`` the search begins behind that cell and comes back to it last.
        """
        cells = self.plan.cells
        start = 0 if after is None else cells.index(after) + 1
        order = (*cells[start:], *cells[:start])
        return next((cell for cell in order if self.counts[cell.name] < cell.count), None)

    def table(self) -> dict[str, dict[str, str]]:
        """For people: "have/wanted" by scenario and distance."""
        rows: dict[str, dict[str, str]] = {}
        for cell in self.plan.cells:
            rows.setdefault(cell.scenario, {})[cell.distance] = f"{self.counts[cell.name]}/{cell.count}"
        return rows


def default_plan(count: int = COUNT, kind: Kind = Kind.CUP, languages: Sequence[Language] = LANGUAGES) -> Plan:
    """The simulator's eight scenarios at its three distances, in words of its grammar, half English and half Korean."""
    grammar = Grammar.load()
    cells = []
    for place, (scenario, distance) in enumerate(product(SCENARIOS, DISTANCES)):
        goal = Goal(Mode.GO, Target(kind), Side(scenario.rpartition("_")[2]))
        rng = np.random.default_rng([place])
        words = tuple(
            Words(grammar.phrase(goal, rng, language, TRAIN), language, goal, TRAIN)
            for _ in range(max(count, 1))
            for language in languages
        )
        cells.append(Cell(scenario, distance, count, words))
    return Plan(tuple(cells))


@dataclass(frozen=True)
class _ScenarioEntry:
    en: str | tuple[str, ...] = ()
    ko: str | tuple[str, ...] = ()
    count: int | None = None
    distances: tuple[str, ...] | None = None


@dataclass(frozen=True)
class _PlanFile:
    scenarios: dict[str, Any]
    count: int = COUNT
    distances: tuple[str, ...] = DISTANCES


def read_plan(path: Path) -> Plan:
    """A plan of one's own.

        count: 10                       # of each scenario at each distance
        distances: [close, medium, far]
        scenarios:
          kitchen_left:
            en: pass the chair on the left to the plant pot
            ko: [의자 왼쪽으로 지나 화분까지 가세요, 화분까지 의자 왼쪽으로 가 주세요]
            count: 5                    # count and distances may differ from scenario to scenario

    Words that the grammar does not know are taken as they are. ConfigError names what is wrong and where.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read the plan {path}: {error}") from error
    file = read_settings(_PlanFile, values, f"the plan {path}")
    grammar = Grammar.load()
    cells: list[Cell] = []
    for name, entry_values in file.scenarios.items():
        where = f"the scenario {name} of {path}"
        entry = read_settings(_ScenarioEntry, entry_values, where)
        words = tuple(
            _read_words(text, language, grammar, where)
            for language, texts in (("en", entry.en), ("ko", entry.ko))
            for text in ([texts] if isinstance(texts, str) else texts)
        )
        if not words:
            raise ConfigError(f"{where} says nothing to the robot: give it words under en or ko")
        count = file.count if entry.count is None else entry.count
        if count < 1:
            raise ConfigError(f"{where} is wanted {count} times: give at least 1")
        cells += [Cell(str(name), distance, count, _in_turn(words)) for distance in entry.distances or file.distances]
    return Plan(tuple(cells))


def one_of(plan: Plan, name: str) -> Cell:
    """The cell called ``name``; ConfigError that suggests the nearest."""
    for cell in plan.cells:
        if cell.name == name:
            return cell
    raise ConfigError(f"the plan has no {name}{nearest(name, [cell.name for cell in plan.cells])}")


def _read_words(text: str, language: str, grammar: Grammar, where: str) -> Words:
    try:
        Instruction(text)
    except InstructionError as error:
        raise ConfigError(f"{where}: {error}") from error
    try:
        goal: Goal | None = parse(text, grammar)
    except InstructionError:
        goal = None
    return Words(text, "ko" if language == "ko" else "en", goal, OWN)


def _in_turn(words: tuple[Words, ...]) -> tuple[Words, ...]:
    """Languages by turns, so that half of the episodes are in each where there are two."""
    english = [each for each in words if each.language == "en"]
    korean = [each for each in words if each.language == "ko"]
    if not english or not korean:
        return words
    length = max(len(english), len(korean))
    return tuple(part[k % len(part)] for k in range(length) for part in (english, korean))
