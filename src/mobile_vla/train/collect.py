"""Data to learn from: surveys (random poses), and drives by the expert or the learner.

Whoever drives, the expert says at every frame what it would have done from there (DAgger; Ross et al. 2011). Many
robots drive in step in one process, so that the learner sees their frames as one batch.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mobile_vla.core import ActionContract, Goal, Instruction, Status, Twist
from mobile_vla.data import schema
from mobile_vla.language import Grammar, Language
from mobile_vla.policy.preprocess import HEIGHT, WIDTH
from mobile_vla.safety import Envelope
from mobile_vla.sim.expert import Expert
from mobile_vla.sim.geometry import clearance, wrap_angle
from mobile_vla.sim.labels import RANGE_COLUMNS, truth_columns
from mobile_vla.sim.limits import LIMITS
from mobile_vla.sim.scenarios import MANOEUVRES, ROUTES, draw_scene
from mobile_vla.sim.scene import ROBOT_RADIUS_M, Pose, Scene
from mobile_vla.sim.world import World

Row = dict[str, Any]
STATUSES = tuple(Status)


@dataclass(frozen=True)
class Recording:
    """One episode: its words, what is known of it, and its frames."""

    instruction: str
    extras: dict[str, str | int | float | bool | None]
    rows: list[Row]


class Learner(Protocol):
    """Drives several robots at once."""

    def reset(self, place: int, instruction: Instruction) -> None:
        """Robot number ``place`` begins an episode."""
        ...

    def act(self, frames: NDArray[np.uint8], velocities: NDArray[np.float32]) -> NDArray[np.float32]:
        """Frames (N, H, W, 3) and measured velocities (N, 3) to velocities (N, horizon, 3), physical units."""
        ...


def survey(seeds: Sequence[int], poses: int, grammar: Grammar, contract: ActionContract) -> Iterator[Recording]:
    """Scattered views of one scene a seed: half of them near an object, most of them towards one."""
    world = World(base="planar")
    for seed in seeds:
        rng = np.random.default_rng([7, seed])
        scene = draw_scene(_pick_scenario(rng), seed).scene
        goal = scene.goals[int(rng.integers(len(scene.goals)))]
        world.load(scene)
        rows = []
        for sequence in range(poses):
            world.set_pose(_survey_pose(scene, rng))
            seen = world.visibility(HEIGHT, WIDTH)
            matching = scene.matching(goal.target) if goal.target else ()
            row = truth_columns(
                scene, seen, world.ranges(RANGE_COLUMNS), matching[0] if matching else None, (HEIGHT, WIDTH)
            )
            row |= {
                schema.IMAGE_FRONT: world.render(HEIGHT, WIDTH),
                schema.SEQUENCE: sequence,
                schema.CAPTURE_NS: sequence,
            }
            row |= {schema.STATE: np.zeros(3, np.float32), schema.ACTION: np.zeros(3, np.float32)}
            rows.append(row)
        words, extras = describe(scene, goal, grammar, rng)
        yield Recording(words, extras | {"driver": "survey", "outcome": "survey"}, rows)
    world.close()


def drive(
    seeds: Sequence[int],
    grammar: Grammar,
    contract: ActionContract,
    learner: Learner | None,
    lanes: int,
    max_frames: int,
) -> Iterator[Recording]:
    """One episode a seed, ``lanes`` of them at a time; the expert drives where there is no learner."""
    worlds = [World(base="planar") for _ in range(lanes)]
    waiting = iter(seeds)
    running: dict[int, _Lane] = {}

    def begin(place: int) -> None:
        seed = next(waiting, None)
        running.pop(place, None)
        if seed is not None:
            running[place] = _Lane(worlds[place], seed, grammar, contract, learner is not None, max_frames)
            if learner is not None:
                learner.reset(place, Instruction(running[place].words))

    for place in range(lanes):
        begin(place)
    frames = np.zeros((lanes, HEIGHT, WIDTH, 3), np.uint8)
    velocities = np.zeros((lanes, 3), np.float32)
    while running:
        for place, lane in running.items():
            frames[place], velocities[place] = lane.look()
        wanted = learner.act(frames, velocities) if learner is not None else None
        for place, lane in list(running.items()):
            lane.move(None if wanted is None else wanted[place])
            if lane.done:
                yield lane.recording()
                begin(place)
    for world in worlds:
        world.close()


class _Lane:
    """One robot on its way through one episode."""

    def __init__(
        self, world: World, seed: int, grammar: Grammar, contract: ActionContract, learning: bool, max_frames: int
    ) -> None:
        self._rng = np.random.default_rng([11, seed])
        self._world, self._contract, self._max_frames = world, contract, max_frames
        self._scene = draw_scene(_pick_scenario(self._rng), seed).scene
        goal = self._scene.goals[int(self._rng.integers(len(self._scene.goals)))]
        if goal.side is not None and self._rng.random() < 0.1:
            goal = Goal(goal.mode, goal.target)  # any way round will do
        self._goal = goal
        self.words, self._extras = describe(self._scene, goal, grammar, self._rng)
        self._expert = Expert(self._scene, goal, contract)
        world.load(self._scene)
        self._envelope = Envelope(LIMITS)
        self._rows: list[Row] = []
        self._settled = 0
        self._touched: str | None = None
        self._learner_until = max_frames if not learning or self._rng.random() < 0.7 else int(self._rng.integers(8, 40))
        self._learning = learning
        self._noise = np.zeros(3)
        self._noise_scale = 0.0 if learning or self._rng.random() < 0.3 else float(self._rng.uniform(0.03, 0.14))

    def look(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """The frame and the measured velocity; the truth and the expert's advice are noted."""
        world, target = self._world, self._expert.target
        seen = world.visibility(HEIGHT, WIDTH)
        pose = world.pose
        self._expert.observe(pose, 0.0 if target is None else seen[target].visible_fraction)
        self._advice = self._expert.advise(pose)
        self._settled = self._settled + 1 if self._advice.status.is_final else 0
        pixels, velocity = world.render(HEIGHT, WIDTH), world.velocity.as_array()
        row = truth_columns(self._scene, seen, world.ranges(RANGE_COLUMNS), target, (HEIGHT, WIDTH))
        row |= {schema.IMAGE_FRONT: pixels, schema.STATE: velocity, schema.STATUS: STATUSES.index(self._advice.status)}
        row |= {schema.ACTION_CHUNK: self._advice.velocities.ravel()}
        row |= {schema.CAPTURE_NS: world.time_ns, schema.SEQUENCE: len(self._rows)}
        self._rows.append(row)
        return pixels, velocity

    def move(self, wanted: NDArray[np.float32] | None) -> None:
        """Drive until the next frame by the learner's wish, or by the expert's, with noise."""
        expert_drives = wanted is None or len(self._rows) > self._learner_until
        velocities = self._advice.velocities if expert_drives or wanted is None else wanted
        if self._learning and expert_drives and len(self._rows) > self._learner_until + 12:
            self._learner_until += int(self._rng.integers(25, 60))  # the learner takes over again
        self._noise = 0.8 * self._noise + 0.6 * self._rng.normal(size=3) * self._noise_scale * np.array([1, 1, 2.5])
        rows = velocities[: self._contract.rows_per_frame]
        if self._settled == 0:
            rows = rows + self._noise.astype(np.float32)
        rows = np.clip(rows, -self._contract.limits_array, self._contract.limits_array)
        self._rows[-1][schema.ACTION] = rows[0]
        for row in rows:
            period_s = 1.0 / self._contract.rate_hz
            self._world.step(self._envelope.step(Twist.from_array(row), period_s), period_s)
            self._touched = self._touched or self._world.touching()

    @property
    def done(self) -> bool:
        """Touched something, settled at the end, or ran out of frames."""
        return self._touched is not None or self._settled >= 7 or len(self._rows) >= self._max_frames

    def recording(self) -> Recording:
        """The episode."""
        outcome = f"touched {self._touched}" if self._touched else "settled" if self._settled else "out of time"
        driver = "policy" if self._learning else "expert"
        return Recording(self.words, self._extras | {"driver": driver, "outcome": outcome}, self._rows)


