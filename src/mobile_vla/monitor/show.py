"""A drive in the simulator with all that a person wants to see of it: the live line, a film and a map."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from mobile_vla.core import NS_PER_S, Goal, Instruction, Policy
from mobile_vla.monitor.chart import draw_chart
from mobile_vla.monitor.film import Film
from mobile_vla.monitor.fonts import font_file
from mobile_vla.monitor.line import LiveLine
from mobile_vla.monitor.overhead import overhead
from mobile_vla.monitor.words import goal_in_words
from mobile_vla.policy.preprocess import HEIGHT, WIDTH
from mobile_vla.runtime import DriveConfig, DriveLoop, Ending, Outcome, Tick
from mobile_vla.safety import Supervisor
from mobile_vla.sim.judge import Judge, Verdict
from mobile_vla.sim.limits import LIMITS
from mobile_vla.sim.robot import SimBase, SimCamera, SimClock
from mobile_vla.sim.scene import Pose
from mobile_vla.sim.world import World


@dataclass(frozen=True, slots=True)
class Show:
    """How to drive and what to leave. ``pace`` as ``SimClock``; ``film`` an MP4 and ``chart`` a PNG to be written."""

    film: Path
    chart: Path
    pace: float = 1.0
    limit_s: float = 60.0


def drive_and_show(
    world: World, goal: Goal, instruction: Instruction, policy: Policy, show: Show, console: Console
) -> tuple[Outcome, Verdict]:
    """Drive the loaded scene and judge it by ``goal``. A touch ends the drive; Ctrl-C leaves the film until then."""
    contract, background = policy.contract, overhead(world)
    caption = instruction.text if font_file(instruction.text) else goal_in_words(goal)
    judge = Judge(world.scene, goal)
    trail: list[tuple[float, Pose]] = []
    clock = SimClock(world, show.pace)
    camera, base = SimCamera(world, contract.frame_rate_hz, HEIGHT, WIDTH), SimBase(clock, world)
    config = DriveConfig(time_limit_s=show.limit_s, identical_pixels=False)  # a rendered picture has no noise

    def observe(tick: Tick) -> None:
        judge.move(world.pose, clock.touched)
        trail.append((tick.stamp_ns / NS_PER_S, world.pose))
        film.add(tick, world.pose)
        live.show(tick)
        if clock.touched:
            loop.request_stop()

    loop = DriveLoop(camera, base, policy, Supervisor(LIMITS), clock, config, observe)
    camera.open()
    base.open()
    try:
        with Film(show.film, background, caption, contract.rate_hz) as film, LiveLine(console) as live:
            outcome = loop.run_blocking(instruction)
    finally:
        base.close()
        camera.close()
    verdict = judge.verdict(outcome.status, outcome.ending is Ending.FINISHED, outcome.duration_s)
    draw_chart(show.chart, background, world.scene, goal, trail, caption)
    return outcome, verdict
