"""Goals and outcomes in plain words."""

from typing import TYPE_CHECKING

from mobile_vla.core import Colour, Goal, Kind, Mode, Status
from mobile_vla.runtime import Ending, Outcome

if TYPE_CHECKING:  # a robot may lack what the simulation needs
    from mobile_vla.sim.judge import Verdict

_MOTIONS = {
    Mode.STOP: ("stop", "stopped"),
    Mode.TURN_LEFT: ("turn left", "turned left"),
    Mode.TURN_RIGHT: ("turn right", "turned right"),
    Mode.CLOSER: ("come closer", "came closer"),
    Mode.BACK: ("go back", "went back"),
}


def object_name(kind: Kind, colour: Colour | None) -> str:
    """Such as "red plant pot"."""
    return f"{colour.value} {_spaced(kind)}" if colour else _spaced(kind)


def goal_in_words(goal: Goal) -> str:
    """Such as "go to the red cup, passing on the left"."""
    if goal.target is None:
        return _MOTIONS[goal.mode][0]
    side = f", passing on the {goal.side.value}" if goal.side else ""
    return f"go to the {object_name(goal.target.kind, goal.target.colour)}{side}"


def outcome_in_words(goal: Goal, outcome: Outcome, verdict: "Verdict", boxes: int) -> str:
    """One sentence: what was achieved or what went wrong, and how long it took. ``boxes`` stand in the scene."""
    time = f"{outcome.duration_s:.1f} s"
    if not verdict.success:
        return f"did not {goal_in_words(goal)}: {_shortcoming(outcome, verdict)}, {time}"
    if goal.target is None:
        return f"{_MOTIONS[goal.mode][1]}, {time}"
    name = object_name(goal.target.kind, goal.target.colour)
    if outcome.status is Status.ABSENT:
        return f"searched all round: there is no {name} here, {time}"
    route = f", passed the {'box' if boxes == 1 else 'boxes'} on the {goal.side.value}" if goal.side else ""
    return f"reached the {name}: stopped {verdict.stop_distance_m:.2f} m before it{route}, {time}"


def _shortcoming(outcome: Outcome, verdict: "Verdict") -> str:
    from mobile_vla.sim.judge import Failure

    if verdict.failure is Failure.TOUCHED:
        return f"touched {_touched(verdict.touched)}"
    if verdict.failure is Failure.NOT_ENDED and outcome.ending is not Ending.TIME_LIMIT:
        return outcome.sentence
    distance = "" if verdict.stop_distance_m is None else f" ({verdict.stop_distance_m:.2f} m from it)"
    return f"{verdict.failure.value}{distance}"


def _touched(name: str | None) -> str:
    """Obstacles have numbers, not names."""
    return "a box" if name is None or name.startswith("obstacle") else f"the {name}"


def _spaced(kind: Kind) -> str:
    return kind.value.replace("_", " ")
