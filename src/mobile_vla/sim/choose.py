"""A scene for given words: where what they name can be reached as they say."""

import difflib

from mobile_vla.core import ConfigError, Goal, Mode
from mobile_vla.sim.scenarios import ROUTES, SCENARIOS, draw_scene
from mobile_vla.sim.scene import Scene

_MAX_SCENES = 400


def named_scene(scenario: str, seed: int) -> Scene:
    """The scene of this scenario and seed; ConfigError, with the nearest name, for an unknown scenario."""
    if scenario not in SCENARIOS:
        near = difflib.get_close_matches(scenario, SCENARIOS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(SCENARIOS)}"
        raise ConfigError(f"unknown scenario {scenario!r}; {hint}")
    return draw_scene(scenario, seed).scene


def scene_for(goal: Goal, seed: int) -> Scene:
    """The first scene from ``seed`` on that asks for this goal, the same one every time.

    Boxes stand in the way where a side is named. ConfigError when there is none among several hundred scenes.
    """
    scenarios = _scenarios_for(goal)
    for number in range(_MAX_SCENES):
        scene = draw_scene(scenarios[number % len(scenarios)], seed + number).scene
        if goal in scene.goals:
            return scene
    raise ConfigError(f"no scene among {_MAX_SCENES} from seed {seed} fits these words: give --scene or another --seed")


def _scenarios_for(goal: Goal) -> tuple[str, ...]:
    if goal.mode is not Mode.GO:
        return (goal.mode.value,)
    if goal.side is None:
        return ("distractors",)
    return tuple(name for name in ROUTES if name.split("_")[2] == goal.side.value)
