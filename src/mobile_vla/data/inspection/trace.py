"""What is kept of each episode until the whole data set has been seen: some kilobytes, however long it is."""

from dataclasses import dataclass
from functools import lru_cache

from mobile_vla.core import ActionContract, Colour, Goal, InstructionError, Mode
from mobile_vla.data.inspection.motion import Motion, motion_of
from mobile_vla.data.inspection.pictures import Pictures
from mobile_vla.data.numbers import is_survey
from mobile_vla.data.reader import Episode
from mobile_vla.data.schema import EXTRA_DRIVER, EXTRA_LANGUAGE
from mobile_vla.data.store import EpisodeRecord
from mobile_vla.language import Grammar, parse
from mobile_vla.language.lexer import language_of


@dataclass(frozen=True, slots=True)
class Reading:
    """What the rules understand: a goal, or the sentence with which they refuse."""

    goal: Goal | None
    refusal: str | None

    @property
    def colour(self) -> Colour | None:
        """Of the target, where the words name one."""
        return None if self.goal is None or self.goal.target is None else self.goal.target.colour


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """Of an episode's numbers and words."""

    record: EpisodeRecord
    reading: Reading
    survey: bool
    motion: Motion

    @property
    def index(self) -> int:
        """The number of the episode."""
        return self.record.episode_index

    @property
    def mode(self) -> str | None:
        """Of the goal, as the words say."""
        goal = self.reading.goal
        return None if goal is None else str(goal.mode)

    @property
    def side(self) -> str | None:
        """On which the words want the boxes passed."""
        goal = self.reading.goal
        return None if goal is None or goal.side is None else str(goal.side)

    @property
    def turn(self) -> int:
        """+1 for words that ask for a turn to the left, -1 to the right, 0 for others."""
        return {str(Mode.TURN_LEFT): 1, str(Mode.TURN_RIGHT): -1}.get(self.mode or "", 0)

    @property
    def language(self) -> str:
        """As noted beside the episode, else as the letters say."""
        return str(self.record.extras.get(EXTRA_LANGUAGE) or language_of(self.record.instruction))

    @property
    def driver(self) -> str:
        """Who drove; "unknown" where nobody noted it."""
        return str(self.record.extras.get(EXTRA_DRIVER) or "unknown")


@dataclass(frozen=True, slots=True, eq=False)
class Seen(Trace):
    """Of its pictures too."""

    pictures: Pictures


def trace_of(episode: Episode, contract: ActionContract, zero_share: float) -> Trace:
    """From the numbers and words alone. DatasetError for a damaged file."""
    record = episode.record
    return Trace(record, read(record.instruction), is_survey(record), motion_of(episode, contract, zero_share))


@lru_cache(maxsize=1)
def _grammar() -> Grammar:
    return Grammar.load()


@lru_cache(maxsize=4096)
def read(instruction: str) -> Reading:
    """What the rules make of the words."""
    try:
        return Reading(parse(instruction, _grammar()), None)
    except InstructionError as error:
        return Reading(None, str(error))
