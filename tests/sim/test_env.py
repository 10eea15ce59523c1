import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from mobile_vla.core import ActionContract, Colour, Goal, Kind, Mode, Target
from mobile_vla.sim.env import ENV_ID, MobileVLAEnv, make_vector
from mobile_vla.sim.expert import Expert


@pytest.fixture(scope="module")
def _env():
    env = MobileVLAEnv(render_mode="rgb_array")
    yield env
    env.close()


@pytest.fixture
def env(_env):
    _env.reset(seed=0)
    return _env


def drive_by_expert(env):
    expert = Expert(env.world.scene, env.goal, ActionContract())
    while True:
        seen = env.world.visibility()
        expert.observe(env.world.pose, 0.0 if expert.target is None else seen[expert.target].visible_fraction)
        _, reward, terminated, truncated, info = env.step(expert.advise(env.world.pose).velocities[0])
        if terminated or truncated:
            return reward, terminated, info


def test_gymnasiums_own_checker_is_content():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(?s).*symmetric and normalized space")  # ours is in physical units
        check_env(gymnasium.make(ENV_ID, render_mode="rgb_array").unwrapped)


def test_it_is_registered_and_renders():
    env = gymnasium.make(ENV_ID, render_mode="rgb_array", scenario="distractors")
    observation, info = env.reset(seed=3)
    assert info["scenario"] == env.unwrapped.task == "distractors"
    assert env.unwrapped.task_description
    assert env.render().shape == (288, 576, 3)
    assert env.observation_space.contains(observation)
    env.close()


def test_a_seed_gives_the_same_words_and_the_same_frames(env):
    runs = []
    for _ in range(2):
        observation, info = env.reset(seed=42)
        env.action_space.seed(5)
        frames = [observation["pixels"]] + [env.step(env.action_space.sample())[0]["pixels"] for _ in range(5)]
        runs.append((info, env.task_description, np.stack(frames)))
    assert runs[0][:2] == runs[1][:2]
    np.testing.assert_array_equal(runs[0][2], runs[1][2])
    assert env.reset(seed=43)[1] != runs[0][0]


@pytest.mark.parametrize("scenario", ["1box_horizontal_left_close", "distractors", "absent", "stop", "turn_right"])
def test_success_is_flagged_when_the_expert_drives(env, scenario):
    _, info = env.reset(options={"scenario": scenario, "seed": 11, "goal": 0})
    assert info == {"is_success": False, "failure": "", "scenario": scenario, "seed": 11}
    reward, terminated, info = drive_by_expert(env)
    assert (reward, terminated, info["is_success"], info["failure"]) == (1.0, True, True, "success")


def test_a_touch_ends_it_without_success(env):
    env.reset(options={"scenario": "distractors", "seed": 1, "goal": 0})
    for _ in range(200):
        _, reward, terminated, _, info = env.step(np.array([0.6, 0.0, 0.0], np.float32))
        if terminated:
            break
    assert (terminated, reward, info["is_success"], info["failure"]) == (True, 0.0, False, "touched something")


def test_to_do_nothing_is_cut_off_in_time():
    env = MobileVLAEnv(scenario="distractors", max_steps=15)
    env.reset(seed=1)
    for step in range(15):
        _, _, terminated, truncated, info = env.step(np.zeros(3, np.float32))
        assert (terminated, truncated) == (False, step == 14)
    assert info["failure"] == "did not end in time"
    env.close()


def test_any_goal_can_be_asked_for(env):
    env.reset(options={"scenario": "hidden", "seed": 2, "goal": Goal(Mode.GO, Target(Kind.CONE, Colour.RED))})
    assert "cone" in env.task_description or env.task_description
    assert env.goal.target.kind is Kind.CONE


def test_an_unknown_option_is_refused(env):
    with pytest.raises(ValueError, match="unknown options sead"):
        env.reset(options={"sead": 1})


def test_the_base_is_never_commanded_beyond_the_envelope(env):
    env.reset(options={"scenario": "turn_left", "seed": 2})
    env.step(np.array([9.0, 0.0, 0.0], np.float32))
    assert abs(env.world.velocity.vx) < 0.2


def test_a_vector_of_environments_runs_in_processes_of_their_own(env):
    vector = make_vector(2, scenario="turn_left")
    try:
        observations, infos = vector.reset(seed=[42, 43])
        assert observations["pixels"].shape == (2, 96, 192, 3)
        assert not infos["is_success"].any()
        alone, _ = env.reset(seed=43, options={"scenario": "turn_left"})
        np.testing.assert_array_equal(observations["pixels"][1], alone["pixels"])
        vector.step(np.zeros((2, 3), np.float32))
        assert all(isinstance(words, str) and words for words in vector.get_attr("task_description"))
    finally:
        vector.close()
