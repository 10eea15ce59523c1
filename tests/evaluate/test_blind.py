from collections import Counter
from typing import Any

import numpy as np

from mobile_vla.core import Instruction
from mobile_vla.evaluate import BlindPolicy, plan_episodes
from mobile_vla.evaluate.blind import drawn_goal
from mobile_vla.language import Grammar, parse
from mobile_vla.sim.scenarios import draw_scene

from .test_episode import SteadyPolicy


class EchoPolicy(SteadyPolicy):
    """Its state is what it was told."""

    def reset(self, instruction: Instruction) -> Any:
        return instruction.text


def test_it_is_told_of_an_object_of_the_scene_and_nothing_else_changes(grammar: Grammar) -> None:
    for suite in ("routes", "distractors", "absent", "manoeuvres"):
        for episode in plan_episodes(suite, 6, grammar):
            scene = draw_scene(episode.scenario, episode.seed).scene
            policy = BlindPolicy(EchoPolicy(0, 0, 0), scene, episode, grammar)
            told = policy.reset(Instruction(episode.words))
            goal = parse(told, grammar)
            assert (goal.mode, goal.side) == (episode.goal.mode, episode.goal.side)
            assert goal.target is None or len(scene.matching(goal.target)) == 1
            assert policy.reset(Instruction("entirely other words")) == told


def test_every_object_has_the_same_chance() -> None:
    scene = draw_scene("distractors", 4).scene
    rng = np.random.default_rng(0)
    draws = Counter(drawn_goal(scene, scene.goals[0], rng).target for _ in range(600))
    assert len(draws) == len(scene.objects)
    assert min(draws.values()) > 0.6 * 600 / len(scene.objects)
