import pytest

from mobile_vla.core import Colour, Goal, Instruction, Kind, Mode, Side, Status, Target
from mobile_vla.monitor.words import goal_in_words, outcome_in_words
from mobile_vla.runtime import Ending, Outcome
from mobile_vla.safety import Reason
from mobile_vla.sim.judge import Failure, Verdict
from mobile_vla.sim.scene import Pose

POT = Target(Kind.PLANT_POT, Colour.RED)
GO_LEFT = Goal(Mode.GO, POT, Side.LEFT)


def said(goal, failure=Failure.NONE, status=Status.ARRIVED, ending=Ending.FINISHED, touched=None, away=0.37, boxes=1):
    outcome = Outcome(ending, status, Reason.CAMERA_FAILED, "camera gone", Instruction("x"), 11.24, 1, 1, True, None)
    verdict = Verdict(failure, touched, None, None, away, None, 3.0, 11.24, Pose(0, 0, 0))
    return outcome_in_words(goal, outcome, verdict, boxes)


@pytest.mark.parametrize("mode", [mode for mode in Mode if mode is not Mode.GO])
def test_every_motion_has_words(mode):
    assert goal_in_words(Goal(mode))
    assert said(Goal(mode)).endswith(", 11.2 s")


def test_goals():
    assert goal_in_words(GO_LEFT) == "go to the red plant pot, passing on the left"
    assert goal_in_words(Goal(Mode.GO, Target(Kind.CUP))) == "go to the cup"


def test_success():
    sentence = "reached the red plant pot: stopped 0.37 m before it, passed the box on the left, 11.2 s"
    assert said(GO_LEFT) == sentence
    assert said(GO_LEFT, boxes=2) == sentence.replace("box", "boxes")
    assert (
        said(Goal(Mode.GO, POT), status=Status.ABSENT) == "searched all round: there is no red plant pot here, 11.2 s"
    )


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"failure": Failure.TOUCHED, "touched": "wall"}, "touched the wall"),
        ({"failure": Failure.NOT_ENDED, "ending": Ending.TIME_LIMIT}, "did not end in time (0.37 m from it)"),
        ({"failure": Failure.NOT_ENDED, "ending": Ending.CAMERA_FAILED}, "camera gone"),
        ({"failure": Failure.WRONG_SIDE}, "passed on the wrong side (0.37 m from it)"),
        ({"failure": Failure.MISSED_ABSENCE, "away": None}, "claimed a target that is not here"),
    ],
)
def test_failure(arguments, why):
    assert said(GO_LEFT, **arguments) == f"did not go to the red plant pot, passing on the left: {why}, 11.2 s"
