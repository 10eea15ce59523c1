"""One episode, closed loop: camera, policy, chunk queue, supervisor and base as on a robot, in the simulated world.

The base is the one with real rollers, while training drives the planar one. The simulation stands still while the
policy thinks, so that the latency of a slow machine is not in these figures.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from mobile_vla.core import (
    NS_PER_S,
    ActionChunk,
    ActionContract,
    Instruction,
    Mode,
    Observation,
    Policy,
    Side,
    Status,
    Step,
)
from mobile_vla.evaluate.plan import PlannedEpisode
from mobile_vla.evaluate.statistics import spl_term
from mobile_vla.policy.preprocess import HEIGHT, WIDTH
from mobile_vla.runtime import DriveConfig, DriveLoop, Ending, Tick
from mobile_vla.safety import Supervisor
from mobile_vla.sim.expert import SEEN_FRACTION, Expert
from mobile_vla.sim.judge import Judge, Verdict, object_reached
from mobile_vla.sim.limits import LIMITS
from mobile_vla.sim.robot import SimBase, SimCamera, SimClock
from mobile_vla.sim.route import RouteTracker
from mobile_vla.sim.scenarios import draw_scene
from mobile_vla.sim.scene import Scene
from mobile_vla.sim.world import World

GO_LIMIT_S = 45.0
MANOEUVRE_LIMIT_S = 15.0
OPENING_FRAMES = 2
"""The first frames of an episode, seen at the start pose: until a supervisor has had its fresh steps nothing moves."""

Driver = Callable[[World, PlannedEpisode], Policy]
"""Makes the policy for one episode; the world has loaded the scene."""


@dataclass(frozen=True, slots=True)
class EpisodeResult:
    """One episode as it went.

    ``driver`` names who drove. ``status`` is its last word. ``target_seen``: at some frame the camera saw enough of a
    named object for the expert to know it; None where nothing named is here. ``end_object``: index in the scene of the
    object reached at the end (``sim.judge``), one of ``object_count``. ``side_passed``: of all obstacles, else None.
    ``spl`` is None where the goal names nothing that is here; its shortest path is the expert's, whose metres count
    more near solid things, so it never is too short and the term is capped at 1. ``trajectory``: (seconds, x, y, yaw)
    in ``world`` at every control step and the end. ``opening``: where the chunks of the first ``OPENING_FRAMES``
    decisions lead, see ``chunk_leads_to``. ``error``: what the policy raised, if it did.
    """

    planned: PlannedEpisode
    driver: str
    verdict: Verdict
    ending: Ending
    status: Status | None
    decisions: int
    shortest_path_m: float
    spl: float | None
    target_seen: bool | None
    end_object: int | None
    object_count: int
    side_passed: Side | None
    trajectory: tuple[tuple[float, float, float, float], ...]
    opening: tuple[tuple[float, float], ...]
    error: str | None

    @property
    def success(self) -> bool:
        """Everything as told, by ``sim.judge``."""
        return self.verdict.success

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = asdict(self)
        values["verdict"]["success"] = self.success
        return values


def run_episode(planned: PlannedEpisode, world: World, driver: Driver, name: str) -> EpisodeResult:
    """Drive one episode in ``world`` and judge it. Deterministic where the policy is."""
    scene = draw_scene(planned.scenario, planned.seed).scene
    world.load(scene)
    policy = _Witness(driver(world, planned))
    clock, contract = SimClock(world), policy.contract
    camera = SimCamera(world, contract.frame_rate_hz, HEIGHT, WIDTH)
    limit_s = GO_LIMIT_S if planned.goal.mode is Mode.GO else MANOEUVRE_LIMIT_S
    watcher = _Watcher(world, clock, scene, planned)
    config = DriveConfig(time_limit_s=limit_s, identical_pixels=False)  # a rendered picture has no noise
    loop = DriveLoop(camera, SimBase(clock, world), policy, Supervisor(LIMITS), clock, config, watcher.watch)
    watcher.touch = loop.request_stop
    camera.open()
    try:
        outcome = loop.run_blocking(Instruction(planned.words))
    finally:
        camera.close()
    watcher.look()
    verdict = watcher.judge.verdict(outcome.status, outcome.ending is Ending.FINISHED, outcome.duration_s)
    present = bool(watcher.named)
    shortest_m = Expert(scene, planned.goal, contract).shortest_path_m
    return EpisodeResult(
        planned=planned,
        driver=name,
        verdict=verdict,
        ending=outcome.ending,
        status=outcome.status,
        decisions=outcome.decisions,
        shortest_path_m=shortest_m,
        spl=spl_term(verdict.success, shortest_m, verdict.path_m) if present else None,
        target_seen=watcher.seen if present else None,
        end_object=object_reached(scene, verdict.end),
        object_count=len(scene.objects),
        side_passed=watcher.route.side,
        trajectory=tuple(watcher.trajectory),
        opening=tuple(policy.opening),
        error=None if outcome.error is None else f"{type(outcome.error).__name__}: {outcome.error}",
    )


def chunk_leads_to(chunk: ActionChunk) -> tuple[float, float]:
    """Metres to the left and radians turned to the left at the end of a chunk, from where it begins."""
    dt, y, yaw = 1.0 / chunk.rate_hz, 0.0, 0.0
    for vx, vy, wz in chunk.velocities.tolist():
        middle = yaw + 0.5 * dt * wz
        y += dt * (math.sin(middle) * vx + math.cos(middle) * vy)
        yaw += dt * wz
    return round(y, 6), round(yaw, 6)


class _Watcher:
    """Takes down the truth at every control step; the world moves between two of them."""

    def __init__(self, world: World, clock: SimClock, scene: Scene, planned: PlannedEpisode) -> None:
        self._world, self._clock = world, clock
        self.judge, self.route = Judge(scene, planned.goal), RouteTracker(scene)
        self.named = scene.matching(planned.goal.target) if planned.goal.target else ()
        self.seen = False
        self.trajectory: list[tuple[float, float, float, float]] = []
        self.touch: Callable[[], None] = lambda: None

    def watch(self, tick: Tick) -> None:
        """Observer of the drive: a touch ends it."""
        self.look()
        is_new_frame = tick.frame is not None and tick.frame_age_ns == 0
        if self.named and not self.seen and is_new_frame:
            seen = self._world.visibility(HEIGHT, WIDTH)
            self.seen = any(seen[index].visible_fraction >= SEEN_FRACTION for index in self.named)
        if self._clock.touched:
            self.touch()

    def look(self) -> None:
        """Where the base is now."""
        pose = self._world.pose
        self.judge.move(pose, self._clock.touched)
        self.route.move(pose.x, pose.y)
        stamp_s = self._world.time_ns / NS_PER_S
        self.trajectory.append((round(stamp_s, 3), round(pose.x, 4), round(pose.y, 4), round(pose.yaw, 4)))


class _Witness:
    """A policy that keeps where the chunks of its first decisions lead."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.opening: list[tuple[float, float]] = []

    @property
    def contract(self) -> ActionContract:
        return self._policy.contract

    def reset(self, instruction: Instruction) -> Any:
        return self._policy.reset(instruction)

    def step(self, observation: Observation, state: Any) -> Step:
        step = self._policy.step(observation, state)
        if len(self.opening) < OPENING_FRAMES:
            self.opening.append(chunk_leads_to(step.chunk))
        return step
