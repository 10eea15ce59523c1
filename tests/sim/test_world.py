import itertools
import math
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobile_vla.core import ZERO_TWIST, Colour, ConfigError, Kind, Twist
from mobile_vla.sim.gl import egl_problem
from mobile_vla.sim.scene import ROBOT_RADIUS_M, Dynamics, Pose
from mobile_vla.sim.world import RENDERER_VARIABLE, World

from .conftest import busy_scene, carton, plain_scene, thing

PERIOD_S = 0.1
speed = st.floats(-0.6, 0.6, allow_nan=False)


def drive(world: World, twist: Twist, periods: int) -> str | None:
    touched = None
    for _ in range(periods):
        world.step(twist, PERIOD_S)
        touched = touched or world.touching()
    return touched


def test_an_empty_world_says_so() -> None:
    with pytest.raises(RuntimeError, match=r"load\(scene\)"):
        World(renderer="rays").render()


@given(vx=speed, vy=speed, wz=st.floats(-1.5, 1.5, allow_nan=False))
@settings(max_examples=25)
def test_the_base_moves_as_commanded(vx: float, vy: float, wz: float) -> None:
    world = _shared()
    world.load(plain_scene(start=Pose(0.0, 0.0, 0.7), half=(5.0, 5.0), velocity=(vx, vy, wz)))
    command = Twist(vx, vy, wz)
    drive(world, command, 10)
    np.testing.assert_allclose(world.velocity.as_array(), command.as_array(), atol=0.01)
    assert world.velocity == world.true_velocity
    # Constant velocities in base_link describe an arc, in closed form.
    turn = complex(math.cos(0.7), math.sin(0.7))
    share = (np.exp(1j * wz) - 1) / (1j * wz) if abs(wz) > 1e-6 else 1.0
    way = turn * complex(vx, vy) * share
    assert (world.pose.x, world.pose.y) == pytest.approx((way.real, way.imag), abs=0.01)
    assert world.pose.yaw == pytest.approx(math.remainder(0.7 + wz, math.tau), abs=0.01)


_KEPT: list[World] = []


def _shared() -> World:
    if not _KEPT:
        _KEPT.append(World())
    return _KEPT[0]


def test_the_time_constant_is_that_of_a_first_order_lag(world: World) -> None:
    world.load(plain_scene(dynamics=Dynamics(time_constant_s=0.2)))
    world.step(Twist(0.5, 0.0, 0.0), 0.2)
    assert world.velocity.vx == pytest.approx(0.5 * (1 - math.exp(-1)), rel=0.03)


def test_latency_delays_every_command_by_simulated_time(world: World) -> None:
    world.load(plain_scene(dynamics=Dynamics(time_constant_s=0.0, latency_s=0.15)))
    world.step(Twist(0.4, 0.0, 0.0), PERIOD_S)
    assert world.velocity.vx == 0.0
    world.step(ZERO_TWIST, PERIOD_S)
    assert world.velocity.vx == pytest.approx(0.4, rel=0.01)
    world.step(ZERO_TWIST, PERIOD_S)
    assert world.velocity.vx == pytest.approx(0.0, abs=0.01)


def test_unequal_wheels_bend_the_way(world: World) -> None:
    world.load(plain_scene(dynamics=Dynamics(wheel_gains=(1.1, 1.0, 0.9)), half=(5.0, 5.0)))
    drive(world, Twist(0.5, 0.0, 0.0), 20)
    assert abs(world.pose.yaw) > 0.05 or abs(world.pose.y) > 0.02


def test_start_pose_velocity_and_time(world: World) -> None:
    world.load(plain_scene(start=Pose(1.0, -0.5, 2.0), velocity=(0.3, -0.1, 0.4)))
    assert (world.pose.x, world.pose.y, world.pose.yaw) == pytest.approx((1.0, -0.5, 2.0))
    assert world.velocity.as_array() == pytest.approx((0.3, -0.1, 0.4), abs=1e-6)
    assert world.time_ns == 0
    drive(world, ZERO_TWIST, 3)
    assert world.time_ns == 300_000_000


def test_set_pose_keeps_the_velocity_in_base_link(world: World) -> None:
    world.set_velocity(Twist(0.3, 0.1, 0.2))
    world.set_pose(Pose(1.0, 1.0, -2.5))
    assert world.velocity.as_array() == pytest.approx((0.3, 0.1, 0.2), abs=1e-6)
    assert world.pose.yaw == pytest.approx(-2.5)


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("variant", [0, 2])
def test_the_hull_stops_at_an_object_and_says_which(world: World, kind: Kind, variant: int) -> None:
    item = thing(kind, Colour.ORANGE, 0.8, 0.0, variant=variant)
    world.load(plain_scene((thing(Kind.BALL, Colour.RED, -1.5, 1.0), item)))
    assert drive(world, Twist(0.5, 0.0, 0.0), 25) == f"orange {kind}".replace("_", " ")
    gap = math.hypot(world.pose.x - 0.8, world.pose.y) - item.radius_m - ROBOT_RADIUS_M
    assert abs(gap) < 0.02


