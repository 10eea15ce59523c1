"""How often the expert succeeds, judged as every driver is, and how many draws of scenes were rejected."""

import argparse
from collections import Counter, defaultdict

from machine import describe
from mobile_vla.core import ActionContract, Goal, Twist
from mobile_vla.evaluate.statistics import wilson
from mobile_vla.safety import Envelope
from mobile_vla.sim.expert import Expert
from mobile_vla.sim.judge import Judge, Verdict
from mobile_vla.sim.limits import LIMITS
from mobile_vla.sim.scenarios import SCENARIOS, draw_scene
from mobile_vla.sim.scene import Scene
from mobile_vla.sim.world import World

LIMIT_S = 60.0
SETTLE_FRAMES = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=1000)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--base", choices=("planar", "rollers"), default="planar")
    options = parser.parse_args()
    describe()
    world = World(options.base)
    rejected, failures, by_scenario = 0, Counter(), defaultdict(list)
    for number in range(options.scenes):
        scenario, seed = SCENARIOS[number % len(SCENARIOS)], options.first_seed + number
        draw = draw_scene(scenario, seed)
        goals = draw.scene.goals
        verdict = drive(world, draw.scene, goals[number % len(goals)])
        rejected += draw.rejected
        by_scenario[scenario].append(verdict.success)
        if not verdict.success:
            failures[f"{verdict.failure.value}: {verdict.touched}" if verdict.touched else verdict.failure.value] += 1
            print(f"  failed: {scenario} seed {seed}: {verdict.failure.value} {verdict.touched or ''}", flush=True)
    done = [success for each in by_scenario.values() for success in each]
    low, high = wilson(sum(done), len(done))
    print(f"the expert on the {options.base} base: {sum(done)} of {len(done)} ({low:.1%} to {high:.1%}, 95 % Wilson)")
    print(f"rejected draws: {rejected}, {rejected / len(done):.2f} a scene")
    for scenario, each in by_scenario.items():
        if not all(each):
            print(f"  {scenario:32} {sum(each)} of {len(each)}")
    for failure, count in failures.most_common():
        print(f"  {failure:32} {count}")


def drive(world: World, scene: Scene, goal: Goal) -> Verdict:
    """The expert drives at the contract's rates, through the envelope."""
    contract = ActionContract()
    world.load(scene)
    expert, judge, envelope = Expert(scene, goal, contract), Judge(scene, goal), Envelope(LIMITS)
    period_s, settled, status = 1.0 / contract.rate_hz, 0, None
    while world.time_ns * 1e-9 < LIMIT_S and settled < SETTLE_FRAMES and judge.touched is None:
        seen = world.visibility()
        expert.observe(world.pose, 0.0 if expert.target is None else seen[expert.target].visible_fraction)
        advice = expert.advise(world.pose)
        status = advice.status
        settled = settled + 1 if status.is_final else 0
        for row in advice.velocities[: contract.rows_per_frame]:
            world.step(envelope.step(Twist.from_array(row), period_s), period_s)
            judge.move(world.pose, world.touching())
    return judge.verdict(status, settled >= SETTLE_FRAMES, world.time_ns * 1e-9)


if __name__ == "__main__":
    main()
