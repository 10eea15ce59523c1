"""Closed-loop success as a training asks for it: the same few scenes every time, driven in this process."""

from collections.abc import Callable

from mobile_vla.core import Policy
from mobile_vla.evaluate.episode import run_episode
from mobile_vla.evaluate.plan import FIRST_TRAINED_SEED, plan_episodes
from mobile_vla.language import Grammar
from mobile_vla.sim.world import World


def closed_loop_judge(scenes: int) -> Callable[[Policy], float]:
    """Success, 0..1, over ``scenes`` scenes that take turns over all groups.

    They are the last of the held-out seeds, in phrasings that are taught: what is reported later is driven elsewhere.
    """
    grammar = Grammar.load()
    planned = plan_episodes("words", scenes, grammar, FIRST_TRAINED_SEED - scenes, "train")[::4]

    def judge(policy: Policy) -> float:
        world = World(base="rollers")
        try:
            results = [run_episode(each, world, lambda *_: policy, "policy") for each in planned]
        finally:
            world.close()
        return sum(result.success for result in results) / len(results)

    return judge
