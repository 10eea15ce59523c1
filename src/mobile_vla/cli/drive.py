"""``mobile-vla drive``: say where to go and watch the robot drive there: the simulated one, unless a robot is named."""

import argparse
import time
from dataclasses import replace
from pathlib import Path

from mobile_vla.cli.robot_options import add_node, add_robot
from mobile_vla.cli.shared import (
    Commands,
    add_json,
    add_policy,
    natural,
    not_negative,
    policy_folder,
    positive,
    print_json,
)
from mobile_vla.core import ConfigError

DEFAULT_SEED = 1
SIMULATED_ALONE = ("scene", "seed", "pace", "base", "out")
"""Options that mean nothing to a robot with a body."""


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser("drive", help="say where to go, and the robot drives there")
    parser.add_argument("--say", required=True, metavar="TEXT", help='e.g. "pass the box on the left to the red cup"')
    add_robot(parser)
    parser.add_argument("--no-ros", action="store_true", help="with --robot: publish no preview and no diagnostics")
    add_node(parser)
    parser.add_argument(
        "--scene", metavar="SCENARIO", help="simulated: by default a scene that has what the words name"
    )
    parser.add_argument("--seed", type=natural, help="simulated: which scene")
    add_policy(parser)
    parser.add_argument(
        "--allow-missing",
        action="append",
        default=[],
        metavar="TENSOR",
        help="drive with a salvaged policy that lacks this tensor (or these: text.*), left as before any training",
    )
    parser.add_argument(
        "--allow-unproven", action="store_true", help="drive with a salvaged policy whose bytes no checksum proves"
    )
    parser.add_argument("--pace", type=not_negative, help="simulated: 1 as fast as life (default), 0 as fast as can be")
    parser.add_argument("--base", choices=("rollers", "planar"), help="simulated: how the wheels are (default rollers)")
    parser.add_argument("--max-seconds", type=positive, default=60.0, metavar="S", help="time limit (default 60)")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="simulated: where film and map go; by default out/drive-TIME"
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Drive; 0 when the robot did as it was told, 1 when not."""
    if options.robot or options.settings:
        for name in SIMULATED_ALONE:
            if getattr(options, name) is not None:
                raise ConfigError(
                    f"--{name} is for the simulated robot: leave it out, or leave out --robot and settings"
                )
        from mobile_vla.cli import drive_robot

        return drive_robot.run(options)

    from mobile_vla.core import ActionContract, Instruction
    from mobile_vla.language import Grammar, encode, parse

    instruction, goal = Instruction(options.say), parse(options.say, Grammar.load())
    encode(instruction.text)  # refuses here, not under way, what is too long for the policy

    import torch
    from rich.console import Console

    from mobile_vla.engine.load import load_policy
    from mobile_vla.monitor.show import Show, drive_and_show
    from mobile_vla.monitor.words import goal_in_words, outcome_in_words
    from mobile_vla.sim.choose import named_scene, scene_for
    from mobile_vla.sim.world import World

    torch.set_num_threads(1)  # so small a network is fastest so
    allowed = options.allow_missing, options.allow_unproven
    policy = load_policy(policy_folder(options), ActionContract(), *allowed)
    seed = DEFAULT_SEED if options.seed is None else options.seed
    scene = named_scene(options.scene, seed) if options.scene else scene_for(goal, seed)
    if not scene.obstacles:
        goal = replace(goal, side=None)  # nothing stands in the way that could be passed
    out = options.out or Path("out") / time.strftime("drive-%Y%m%d-%H%M%S")
    out.mkdir(parents=True, exist_ok=True)
    console = Console(quiet=options.json, highlight=False, soft_wrap=True)
    world = World("rollers" if options.base is None else options.base)
    world.load(scene)
    console.print(f"understood: {goal_in_words(goal)}")
    console.print(f"scene: {scene.scenario}, seed {scene.seed}; drawn by {world.renderer_name}")
    pace = 1.0 if options.pace is None else options.pace
    show = Show(out / "drive.mp4", out / "drive.png", pace, options.max_seconds)
    outcome, verdict = drive_and_show(world, goal, instruction, policy, show, console)
    sentence = outcome_in_words(goal, outcome, verdict, len(scene.obstacles))
    console.print(f"{show.film}\n{show.chart}\n{sentence}")
    if options.json:
        print_json(
            {
                "success": verdict.success,
                "sentence": sentence,
                "understood": goal_in_words(goal),
                "failure": None if verdict.success else verdict.failure,
                "ending": outcome.ending,
                "status": outcome.status,
                "duration_s": outcome.duration_s,
                "path_m": verdict.path_m,
                "stop_distance_m": verdict.stop_distance_m,
                "touched": verdict.touched,
                "scenario": scene.scenario,
                "seed": scene.seed,
                "renderer": world.renderer_name,
                "film": show.film,
                "map": show.chart,
            }
        )
    world.close()
    return 0 if verdict.success else 1
