"""The whole way from camera frames to commands, as the loop that drives goes it, with marks between its stages."""

import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mobile_vla.core import NS_PER_S, Frame, Instruction, Observation, Policy, Twist
from mobile_vla.engine.backends.base import Decided, Engine
from mobile_vla.engine.policy import EnginePolicy
from mobile_vla.policy.compact import CompactPolicy
from mobile_vla.runtime import ChunkQueue
from mobile_vla.safety import Inputs, Supervisor
from mobile_vla.sim.limits import LIMITS

WORDS = "pass the box on the left and stop at the red cup"
FRAMES = 20
"""Pictures that take turns: of 640x480 more than most caches hold, as with frames that a camera has just written."""

_MOVING = Twist(0.3, 0.0, 0.1)


class Pictures(NamedTuple):
    """``frames``: uint8 (height, width, 3) each. ``source``: where they are from, in words."""

    frames: list[NDArray[np.uint8]]
    source: str


def pictures(width: int, height: int) -> Pictures:
    """``FRAMES`` of them, rendered by the simulator where it is installed, of the camera's test pattern elsewhere."""
    if find_spec("mujoco") is None:
        return patterns(width, height)
    from mobile_vla.sim.scenarios import draw_scene
    from mobile_vla.sim.world import World

    world = World("planar")
    try:
        world.load(draw_scene("1box_vertical_left_medium", 1).scene)
        start = world.scene.start
        frames = []
        for turn in range(FRAMES):
            world.set_pose(type(start)(start.x, start.y, start.yaw + 0.05 * turn))
            frames.append(world.render(height, width))
    finally:
        world.close()
    return Pictures(frames, "the simulator")


def patterns(width: int, height: int) -> Pictures:
    """``FRAMES`` of them, of the camera's test pattern, which needs nothing else."""
    from mobile_vla.robot.cameras.drawing import Drawing

    drawing = Drawing(width, height, seed=1)
    return Pictures([drawing.picture(number) for number in range(FRAMES)], "the camera's test pattern")


class Way:
    """Calling it decides once for each of ``sessions`` robots and gives each a command.

    ``stages`` are the names of what lies between the marks; ``marks_ns`` holds the marks of each call, one more than
    there are stages.
    """

    def __init__(self, policy: Policy, frames: Sequence[NDArray[np.uint8]], sessions: int = 1) -> None:
        self.stages, self._notes = _watched(policy)
        self.marks_ns: list[tuple[int, ...]] = []
        self._policy, self._frames = policy, frames
        self._states = [policy.reset(Instruction(WORDS)) for _ in range(sessions)]
        self._robots = [(ChunkQueue(), Supervisor(LIMITS)) for _ in range(sessions)]
        self._steps: Callable[..., Any] = policy.steps if sessions > 1 else self._one  # type: ignore[attr-defined]
        self._period_ns = round(NS_PER_S / policy.contract.frame_rate_hz)
        self._calls = 0

    def __call__(self) -> None:
        """One decision of each robot, each on a picture of its own."""
        now_ns = self._calls * self._period_ns
        first = self._calls * len(self._states)
        observations = [
            Observation(
                Frame(self._frames[(first + place) % len(self._frames)], now_ns, "bench", "front", self._calls), _MOVING
            )
            for place in range(len(self._states))
        ]
        self._notes.clear()
        began = time.perf_counter_ns()
        steps = self._steps(observations, self._states)
        decided = time.perf_counter_ns()
        for (queue, supervisor), step in zip(self._robots, steps, strict=True):
            queue.offer(step.chunk)
            plan = queue.plan(now_ns)
            supervisor.step(now_ns, Inputs(plan.twist, plan.capture_ns))
        ended = time.perf_counter_ns()
        self.marks_ns.append((began, *self._notes, decided, ended))
        self._states = [step.state for step in steps]
        self._calls += 1

    def stages_ns(self, last: int) -> dict[str, list[int]]:
        """How long each stage took in the ``last`` calls, and "the whole way"."""
        taken = self.marks_ns[-last:]
        spent = {name: [marks[place + 1] - marks[place] for marks in taken] for place, name in enumerate(self.stages)}
        return {**spent, WHOLE: [marks[-1] - marks[0] for marks in taken]}

    def _one(self, observations: Sequence[Observation], states: Sequence[Any]) -> list[Any]:
        return [self._policy.step(observations[0], states[0])]


WHOLE = "the whole way"
ENGINE = "engine"
_AFTER = ("chunk and belief", "queue and safety")


class _Marked(Engine):
    """The engine within, which is noted when it begins and ends."""

    def __init__(self, within: Engine, notes: list[int]) -> None:
        self.within, self.sessions, self._notes = within, within.sessions, notes

    def bring(self, words: Any) -> Any:
        return self.within.bring(words)

    def start(self) -> Any:
        return self.within.start()

    def decide(
        self, pixels: NDArray[np.uint8], words: Sequence[Any], motion: NDArray[np.float32], histories: Sequence[Any]
    ) -> Decided:
        self._notes.append(time.perf_counter_ns())
        decided = self.within.decide(pixels, words, motion, histories)
        self._notes.append(time.perf_counter_ns())
        return decided

    def close(self) -> None:
        self.within.close()


def _watched(policy: Policy) -> tuple[tuple[str, ...], list[int]]:
    """Names of the stages, and the list that gets the marks between the first and the last two."""
    notes: list[int] = []

    def note(*_: object) -> None:
        notes.append(time.perf_counter_ns())

    if isinstance(policy, EnginePolicy):
        policy.engine = _Marked(policy.engine, notes)
        return ("fit and motion", ENGINE, *_AFTER), notes
    if isinstance(policy, CompactPolicy):
        network = policy.network
        network.eye.register_forward_pre_hook(note)
        network.eye.register_forward_hook(note)
        network.enter.register_forward_pre_hook(note)
        network.head.register_forward_hook(note)
        return ("fit and normalise", "eye", "pointer", "memory and head", *_AFTER), notes
    return ("policy", "queue and safety"), notes
