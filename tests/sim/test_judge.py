import math
from dataclasses import replace

import pytest

from mobile_vla.core import Colour, Goal, Kind, Mode, Side, Status, Target
from mobile_vla.sim.judge import FACING_WITHIN_RAD, STOP_WITHIN_M, Failure, Judge
from mobile_vla.sim.scene import Pose
from sim.conftest import carton, plain_scene, thing

CUP, BALL = Target(Kind.CUP, Colour.RED), Target(Kind.BALL, Colour.BLUE)
SCENE = plain_scene(
    (thing(Kind.CUP, Colour.RED, 2.0, 0.0), thing(Kind.BALL, Colour.BLUE, 2.0, 1.5)),
    (carton(0.5, 0.0),),
    start=Pose(-1.0, 0.0, 0.0),
)
AT_CUP = Pose(2.0 - 0.06 - 0.36, 0.0, 0.0)
LEFT_WAY, RIGHT_WAY = Pose(0.5, 0.8, 0.0), Pose(0.5, -0.8, 0.0)
GO = Goal(Mode.GO, CUP)
GO_LEFT = Goal(Mode.GO, CUP, Side.LEFT)


def judged(goal, *poses, status=Status.ARRIVED, ended=True, touching=None, scene=SCENE):
    judge = Judge(scene, goal)
    for pose in poses:
        judge.move(pose, touching)
    return judge.verdict(status, ended, 3.0)


def way(*points, yaw=0.0):
    return [Pose(x, y, yaw) for x, y in points]


DRIVES = {
    Failure.NONE: lambda: judged(GO_LEFT, LEFT_WAY, AT_CUP),
    Failure.TOUCHED: lambda: judged(GO_LEFT, LEFT_WAY, AT_CUP, touching="blue ball"),
    Failure.NOT_ENDED: lambda: judged(GO_LEFT, LEFT_WAY, AT_CUP, ended=False),
    Failure.WRONG_SIDE: lambda: judged(GO_LEFT, RIGHT_WAY, AT_CUP),
    Failure.WRONG_OBJECT: lambda: judged(GO, LEFT_WAY, Pose(1.6, 1.5, 0.0)),
    Failure.TOO_FAR: lambda: judged(GO, LEFT_WAY, Pose(1.4, 0.0, 0.0)),
    Failure.NOT_FACING: lambda: judged(GO, LEFT_WAY, replace(AT_CUP, yaw=0.5)),
    Failure.SAID_ABSENT: lambda: judged(GO, LEFT_WAY, AT_CUP, status=Status.ABSENT),
    Failure.MISSED_ABSENCE: lambda: judged(Goal(Mode.GO, Target(Kind.CONE)), AT_CUP),
    Failure.WRONG_MOTION: lambda: judged(Goal(Mode.CLOSER), SCENE.start),
}


@pytest.mark.parametrize("failure", Failure)
def test_every_failure_is_found(failure):
    verdict = DRIVES[failure]()
    assert verdict.failure is failure
    assert verdict.success == (failure is Failure.NONE)


def test_a_success_tells_its_figures():
    verdict = judged(GO_LEFT, LEFT_WAY, AT_CUP)
    assert verdict.route_obeyed
    assert verdict.right_target
    assert verdict.touched is None
    assert verdict.stop_distance_m == pytest.approx(0.36)
    assert verdict.facing_error_rad == pytest.approx(0.0)
    assert verdict.path_m == pytest.approx(math.hypot(1.5, 0.8) + math.hypot(AT_CUP.x - 0.5, 0.8))
    assert (verdict.duration_s, verdict.end) == (3.0, AT_CUP)


def test_of_two_objects_in_reach_it_stands_at_the_one_ahead():
    near = thing(Kind.BALL, Colour.BLUE, AT_CUP.x, 0.4)
    scene = replace(SCENE, objects=(SCENE.objects[0], near))
    assert judged(GO, LEFT_WAY, AT_CUP, scene=scene).success
    turned = replace(AT_CUP, yaw=math.pi / 2)
    assert judged(GO, LEFT_WAY, turned, scene=scene).failure is Failure.WRONG_OBJECT


def test_what_was_touched_first_is_named():
    judge = Judge(SCENE, GO)
    judge.move(SCENE.start, None)
    judge.move(SCENE.start, "wall")
    judge.move(SCENE.start, "blue ball")
    assert judge.touched == judge.verdict(Status.ARRIVED, True, 1.0).touched == "wall"


def test_the_colour_may_go_unsaid():
    assert judged(Goal(Mode.GO, Target(Kind.CUP)), LEFT_WAY, AT_CUP).success


@pytest.mark.parametrize(("short_m", "success"), [(-0.01, True), (0.01, False)])
def test_the_edge_of_near_enough(short_m, success):
    pose = Pose(2.0 - SCENE.objects[0].radius_m - STOP_WITHIN_M - short_m, 0.0, 0.0)
    assert judged(GO, LEFT_WAY, pose).success == success


@pytest.mark.parametrize(("past_rad", "success"), [(-0.01, True), (0.01, False)])
def test_the_edge_of_facing(past_rad, success):
    for sign in (1, -1):
        pose = replace(AT_CUP, yaw=sign * (FACING_WITHIN_RAD + past_rad))
        assert judged(GO, LEFT_WAY, pose).success == success


def test_absence_that_is_so_is_success_only_when_said():
    goal = Goal(Mode.GO, Target(Kind.CONE))
    assert judged(goal, SCENE.start, status=Status.ABSENT).success
    assert judged(goal, SCENE.start, status=None).failure is Failure.MISSED_ABSENCE


def turn(total_rad, steps=20):
    return [Pose(-1.0, 0.0, total_rad * step / steps) for step in range(1, steps + 1)]


@pytest.mark.parametrize(
    ("mode", "poses", "success"),
    [
        (Mode.TURN_LEFT, turn(math.pi / 2), True),
        (Mode.TURN_LEFT, turn(-math.pi / 2), False),
        (Mode.TURN_LEFT, turn(math.pi / 2 - 2 * math.pi), False),
        (Mode.TURN_RIGHT, turn(-math.pi / 2), True),
        (Mode.TURN_RIGHT, turn(math.pi / 2), False),
        (Mode.TURN_RIGHT, turn(-math.pi / 4), False),
        (Mode.TURN_LEFT, [*turn(math.pi / 2), Pose(-0.6, 0.0, math.pi / 2)], False),
        (Mode.CLOSER, way((-0.75, 0.0), (-0.5, 0.0)), True),
        (Mode.CLOSER, way((-1.5, 0.0)), False),
        (Mode.CLOSER, way((-0.5, 0.3)), False),
        (Mode.BACK, way((-1.5, 0.0)), True),
        (Mode.BACK, way((-0.5, 0.0)), False),
        (Mode.STOP, way((-0.9, 0.0)), True),
        (Mode.STOP, way((-0.5, 0.0), (-1.0, 0.0)), False),
    ],
)
def test_manoeuvres(mode, poses, success):
    assert judged(Goal(mode), *poses).success == success


def test_turning_is_counted_over_half_a_turn():
    judge = Judge(SCENE, GO)
    for pose in turn(2 * math.pi + 0.3, steps=40):
        judge.move(replace(pose, yaw=math.remainder(pose.yaw, 2 * math.pi)), None)
    assert judge.turned_rad == pytest.approx(2 * math.pi + 0.3)


def test_what_does_not_apply_is_none():
    verdict = judged(Goal(Mode.STOP), SCENE.start)
    assert verdict.route_obeyed is None
    assert verdict.right_target is None
    assert verdict.stop_distance_m is None
    assert verdict.facing_error_rad is None
