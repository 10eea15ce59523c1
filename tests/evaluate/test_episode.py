from typing import Any

import numpy as np
import pytest

from mobile_vla.core import ActionChunk, ActionContract, Grounding, Instruction, Mode, Observation, Status, Step
from mobile_vla.evaluate import run_episode
from mobile_vla.evaluate.episode import MANOEUVRE_LIMIT_S, chunk_leads_to
from mobile_vla.language import Grammar
from mobile_vla.runtime import Ending
from mobile_vla.sim.judge import Failure, Judge
from mobile_vla.sim.scenarios import draw_scene
from mobile_vla.sim.scene import Pose
from mobile_vla.sim.world import World

from .conftest import drive_by_expert, planned


class SteadyPolicy:
    """Always wants the same velocity, and says that it drives."""

    contract = ActionContract()

    def __init__(self, *velocity: float) -> None:
        self.velocities = np.tile(np.array(velocity, np.float32), (self.contract.horizon, 1))

    def reset(self, instruction: Instruction) -> None:
        return None

    def step(self, observation: Observation, state: Any) -> Step:
        chunk = ActionChunk(self.velocities, observation.frame.capture_ns, self.contract.rate_hz)
        return Step(chunk, Grounding(0.0, 0.0, 0.0, (0.0, 0.0, 0.0, 0.0), Status.DRIVING), state)


class BrokenPolicy(SteadyPolicy):
    def step(self, observation: Observation, state: Any) -> Step:
        raise RuntimeError("out of thoughts")


@pytest.mark.parametrize("scenario", ["1box_vertical_left_close", "hidden", "absent", "stop", "turn_right", "back"])
def test_the_expert_succeeds_through_the_whole_chain(scenario: str, grammar: Grammar, rollers: World) -> None:
    result = drive_by_expert(planned(scenario, grammar), rollers)
    assert result.verdict.failure is Failure.NONE
    assert result.ending is Ending.FINISHED
    assert result.error is None
    goes = result.planned.goal.mode is Mode.GO and scenario != "absent"
    assert result.target_seen is (True if goes else None)
    assert (result.spl is not None) == goes
    assert result.spl is None or 0.8 < result.spl <= 1.0


def test_what_is_noted_agrees_with_the_judge(grammar: Grammar, rollers: World) -> None:
    result = drive_by_expert(planned("2box_horizontal_right_close", grammar), rollers)
    scene = draw_scene(result.planned.scenario, result.planned.seed).scene
    judge = Judge(scene, result.planned.goal)
    for _, x, y, yaw in result.trajectory:
        judge.move(Pose(x, y, yaw), None)
    again = judge.verdict(result.status, result.ending is Ending.FINISHED, result.verdict.duration_s)
    assert again.failure is result.verdict.failure
    assert again.path_m == pytest.approx(result.verdict.path_m, abs=0.01)
    assert result.side_passed == result.planned.goal.side
    stamps = [stamp for stamp, *_ in result.trajectory]
    assert stamps == sorted(stamps)
    assert stamps[-1] == pytest.approx(result.verdict.duration_s, abs=0.11)


def test_an_episode_is_the_same_whatever_was_driven_before(grammar: Grammar, rollers: World) -> None:
    episode = planned("distractors", grammar)
    first = drive_by_expert(episode, rollers)
    drive_by_expert(planned("turn_left", grammar), rollers)
    assert drive_by_expert(episode, rollers) == first


def test_a_touch_ends_the_episode(grammar: Grammar, rollers: World) -> None:
    result = run_episode(
        planned("closer", grammar), rollers, lambda world, episode: SteadyPolicy(0.6, 0.0, 0.0), "steady"
    )
    assert result.verdict.failure is Failure.TOUCHED
    assert result.verdict.touched
    assert result.ending is Ending.REQUESTED
    assert result.verdict.duration_s < MANOEUVRE_LIMIT_S


def test_who_never_says_so_has_not_ended(grammar: Grammar, rollers: World) -> None:
    result = run_episode(planned("turn_left", grammar), rollers, lambda world, episode: SteadyPolicy(0, 0, 0), "steady")
    assert result.verdict.failure is Failure.NOT_ENDED
    assert result.ending is Ending.TIME_LIMIT
    assert MANOEUVRE_LIMIT_S <= result.verdict.duration_s < MANOEUVRE_LIMIT_S + 1.0


def test_a_policy_that_raises_is_noted(grammar: Grammar, rollers: World, caplog: pytest.LogCaptureFixture) -> None:
    result = run_episode(planned("closer", grammar), rollers, lambda world, episode: BrokenPolicy(0, 0, 0), "broken")
    assert result.ending is Ending.POLICY_FAILED
    assert result.error == "RuntimeError: out of thoughts"
    assert not result.success
    assert "out of thoughts" in caplog.text


def test_chunks_are_followed_as_the_base_would() -> None:
    rows = np.tile(np.array([0.0, 0.5, 0.0], np.float32), (8, 1))
    assert chunk_leads_to(ActionChunk(rows, 0, 10.0)) == (pytest.approx(0.4), 0.0)
    rows = np.tile(np.array([0.3, 0.0, -0.5], np.float32), (8, 1))
    lateral_m, yaw_rad = chunk_leads_to(ActionChunk(rows, 0, 10.0))
    assert yaw_rad == pytest.approx(-0.4)
    assert lateral_m == pytest.approx(-0.3 / 0.5 * (1 - np.cos(0.4)), abs=1e-4)


def test_the_opening_is_seen_before_anything_moves(grammar: Grammar, rollers: World) -> None:
    result = drive_by_expert(planned("1box_vertical_left_close", grammar), rollers)
    early = [(x, y) for stamp, x, y, _ in result.trajectory if stamp <= 0.2]
    assert len(early) == 3
    np.testing.assert_allclose(early, [early[0]] * 3, atol=0.002)
    assert len(result.opening) == 2
