"""The simulated drive as a Gymnasium environment: words and pixels in, a velocity out, success by the judge.

One step is one action of the contract (0.1 s), and every step gives a fresh frame. Actions are velocities in m/s, m/s
and rad/s, in ``base_link``; they pass the same envelope as on the robot.
"""

import os
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv
from numpy.typing import NDArray

from mobile_vla.core import ActionContract, Goal, Mode, Status, Twist
from mobile_vla.language import Grammar, Language
from mobile_vla.safety import Envelope, Standstill
from mobile_vla.sim.judge import Failure, Judge
from mobile_vla.sim.limits import LIMITS
from mobile_vla.sim.scenarios import SCENARIOS, draw_scene
from mobile_vla.sim.world import BaseChoice, RendererChoice, World

Observation = dict[str, NDArray[Any]]
ENV_ID = "mobile_vla/Drive-v0"
SETTLE_STEPS = 10
"""Steps in a row at rest that end an episode, once the robot has done anything."""
MAX_SCENE_SEED = 1_000_000
"""Scenes are drawn below this seed; training of the shipped policy draws its own above."""

_FASTEST = 3.0
_HEIGHT, _WIDTH = 96, 192


class MobileVLAEnv(gymnasium.Env[Observation, NDArray[np.float32]]):
    """Drive to what the words name. One scene an episode; ``task_description`` holds its words, ``task`` its scenario.

    Observation: ``pixels`` uint8 (96, 192, 3), RGB of the front camera; ``agent_pos`` float32 (3,), measured velocity.
    Action: float32 (3,), m/s, m/s, rad/s. Reward: 1 at success, else 0. The episode terminates when the robot touches
    something, or stands for ``SETTLE_STEPS`` after it has moved (at once where it is told to stop), and is truncated
    after ``max_steps``. ``info``: ``is_success``, ``failure`` (in words, empty under way), ``seed``, ``scenario``.

    An action cannot say that the target is absent: in such scenes standing still after a full turn says it.

    ``reset`` takes the options ``scenario``, ``seed`` and ``goal`` (its place in ``Scene.goals``, or any ``Goal``);
    what is not given is drawn from the environment's generator.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - Gymnasium's own form

    def __init__(
        self,
        scenario: str | None = None,
        render_mode: str | None = None,
        base: BaseChoice = "planar",
        renderer: RendererChoice = "auto",
        language: Language = "en",
        max_steps: int = 450,
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode {render_mode!r}: this environment renders 'rgb_array' only")
        self.render_mode = render_mode
        self.contract = ActionContract()
        limits = self.contract.limits_array
        self.observation_space: spaces.Space[Any] = spaces.Dict(
            {
                "pixels": spaces.Box(0, 255, (_HEIGHT, _WIDTH, 3), np.uint8),
                "agent_pos": spaces.Box(-_FASTEST, _FASTEST, (3,), np.float32),
            }
        )
        self.action_space = spaces.Box(-limits, limits, dtype=np.float32)
        self.task = scenario or ""
        self.task_description = ""
        self.goal = Goal(Mode.STOP)
        self._scenario, self._language, self._max_steps = scenario, language, max_steps
        self._grammar = Grammar.load()
        self._world = World(base, renderer)
        self._period_s = 1.0 / self.contract.rate_hz

    @property
    def world(self) -> World:
        """The truth, for experts and tests."""
        return self._world

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """A new scene; ValueError for an unknown option or scenario."""
        super().reset(seed=seed)
        given = dict(options or {})
        drawn = int(self.np_random.integers(len(SCENARIOS))), int(self.np_random.integers(MAX_SCENE_SEED))
        scenario = given.pop("scenario", None) or self._scenario or SCENARIOS[drawn[0]]
        scene = draw_scene(scenario, int(given.pop("seed", drawn[1]))).scene
        goal = given.pop("goal", int(self.np_random.integers(len(scene.goals))))
        if given:
            raise ValueError(f"unknown options {', '.join(given)}: known are scenario, seed and goal")
        self.goal = goal if isinstance(goal, Goal) else scene.goals[goal]
        self.task = scenario
        self.task_description = self._grammar.phrase(self.goal, self.np_random, self._language, "train")
        self._world.load(scene)
        self._judge = Judge(scene, self.goal)
        self._envelope = Envelope(LIMITS)
        self._steps = self._standing = 0
        self._has_moved = self.goal.mode is Mode.STOP
        return self._observe(), self._info(None)

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Let one action hold for one period of the contract."""
        limits = self.contract.limits_array
        wanted = Twist.from_array(np.clip(np.asarray(action, np.float32), -limits, limits))
        self._world.step(self._envelope.step(wanted, self._period_s), self._period_s)
        self._steps += 1
        self._judge.move(self._world.pose, self._world.touching())
        stands = Standstill().holds(self._world.velocity)
        self._standing = self._standing + 1 if stands else 0
        self._has_moved |= not stands
        settled = self._has_moved and self._standing >= SETTLE_STEPS
        terminated = settled or self._judge.touched is not None
        truncated = not terminated and self._steps >= self._max_steps
        failure = self._failure(settled) if terminated or truncated else None
        return self._observe(), float(failure is Failure.NONE), terminated, truncated, self._info(failure)

    def render(self) -> NDArray[np.uint8] | None:
        """The front camera, three times as large; None without a render mode."""
        return self._world.render(3 * _HEIGHT, 3 * _WIDTH) if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Let go of what draws."""
        self._world.close()

    def _failure(self, settled: bool) -> Failure:
        is_here = self.goal.target is None or bool(self._world.scene.matching(self.goal.target))
        status = Status.ARRIVED if is_here or self._judge.turned_rad < 2 * np.pi else Status.ABSENT
        return self._judge.verdict(status, settled, self._steps * self._period_s).failure

    def _observe(self) -> Observation:
        velocity = np.clip(self._world.velocity.as_array(), -_FASTEST, _FASTEST)
        return {"pixels": self._world.render(_HEIGHT, _WIDTH), "agent_pos": velocity}

    def _info(self, failure: Failure | None) -> dict[str, Any]:
        scene = self._world.scene
        return {
            "is_success": failure is Failure.NONE,
            "failure": "" if failure is None else failure.value,
            "scenario": scene.scenario,
            "seed": scene.seed,
        }


def make_vector(count: int | None = None, **settings: Any) -> AsyncVectorEnv:
    """``count`` environments (by default one a core), each in a process of its own; ``settings`` as MobileVLAEnv.

    Processes come from a fork server: a fork of this one would share its OpenGL context. In a script, call it below
    ``if __name__ == "__main__"``.
    """
    return AsyncVectorEnv([partial(MobileVLAEnv, **settings)] * (count or os.cpu_count() or 1), context="forkserver")


gymnasium.register(ENV_ID, entry_point="mobile_vla.sim.env:MobileVLAEnv")
