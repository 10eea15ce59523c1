import math

import numpy as np
import pytest

from mobile_vla.core import ActionContract, Colour, Goal, Kind, Mode, Side, Status, Target, Twist
from mobile_vla.safety import Envelope, Limits
from mobile_vla.sim.expert import Expert, TravelTime
from mobile_vla.sim.judge import Judge
from mobile_vla.sim.scenarios import SCENARIOS, draw_scene
from mobile_vla.sim.scene import Pose
from sim.conftest import carton, plain_scene, thing

CONTRACT = ActionContract()
CUP = Target(Kind.CUP, Colour.RED)
BOXED = plain_scene((thing(Kind.CUP, Colour.RED, 1.5, 0.0),), (carton(0.0, 0.0),), start=Pose(-1.5, 0.0, 0.0))


def drive(world, scene, goal, max_frames=220):
    """The expert drives, two rows a frame through the envelope, as when data are recorded."""
    world.load(scene)
    expert, judge, envelope = Expert(scene, goal, CONTRACT), Judge(scene, goal), Envelope(Limits())
    settled = 0
    for _ in range(max_frames):
        seen = world.visibility()
        expert.observe(world.pose, 0.0 if expert.target is None else seen[expert.target].visible_fraction)
        advice = expert.advise(world.pose)
        settled = settled + 1 if advice.status.is_final else 0
        for row in advice.velocities[: CONTRACT.rows_per_frame]:
            world.step(envelope.step(Twist.from_array(row), 0.1), 0.1)
            judge.move(world.pose, world.touching())
        if settled >= 4:
            break
    return judge.verdict(advice.status, settled >= 4, world.time_ns * 1e-9)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_it_succeeds_in_every_scenario(world, scenario):
    scene = draw_scene(scenario, 11).scene
    verdict = drive(world, scene, scene.goals[0])
    assert verdict.success, verdict.failure


@pytest.mark.parametrize("side", Side)
def test_it_goes_round_as_told(world, side):
    assert drive(world, BOXED, Goal(Mode.GO, CUP, side)).success


@pytest.mark.parametrize(("mode", "sign"), [(Mode.TURN_LEFT, 1), (Mode.TURN_RIGHT, -1)])
def test_it_turns_to_the_left_with_positive_speed(mode, sign):
    advice = Expert(plain_scene(), Goal(mode), CONTRACT).advise(Pose(0, 0, 0))
    assert sign * advice.velocities[0, 2] > 0.5
    assert advice.status is Status.DRIVING


def test_it_searches_for_what_it_has_not_seen_and_always_to_the_left():
    scene = plain_scene((thing(Kind.CUP, Colour.RED, -1.5, 0.2),))
    expert = Expert(scene, Goal(Mode.GO, CUP), CONTRACT)
    expert.observe(scene.start, 0.0)
    advice = expert.advise(scene.start)
    assert advice.status is Status.SEARCHING
    assert (advice.velocities[:, 2] > 0).all()
    assert not advice.velocities[:, :2].any()
    expert.observe(scene.start, 0.9)
    assert expert.advise(scene.start).status is Status.DRIVING


def test_it_calls_a_target_absent_after_a_full_turn_and_not_before():
    expert = Expert(plain_scene(), Goal(Mode.GO, CUP), CONTRACT)
    for yaw in np.arange(0.0, 2 * math.pi, 0.2):
        pose = Pose(0.0, 0.0, float(yaw))
        expert.observe(pose, 0.0)
        assert expert.advise(pose).status is Status.SEARCHING
    pose = Pose(0.0, 0.0, 2 * math.pi + 0.4)
    expert.observe(pose, 0.0)
    advice = expert.advise(pose)
    assert advice.status is Status.ABSENT
    assert not advice.velocities.any()


def test_a_chunk_has_the_shape_and_limits_of_the_contract():
    scene = draw_scene("2box_horizontal_left_far", 3).scene
    expert = Expert(scene, scene.goals[0], CONTRACT)
    rng = np.random.default_rng(1)
    for _ in range(20):
        pose = Pose(*rng.uniform(-2, 2, 2), rng.uniform(-3, 3))
        velocities = expert.advise(pose).velocities
        assert velocities.shape == (CONTRACT.horizon, 3)
        assert velocities.dtype == np.float32
        assert (np.abs(velocities) <= CONTRACT.limits_array).all()


def test_travel_time_falls_along_its_own_direction_and_is_nothing_at_the_target():
    time = TravelTime(BOXED, 0, Side.LEFT)
    x, y = BOXED.start.x, BOXED.start.y
    before = time.at(x, y)
    assert before > 2.5
    points = []
    for _ in range(200):
        dx, dy = time.direction(x, y)
        x, y = x + 0.03 * dx, y + 0.03 * dy
        points.append((x, y))
        if time.at(x, y) < 0.05:
            break
    assert time.at(x, y) < 0.05
    assert max(point[1] for point in points) > 0.4  # round the left of the box


def test_the_shortest_path_is_longer_round_the_box():
    free = plain_scene(BOXED.objects, start=BOXED.start)
    straight = Expert(free, Goal(Mode.GO, CUP), CONTRACT).shortest_path_m
    assert straight == pytest.approx(3.0 - 0.06 - 0.36, abs=0.25)
    assert Expert(BOXED, Goal(Mode.GO, CUP, Side.LEFT), CONTRACT).shortest_path_m > straight + 0.1