def describe(
    scene: Scene, goal: Goal, grammar: Grammar, rng: np.random.Generator
) -> tuple[str, dict[str, str | int | float | bool | None]]:
    """Training words for the goal, and the extras of the episode."""
    language: Language = "en" if rng.random() < 0.5 else "ko"
    words = grammar.phrase(goal, rng, language, "train", typo_rate=0.17)
    return words, {
        "language": language,
        "phrasing": "train",
        "scenario": scene.scenario,
        "scene_seed": scene.seed,
        "goal_mode": goal.mode.value,
        "goal_kind": goal.target.kind.value if goal.target else None,
        "goal_colour": goal.target.colour.value if goal.target and goal.target.colour else None,
        "goal_side": goal.side.value if goal.side else None,
    }


def _pick_scenario(rng: np.random.Generator) -> str:
    """Half of the episodes go round boxes; the rest search, choose and manoeuvre."""
    draw = rng.random()
    if draw < 0.50:
        return ROUTES[int(rng.integers(len(ROUTES)))]
    for name, upto in (("distractors", 0.63), ("hidden", 0.76), ("absent", 0.85)):
        if draw < upto:
            return name
    return MANOEUVRES[int(rng.integers(len(MANOEUVRES)))]


def _survey_pose(scene: Scene, rng: np.random.Generator) -> Pose:
    for _ in range(200):
        item = scene.objects[int(rng.integers(len(scene.objects)))]
        if rng.random() < 0.5:
            away, angle = item.radius_m + float(rng.uniform(0.25, 1.6)), float(rng.uniform(-math.pi, math.pi))
            x, y = item.pose.x + away * math.cos(angle), item.pose.y + away * math.sin(angle)
        else:
            x = float(rng.uniform(-scene.half_x, scene.half_x))
            y = float(rng.uniform(-scene.half_y, scene.half_y))
        if float(clearance(scene, np.array([x, y]))) > ROBOT_RADIUS_M + 0.02:
            towards = math.atan2(item.pose.y - y, item.pose.x - x) + float(rng.uniform(-0.6, 0.6))
            return Pose(x, y, wrap_angle(towards) if rng.random() < 0.8 else float(rng.uniform(-math.pi, math.pi)))
    return scene.start
