"""The lower baseline: the same policy, told of an object drawn by lot.

What this is: the very policy under test, given at reset a clean instruction of the same mode, side, language and
phrasing split as the episode's, but for an object drawn evenly from those in the scene, the named one among them. The
drive is then judged by the episode's own goal. So it shows what the policy's success owes to the name: about one in the
number of objects is left where the policy obeys names, all of it where it does not listen. It is not a network that was
trained without words, and so no measure of what the scenes themselves give away; only such a one could be.

Modes without an object, and sides, are told truly: there the figure is that of the policy itself in other words, and is
no baseline. Of a target that is absent the object drawn is one that is there.
"""

from typing import Any

import numpy as np

from mobile_vla.core import ActionContract, Goal, Instruction, Mode, Observation, Policy, Step, Target
from mobile_vla.evaluate.plan import PlannedEpisode
from mobile_vla.language import Grammar
from mobile_vla.sim.scene import Scene


class BlindPolicy:
    """``inner`` under other words than it is given; see the module."""

    def __init__(self, inner: Policy, scene: Scene, planned: PlannedEpisode, grammar: Grammar) -> None:
        self._inner, self._scene, self._planned, self._grammar = inner, scene, planned, grammar

    @property
    def contract(self) -> ActionContract:
        """That of the policy inside."""
        return self._inner.contract

    def reset(self, instruction: Instruction) -> Any:
        """Draws the object, the same every time for the same episode; ``instruction`` is not read."""
        planned = self._planned
        rng = np.random.default_rng([23, planned.seed])
        goal = drawn_goal(self._scene, planned.goal, rng)
        return self._inner.reset(Instruction(self._grammar.phrase(goal, rng, planned.language, planned.phrasing)))

    def step(self, observation: Observation, state: Any) -> Step:
        """As the policy inside."""
        return self._inner.step(observation, state)


def drawn_goal(scene: Scene, goal: Goal, rng: np.random.Generator) -> Goal:
    """The goal with its object exchanged for any one in the scene, with kind and colour said."""
    if goal.mode is not Mode.GO:
        return goal
    item = scene.objects[int(rng.integers(len(scene.objects)))]
    return Goal(goal.mode, Target(item.kind, item.colour), goal.side)