def test_the_hull_touches_neither_too_early_nor_too_late(world: World) -> None:
    item = thing(Kind.CONE, Colour.RED, 1.0, 0.0)
    world.load(plain_scene((item,)))
    reach = item.radius_m + ROBOT_RADIUS_M
    for gap, touched in ((0.01, None), (-0.005, "red cone")):
        world.set_pose(Pose(1.0 - reach - gap, 0.0, 0.0))
        world.set_velocity(ZERO_TWIST)
        world.step(ZERO_TWIST, 0.005)
        assert world.touching() == touched


@pytest.mark.parametrize("heading", [0.0, math.pi / 2, math.pi, -math.pi / 2])
def test_walls_of_any_room_are_felt(world: World, heading: float) -> None:
    world.load(plain_scene(half=(4.0, 1.2), start=Pose(0.0, 0.0, heading)))
    assert drive(world, Twist(0.6, 0.0, 0.0), 80) == "wall"
    reach = abs(world.pose.x) if abs(math.cos(heading)) > 0.5 else abs(world.pose.y)
    assert reach == pytest.approx((4.0 if abs(math.cos(heading)) > 0.5 else 1.2) - ROBOT_RADIUS_M, abs=0.02)


def test_obstacles_are_felt_at_their_own_size(world: World) -> None:
    world.load(plain_scene((), (carton(-1.5, 1.5), carton(1.0, 0.0, half_x=0.35))))
    assert drive(world, Twist(0.5, 0.0, 0.0), 25) == "obstacle 1"
    assert world.pose.x == pytest.approx(1.0 - 0.35 - ROBOT_RADIUS_M, abs=0.02)


def test_a_touch_is_reported_even_if_it_ended_within_the_step(world: World) -> None:
    world.load(plain_scene((thing(Kind.BALL, Colour.RED, 0.40, 0.0),), dynamics=Dynamics(time_constant_s=0.0)))
    world.set_pose(Pose(0.40 - 0.12 - ROBOT_RADIUS_M + 0.0005, 0.0, 0.0))
    world.step(Twist(-0.6, 0.0, 0.0), PERIOD_S)
    assert world.touching() == "red ball"
    world.step(Twist(-0.6, 0.0, 0.0), PERIOD_S)
    assert world.touching() is None


def test_the_same_scene_gives_the_same_frames_and_way_bit_for_bit() -> None:
    first, second = World(), World()
    second.load(plain_scene((thing(Kind.CHAIR, Colour.RED, 1.0, 0.0),), floor=2, wall=3))
    second.render()
    second.render_top(200, 240)
    for world in (first, second):
        world.load(busy_scene())
    for k in range(6):
        for world in (first, second):
            world.step(Twist(0.4, 0.1, 0.3 * (-1) ** k), PERIOD_S)
        assert first.pose == second.pose
        np.testing.assert_array_equal(first.render(), second.render())
    assert first.visibility() == second.visibility()


def test_another_size_in_between_does_not_disturb_a_picture(world: World) -> None:
    world.load(busy_scene())
    small = world.render()
    world.load(plain_scene((thing(Kind.CHAIR, Colour.RED, 1.0, 0.0),)))
    world.render(120, 160)
    world.render_top(100, 120)
    other = world.render()
    assert (other != small).any()
    world.load(busy_scene())
    np.testing.assert_array_equal(world.render(), small)


def test_a_frame_is_a_copy(world: World) -> None:
    frame = world.render()
    kept = frame.copy()
    world.set_pose(Pose(1.0, 1.0, 2.0))
    world.render()
    np.testing.assert_array_equal(frame, kept)
    assert (frame.shape, frame.dtype, frame.flags.c_contiguous) == ((96, 192, 3), np.uint8, True)


def test_twelve_worlds_in_lockstep_do_not_mix_up() -> None:
    scenes = [plain_scene((thing(Kind.BALL, list(Colour)[k % 6], 1.0 + 0.1 * k, 0.0),), floor=k % 7) for k in range(12)]
    worlds = [World() for _ in scenes]
    for world, scene in zip(worlds, scenes, strict=True):
        world.load(scene)
    together = [world.render() for world in worlds]
    for scene, frame in zip(scenes, together, strict=True):
        worlds[0].load(scene)
        np.testing.assert_array_equal(worlds[0].render(), frame)
    assert all((a != b).any() for a, b in itertools.combinations(together, 2))


