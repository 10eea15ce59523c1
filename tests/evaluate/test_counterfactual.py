import pytest

from mobile_vla.core import Goal, Instruction
from mobile_vla.evaluate import EpisodeResult, ObjectResponse, OraclePolicy, SideResponse, plan_episodes, run_episode
from mobile_vla.evaluate.counterfactual import pairs_of
from mobile_vla.language import Grammar
from mobile_vla.sim.expert import Expert
from mobile_vla.sim.world import World

from .conftest import drive_by_expert

SCENES = 2


class DeafPolicy(OraclePolicy):
    """Drives for the first goal of the scene, whatever it is told."""

    def reset(self, instruction: Instruction) -> Expert:
        goal: Goal = self._world.scene.goals[0]
        return Expert(self._world.scene, goal, self.contract)


def deaf(suite: str, grammar: Grammar, world: World) -> list[EpisodeResult]:
    planned = plan_episodes(suite, 1, grammar)
    return [run_episode(p, world, lambda world, p: DeafPolicy(world, p.goal), "deaf") for p in planned]


def expert(suite: str, grammar: Grammar, world: World) -> list[EpisodeResult]:
    return [drive_by_expert(episode, world) for episode in plan_episodes(suite, SCENES, grammar)]


def test_the_expert_goes_where_the_words_say(grammar: Grammar, rollers: World) -> None:
    response = SideResponse.of(expert("sides", grammar, rollers))
    assert response.both_obeyed.count == response.both_obeyed.total == SCENES
    assert response.changed.count == SCENES
    assert response.undecided.count == 0
    assert response.lateral_ordered.count == response.yaw_ordered.count == SCENES
    assert response.lateral_m.p10 > 0.05


def test_a_deaf_driver_passes_on_one_side(grammar: Grammar, rollers: World) -> None:
    response = SideResponse.of(deaf("sides", grammar, rollers))
    assert (response.both_obeyed.count, response.both_obeyed.total) == (0, 1)
    assert response.changed.count == response.lateral_ordered.count == response.yaw_opposed.count == 0
    assert response.lateral_m.mean == response.yaw_rad.mean == 0.0


def test_the_expert_ends_at_the_object_named(grammar: Grammar, rollers: World) -> None:
    response = ObjectResponse.of(expert("objects", grammar, rollers))
    assert response.both_right.count == response.changed.count == SCENES
    assert sum(share.total for share in response.both_right_by_exchange.values()) == SCENES
    assert response.chance_both_right is not None
    assert 1 / 36 <= response.chance_both_right <= 1 / 16


def test_a_deaf_driver_ends_at_one_object(grammar: Grammar, rollers: World) -> None:
    response = ObjectResponse.of(deaf("objects", grammar, rollers))
    assert (response.both_right.count, response.changed.count) == (0, 0)


def test_a_scene_driven_once_is_no_pair(grammar: Grammar, rollers: World) -> None:
    results = [drive_by_expert(episode, rollers) for episode in plan_episodes("objects", 1, grammar)]
    assert len(pairs_of(results)) == 1
    assert pairs_of(results[:1]) == []
    response = ObjectResponse.of(results[:1])
    assert response.both_right.total == 0
    assert response.to_dict()["chance_changed"] is None


@pytest.mark.parametrize("response", [SideResponse.of([]), ObjectResponse.of([])])
def test_no_pairs_give_unknown_shares(response: SideResponse | ObjectResponse) -> None:
    values = response.to_dict()
    assert all(v["total"] == 0 for v in values.values() if isinstance(v, dict) and "total" in v)
