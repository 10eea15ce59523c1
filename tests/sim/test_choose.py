import pytest

from mobile_vla.core import Colour, ConfigError, Goal, Kind, Mode, Side, Target
from mobile_vla.sim.choose import named_scene, scene_for

CUP = Target(Kind.CUP, Colour.RED)


@pytest.mark.parametrize(
    "goal",
    [
        Goal(Mode.GO, CUP),
        Goal(Mode.GO, CUP, Side.LEFT),
        Goal(Mode.GO, CUP, Side.RIGHT),
        Goal(Mode.GO, Target(Kind.PLANT_POT)),
        Goal(Mode.GO, Target(Kind.CHAIR), Side.LEFT),
        *(Goal(mode) for mode in Mode if mode is not Mode.GO),
    ],
)
def test_the_scene_asks_for_the_goal_and_is_the_same_every_time(goal):
    scene = scene_for(goal, 1)
    assert goal in scene.goals
    assert scene == scene_for(goal, 1)
    assert bool(scene.obstacles) == (goal.side is not None)


def test_another_seed_gives_another_scene():
    assert scene_for(Goal(Mode.GO, CUP), 1) != scene_for(Goal(Mode.GO, CUP), 500)


def test_a_wrong_name_is_corrected():
    assert named_scene("hidden", 3).scenario == "hidden"
    with pytest.raises(ConfigError, match="did you mean hidden"):
        named_scene("hiden", 3)
    with pytest.raises(ConfigError, match="choose one of 1box_vertical_left_close"):
        named_scene("?", 3)