def test_saved_states_come_back_bit_for_bit_even_in_another_world() -> None:
    scene = replace(busy_scene(), dynamics=Dynamics((1.05, 1.0, 0.95), 0.1, 0.12))
    first, second = World(), World()
    first.load(scene)
    drive(first, Twist(0.4, 0.0, 0.5), 4)
    state = first.save_state()
    drive(first, Twist(0.2, 0.2, -0.5), 5)
    after = first.pose, first.velocity, first.time_ns
    for world in (first, second):
        if world is second:
            world.load(scene)
        world.restore_state(state)
        drive(world, Twist(0.2, 0.2, -0.5), 5)
        assert (world.pose, world.velocity, world.time_ns) == after


def test_a_state_of_another_scene_or_base_is_refused(world: World) -> None:
    state = world.save_state()
    world.load(busy_scene())
    with pytest.raises(ValueError, match="another scene"):
        world.restore_state(state)
    rollers = World(base="rollers")
    rollers.load(busy_scene())
    with pytest.raises(ValueError, match="another base"):
        rollers.restore_state(world.save_state())


def test_the_camera_follows_the_appearance(world: World) -> None:
    scene = plain_scene((thing(Kind.BALL, Colour.RED, 1.2, 0.0),))
    rows = []
    for pitch in (-0.1, -0.3):
        world.load(replace(scene, appearance=replace(scene.appearance, camera_pitch_rad=pitch)))
        red = world.render()[:, :, 0].astype(int) - world.render()[:, :, 2]
        rows.append(np.nonzero(red > 60)[0].mean())
    assert rows[1] < rows[0] - 10, "looking further down moves things up in the image"


@pytest.mark.parametrize("what", ["floor_texture", "wall_texture", "floor_rgb", "wall_rgb", "light_diffuse"])
def test_every_part_of_the_appearance_is_seen(world: World, what: str) -> None:
    scene = plain_scene()
    new = {"floor_texture": 1, "wall_texture": 3, "light_diffuse": 0.2}.get(what, (0.3, 0.5, 0.3))
    before = world.render()
    world.load(replace(scene, appearance=replace(scene.appearance, **{what: new})))
    assert np.abs(world.render().astype(int) - before).mean() > 1.0


def test_from_above_the_robot_and_all_objects_are_where_they_are(world: World) -> None:
    world.load(plain_scene((thing(Kind.BALL, Colour.RED, 1.5, 1.0),), start=Pose(-1.0, -1.0, 0.0), half=(3.0, 2.5)))
    height, width = 265, 315  # 50 pixels a metre
    image = world.render_top(height, width).astype(int)
    assert image.shape == (height, width, 3)
    red = (image[:, :, 0] > 100) & (image[:, :, 1] < 60)
    rows, columns = np.nonzero(red[:, width // 2 :])
    assert columns.mean() + width // 2 == pytest.approx(width / 2 + 1.5 * 50, abs=2)
    assert rows.mean() == pytest.approx(height / 2 - 1.0 * 50, abs=2)
    cyan = (image[:, :, 2] > 100) & (image[:, :, 0] < 60)
    rows, columns = np.nonzero(cyan)
    assert (columns.mean(), rows.mean()) == pytest.approx((width / 2 - 50, height / 2 + 50), abs=3)


def test_the_renderer_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RENDERER_VARIABLE, "rays")
    assert World().renderer_name == "CPU rays"
    monkeypatch.setenv(RENDERER_VARIABLE, "vulkan")
    with pytest.raises(ConfigError, match="vulkan"):
        World()
    assert World(renderer="rays").renderer_name == "CPU rays"
    if egl_problem() is None:
        assert World(renderer="egl").renderer_name.startswith("EGL (")


def test_without_gl_it_falls_back_and_a_demand_for_egl_says_what_to_do() -> None:
    code = """
from mobile_vla.core import ConfigError
from mobile_vla.sim.world import World
print(World().renderer_name)
try:
    World(renderer="egl")
except ConfigError as error:
    print(error)
"""
    environment = {**os.environ, "MUJOCO_GL": "disable"}
    environment.pop(RENDERER_VARIABLE, None)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    name, message = done.stdout.splitlines()
    assert name == "CPU rays"
    assert f"{RENDERER_VARIABLE}=rays" in message
    assert done.stderr == ""
