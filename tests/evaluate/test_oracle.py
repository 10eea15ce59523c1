import numpy as np

from mobile_vla.core import ZERO_TWIST, Frame, Instruction, Observation, Status
from mobile_vla.evaluate import OraclePolicy
from mobile_vla.sim.scenarios import draw_scene
from mobile_vla.sim.scene import Pose
from mobile_vla.sim.world import World


def test_a_step_leaves_the_state_it_was_given(rollers: World) -> None:
    scene = draw_scene("hidden", 3).scene
    rollers.load(scene)
    policy = OraclePolicy(rollers, scene.goals[0])
    state = policy.reset(Instruction("anything"))
    observation = Observation(Frame(np.zeros((4, 8, 3), np.uint8), 0, "simulation", "front", 0), ZERO_TWIST)
    first = policy.step(observation, state)
    assert first.grounding.status is Status.SEARCHING
    item = scene.objects[state.target or 0]
    rollers.set_pose(Pose(item.pose.x - 0.9, item.pose.y, 0.0))
    policy.step(observation, first.state)  # it may see the target from there
    rollers.set_pose(scene.start)
    again = policy.step(observation, state)
    np.testing.assert_array_equal(again.chunk.velocities, first.chunk.velocities)
    assert again.grounding == first.grounding
