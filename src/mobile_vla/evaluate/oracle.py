"""The expert behind the ``Policy`` protocol: what is possible in these scenes, as the upper baseline beside ours."""

from copy import copy
from typing import Any

from mobile_vla.core import ActionChunk, ActionContract, Goal, Grounding, Instruction, Observation, Step
from mobile_vla.policy.preprocess import HEIGHT, WIDTH
from mobile_vla.sim.expert import Expert
from mobile_vla.sim.world import World

_UNKNOWN_BOX = (0.0, 0.0, 0.0, 0.0)


class OraclePolicy:
    """Asks the expert, who reads the true state of ``world`` and is told the goal; pixels and words are not looked at.

    Its state is the expert's memory, copied at each step. It stands at one world as that is now, so frames must be of
    now.
    """

    def __init__(self, world: World, goal: Goal, contract: ActionContract | None = None) -> None:
        self._world, self._goal = world, goal
        self.contract = contract or ActionContract()

    def reset(self, instruction: Instruction) -> Expert:
        """An expert for the scene that the world has loaded; the words are not read."""
        return Expert(self._world.scene, self._goal, self.contract)

    def step(self, observation: Observation, state: Any) -> Step:
        """The expert's chunk from the world's pose of now, and the truth as grounding."""
        expert: Expert = copy(state)
        pose = self._world.pose
        target = None if expert.target is None else self._world.visibility(HEIGHT, WIDTH)[expert.target]
        expert.observe(pose, target.visible_fraction if target else 0.0)
        advice = expert.advise(pose)
        grounding = Grounding(
            visibility=target.visible_fraction if target else 0.0,
            bearing_rad=target.bearing_rad if target else 0.0,
            distance_m=target.distance_m if target else 0.0,
            box=target.box if target else _UNKNOWN_BOX,
            status=advice.status,
        )
        return Step(
            ActionChunk(advice.velocities, observation.frame.capture_ns, self.contract.rate_hz), grounding, expert
        )
