"""How fast the simulated world runs on one core: physics steps and camera frames a second."""

from functools import partial

from machine import describe, rate
from mobile_vla.core import Twist
from mobile_vla.sim.gl import egl_problem
from mobile_vla.sim.scenarios import draw_scene
from mobile_vla.sim.world import World

PERIOD_S = 0.1


def main() -> None:
    describe()
    scene = draw_scene("2box_vertical_left_far", 1).scene
    for base in ("planar", "rollers"):
        world = World(base, "rays")
        world.load(scene)
        steps = round(PERIOD_S / world._model.opt.timestep)

        def drive(world: World = world, steps: int = steps) -> int:
            for turn in (0.5, -0.5) * 5:
                world.step(Twist(0.0, 0.0, turn), PERIOD_S)
            return 10 * steps

        rate(f"physics, {base} base", "steps", drive)

        def load(world: World = world) -> int:
            world.load(scene)
            return 1

        rate(f"loading a scene, {base} base", "scenes", load)
    for renderer in ("egl", "rays"):
        problem = egl_problem() if renderer == "egl" else None
        if problem:
            print(f"no frames by EGL: {problem}")
            continue
        world = World("planar", renderer)
        world.load(scene)
        for height, width in ((96, 192), (224, 224)):
            rate(
                f"{width}x{height} frames, {world.renderer_name}",
                "frames",
                partial(_render, world, height, width),
            )
    rate("truth of a frame (visibility and ranges)", "frames", partial(_truth, world))


def _render(world: World, height: int, width: int) -> int:
    world.render(height, width)
    return 1


def _truth(world: World) -> int:
    world.visibility()
    world.ranges(24)
    return 1


if __name__ == "__main__":
    main()
