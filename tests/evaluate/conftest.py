from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from mobile_vla.core import ActionContract
from mobile_vla.evaluate import EpisodeResult, OraclePolicy, PlannedEpisode, run_episode
from mobile_vla.language import Grammar
from mobile_vla.policy.compact import CompactConfig, CompactNetwork
from mobile_vla.policy.weights import save_network
from mobile_vla.sim.scenarios import draw_scene
from mobile_vla.sim.world import World

settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def grammar() -> Grammar:
    return Grammar.load()


@pytest.fixture(scope="session")
def rollers() -> Iterator[World]:
    """One world for all drives: an episode loads its own scene."""
    world = World(base="rollers")
    yield world
    world.close()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network that has learnt nothing."""
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(1)
    network = CompactNetwork(CompactConfig(memory=32, words=16), ActionContract())
    save_network(folder, network, {"untrained": True})
    return folder


def planned(scenario: str, grammar: Grammar, seed: int = 3, goal_number: int = 0) -> PlannedEpisode:
    goal = draw_scene(scenario, seed).scene.goals[goal_number]
    words = grammar.phrase(goal, np.random.default_rng(0), "en", "train")
    return PlannedEpisode("test", scenario, seed, goal, words, "en", "train")


def drive_by_expert(episode: PlannedEpisode, world: World, name: str = "expert") -> EpisodeResult:
    return run_episode(episode, world, lambda world, episode: OraclePolicy(world, episode.goal), name)
