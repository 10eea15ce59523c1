"""What the doctor says: one check with its state, what was found, and the lines that repair it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mobile_vla.core.backports import StrEnum


class State(StrEnum):
    """Of a check, best first. NOT_NEEDED: absent or unfit, and the drive that was asked about does without it."""

    OK = "ok"
    NOT_NEEDED = "not needed"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: a sentence, and shell lines that repair it, to be run in this order."""

    state: State
    sentence: str
    repairs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Check:
    """One row of the table; ``found`` is for people, ``repairs`` are shell lines."""

    name: str
    state: State
    found: str
    repairs: tuple[str, ...] = ()


def checked(name: str, facts: str, problems: Sequence[Problem] = ()) -> Check:
    """A row from facts and problems: as bad as the worst problem, OK without one; problems are said first."""
    state = max((problem.state for problem in problems), key=list(State).index, default=State.OK)
    sentences = [problem.sentence for problem in problems]
    repairs = [line for problem in problems for line in problem.repairs]
    return Check(name, state, "; ".join(filter(None, [*sentences, facts])), tuple(dict.fromkeys(repairs)))


def lines_in(sentence: str) -> tuple[str, ...]:
    """The shell lines in backquotes that an error of ours names as its remedy."""
    return tuple(re.findall(r"`((?:sudo |fuser )[^`]+)`", sentence))


def serious(needed: bool) -> State:
    """FAIL for what the drive needs, NOT_NEEDED for what it does without."""
    return State.FAIL if needed else State.NOT_NEEDED


def driving_fails(checks: Sequence[Check]) -> bool:
    """Whether the drive that was asked about would fail."""
    return any(check.state is State.FAIL for check in checks)
