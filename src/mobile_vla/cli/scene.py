"""``mobile-vla scene``: a picture of a scene, from the robot's camera and from above."""

import argparse
from pathlib import Path

from mobile_vla.cli.shared import Commands, add_json, natural, print_json


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser("scene", help="draw a scene from the robot's camera and from above")
    parser.add_argument("scenario", help="e.g. 1box_vertical_left_medium, distractors, hidden, absent, turn_left")
    parser.add_argument("--seed", type=natural, default=1, help="which scene of the scenario (default 1)")
    parser.add_argument("--out", type=Path, default=Path("out/scene.png"), metavar="PNG", help="default out/scene.png")
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Draw the scene at its start."""
    from PIL import Image

    from mobile_vla.monitor.words import goal_in_words, object_name
    from mobile_vla.sim.choose import named_scene
    from mobile_vla.sim.world import World

    scene = named_scene(options.scenario, options.seed)
    world = World()
    world.load(scene)
    height = 384
    camera = Image.fromarray(world.render(height, 2 * height))
    top = Image.fromarray(world.render_top(height, round(height * scene.half_x / scene.half_y)))
    picture = Image.new("RGB", (camera.width + top.width, height))
    picture.paste(camera, (0, 0))
    picture.paste(top, (camera.width, 0))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    picture.save(options.out)
    goals = [goal_in_words(goal) for goal in scene.goals]
    objects = [object_name(item.kind, item.colour) for item in scene.objects]
    if options.json:
        print_json(
            {
                "scenario": scene.scenario,
                "seed": scene.seed,
                "objects": objects,
                "obstacles": len(scene.obstacles),
                "goals": goals,
                "renderer": world.renderer_name,
                "picture": options.out,
            }
        )
    else:
        print(f"objects: {', '.join(objects)}; boxes to drive round: {len(scene.obstacles)}")
        print(f"goals: {'; '.join(goals)}")
        print(f"{options.out} (drawn by {world.renderer_name})")
    world.close()
    return 0
