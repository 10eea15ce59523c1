import math
from collections import Counter
from functools import cache

import numpy as np
import pytest

from mobile_vla.core import Colour, Kind, Mode, Side, Target
from mobile_vla.sim.geometry import clearance, object_bearing, object_distance, sight_fraction
from mobile_vla.sim.route import gates
from mobile_vla.sim.scenarios import (
    DISTANCES_M,
    HUE_DEG,
    MANOEUVRES,
    ROUTES,
    SCENARIOS,
    SEARCHES,
    VARIANT_SCALES,
    draw_scene,
)
from mobile_vla.sim.scene import ROBOT_RADIUS_M

SEEDS = range(4)
cached = cache(draw_scene)


def scenes(*scenarios, seeds=SEEDS):
    return [cached(scenario, seed).scene for scenario in scenarios for seed in seeds]


def test_there_are_eight_scenarios_at_three_distances_and_the_others():
    assert len(ROUTES) == 24
    assert len(set(SCENARIOS)) == len(SCENARIOS)
    assert HUE_DEG.keys() == set(Colour)


def test_an_unknown_scenario_is_refused():
    with pytest.raises(ValueError, match="unknown scenario 'zoo'"):
        draw_scene("zoo", 1)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_seed_is_a_scene(scenario):
    assert draw_scene(scenario, 5) == draw_scene(scenario, 5)
    assert draw_scene(scenario, 5).scene != draw_scene(scenario, 6).scene


@pytest.mark.parametrize("scenario", [*ROUTES, *SEARCHES])
def test_two_kinds_are_crossed_with_two_colours(scenario):
    """So that neither the kind nor the colour alone names an object."""
    for scene in scenes(scenario):
        pairs = Counter((item.kind, item.colour) for item in scene.objects)
        assert max(pairs.values()) == 1
        kinds, colours = (Counter(getattr(item, part) for item in scene.objects) for part in ("kind", "colour"))
        assert sorted(kinds.values(), reverse=True)[:3] in ([2, 2], [2, 2, 1])
        assert sorted(colours.values(), reverse=True)[:3] in ([2, 2], [2, 2, 1])
        assert sum(kinds[kind] == colours[colour] == 2 for kind, colour in pairs) == 4


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_all_stand_within_the_walls_apart_from_each_other(scenario):
    for scene in scenes(scenario):
        start = np.array([scene.start.x, scene.start.y])
        assert float(clearance(scene, start)) > ROBOT_RADIUS_M
        for index, item in enumerate(scene.objects):
            room = float(clearance(scene, np.array([item.pose.x, item.pose.y]), skip=(index,))) - item.radius_m
            assert room > 2 * ROBOT_RADIUS_M
            assert item.scale == VARIANT_SCALES[item.variant]


@pytest.mark.parametrize("scenario", [*ROUTES, "distractors"])
def test_every_goal_is_in_sight_at_the_start(scenario):
    for scene in scenes(scenario):
        assert len(scene.goals) >= 2
        for goal in scene.goals:
            (index,) = scene.matching(goal.target)
            assert sight_fraction(scene, index, scene.start.x, scene.start.y) > 0.5
            assert abs(object_bearing(scene.objects[index], scene.start)) < scene.appearance.camera_fov_rad / 2


@pytest.mark.parametrize("scenario", ROUTES)
def test_a_route_has_its_boxes_in_the_way_its_side_and_its_distance(scenario):
    boxes, layout, side, distance = scenario.split("_")
    for scene in scenes(scenario):
        assert len(scene.obstacles) == int(boxes[0])
        assert {goal.side for goal in scene.goals} == {Side(side)}
        nearest_m = min(object_distance(item, scene.start.x, scene.start.y) + item.radius_m for item in scene.objects)
        assert nearest_m >= DISTANCES_M[distance][0]
        gate = gates(scene)[0]
        across = [abs(np.dot(gate.left, (o.pose.x - gate.x, o.pose.y - gate.y))) for o in scene.obstacles]
        along = [abs(np.dot(gate.ahead, (o.pose.x - gate.x, o.pose.y - gate.y))) for o in scene.obstacles]
        if boxes == "2box":
            assert (max(along) > max(across)) == (layout == "vertical")


def test_a_hidden_target_is_out_of_the_picture():
    for scene in scenes("hidden", seeds=range(8)):
        for goal in scene.goals:
            (index,) = scene.matching(goal.target)
            assert abs(object_bearing(scene.objects[index], scene.start)) > scene.appearance.camera_fov_rad / 2


def test_an_absent_target_is_not_there_but_something_like_it_is():
    for scene in scenes("absent", seeds=range(8)):
        assert scene.goals
        assert all(not scene.matching(goal.target) for goal in scene.goals)
        kinds, colours = ({getattr(item, part) for item in scene.objects} for part in ("kind", "colour"))
        assert any(goal.target.kind in kinds or goal.target.colour in colours for goal in scene.goals)


@pytest.mark.parametrize("scenario", MANOEUVRES)
def test_a_manoeuvre_asks_for_itself(scenario):
    for scene in scenes(scenario):
        assert [goal.mode for goal in scene.goals] == [Mode(scenario)]
        assert (scene.start_velocity != (0.0, 0.0, 0.0)) == (scenario == "stop")


def test_no_name_tells_the_position():
    """Over many scenes every kind and every colour stands left as often as right, and near as often as far."""
    lateral, away = {}, {}
    for scene in scenes(*ROUTES[::5], "distractors", seeds=range(40)):
        for goal in scene.goals:
            if goal.target.colour is None:
                continue
            (index,) = scene.matching(goal.target)
            item = scene.objects[index]
            for name in (item.kind, item.colour):
                lateral.setdefault(name, []).append(object_bearing(item, scene.start))
                away.setdefault(name, []).append(object_distance(item, scene.start.x, scene.start.y) + item.radius_m)
    mean_away_m = float(np.mean([value for values in away.values() for value in values]))
    for name in (*Kind, *Colour):
        share_left = float(np.mean(np.array(lateral[name]) > 0))
        error = math.sqrt(0.25 / len(lateral[name]))
        assert abs(share_left - 0.5) < 4 * error, name
        spread = float(np.std(away[name])) / math.sqrt(len(away[name]))
        assert abs(float(np.mean(away[name])) - mean_away_m) < 4.5 * spread, name


def test_a_colour_goes_unsaid_only_where_the_kind_says_it_all():
    for scene in scenes(*ROUTES[::3], "distractors"):
        for goal in scene.goals:
            if goal.target.colour is None:
                assert len(scene.matching(Target(goal.target.kind))) == 1
