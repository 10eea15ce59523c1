"""Random scenes. Objects stand so that nothing but the words tells which one is meant.

Every scene crosses two kinds with two colours, so that neither the colour nor the kind alone names an object, and every
object that could be asked for is asked for in some episode. A draw that no robot could solve is rejected and counted.
"""

import colorsys
import math
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from mobile_vla.core import Colour, Goal, Kind, Mode, Side, Target
from mobile_vla.sim.geometry import clearance, object_bearing, sight_fraction, wrap_angle
from mobile_vla.sim.scene import (
    ROBOT_RADIUS_M,
    Appearance,
    Dynamics,
    Obstacle,
    PlacedObject,
    Pose,
    Scene,
)
from mobile_vla.sim.shapes import VARIANT_SCALES

HUE_DEG: dict[Colour, float] = {
    Colour.RED: 0.0,
    Colour.ORANGE: 27.0,
    Colour.YELLOW: 54.0,
    Colour.GREEN: 125.0,
    Colour.BLUE: 218.0,
    Colour.PURPLE: 285.0,
}
N_TEXTURES = 5
"""Floor and wall textures that scenes use, each; ``sim.textures`` has more, which no training has seen."""

DISTANCES_M: dict[str, tuple[float, float]] = {"close": (2.0, 2.4), "medium": (2.4, 2.8), "far": (2.8, 3.3)}
"""From the start to the nearest object, by name."""

ROUTES = tuple(
    f"{boxes}_{layout}_{side}_{distance}"
    for boxes, layout, side, distance in product(
        ("1box", "2box"), ("vertical", "horizontal"), ("left", "right"), DISTANCES_M
    )
)
"""The eight scenarios at the three distances: go round on the named side to the named target."""
SEARCHES = ("distractors", "hidden", "absent")
MANOEUVRES = ("stop", "turn_left", "turn_right", "closer", "back")
SCENARIOS = ROUTES + SEARCHES + MANOEUVRES

_MAX_DRAWS = 400
_CAMERA_HALF_VIEW_RAD = math.radians(36)


class SceneRejected(Exception):  # noqa: N818 - an outcome of a draw, not an error of the program
    """This draw cannot be solved, or its target cannot be seen as the scenario demands."""


@dataclass(frozen=True, slots=True)
class Draw:
    """A scene and the number of draws that were rejected before it."""

    scene: Scene
    rejected: int


def draw_scene(scenario: str, seed: int) -> Draw:
    """The scene of this scenario and seed, always the same one. ValueError for an unknown scenario."""
    if scenario not in SCENARIOS:
        raise ValueError(f"unknown scenario {scenario!r}: choose one of {', '.join(SCENARIOS)}")
    rng = np.random.default_rng([SCENARIOS.index(scenario), seed])
    for rejected in range(_MAX_DRAWS):
        try:
            return Draw(_draw_once(scenario, seed, rng), rejected)
        except SceneRejected:
            continue
    raise RuntimeError(f"no solvable scene of scenario {scenario} in {_MAX_DRAWS} draws with seed {seed}")


def _draw_once(scenario: str, seed: int, rng: np.random.Generator) -> Scene:
    half_x, half_y = float(rng.uniform(3.0, 3.6)), float(rng.uniform(2.4, 3.0))
    start = Pose(-half_x + float(rng.uniform(0.5, 0.9)), float(rng.uniform(-0.7, 0.7)), float(rng.uniform(-0.25, 0.25)))
    empty = Scene(scenario, seed, half_x, half_y, (), (), start, (0.0, 0.0, 0.0), (), _appearance(rng), _dynamics(rng))
    if scenario in ROUTES:
        return _route_scene(empty, rng)
    if scenario in MANOEUVRES:
        return _manoeuvre_scene(empty, rng)
    return _search_scene(empty, rng)


def _route_scene(scene: Scene, rng: np.random.Generator) -> Scene:
    boxes, layout, side, distance = scene.scenario.split("_")
    nearest_m = float(rng.uniform(*DISTANCES_M[distance]))
    heading = float(rng.uniform(-0.12, 0.12)) - 0.15 * scene.start.y
    obstacles = _boxes(scene, int(boxes[0]), layout, nearest_m, heading, rng)
    scene = replace(scene, obstacles=obstacles, start=replace(scene.start, yaw=heading + float(rng.uniform(-0.2, 0.2))))
    scene = _place_objects(scene, nearest_m, float(rng.uniform(0.9, 1.3)), heading, rng)
    if float(clearance(scene, np.array([scene.start.x, scene.start.y]))) < ROBOT_RADIUS_M + 0.2:
        raise SceneRejected
    visible = _visible_from_start(scene)
    goals = _goals(scene, visible, Side(side))
    if len(goals) < 2:
        raise SceneRejected
    return replace(scene, goals=goals)


def _boxes(
    scene: Scene, count: int, layout: str, nearest_m: float, heading: float, rng: np.random.Generator
) -> tuple[Obstacle, ...]:
    """One or two cardboard boxes about half way; 'vertical' is along the way, 'horizontal' across it."""
    along = (nearest_m - 0.45) * float(rng.uniform(0.52, 0.62))
    lateral = float(rng.uniform(-0.15, 0.15))
    long, short = float(rng.uniform(0.20, 0.28)), float(rng.uniform(0.12, 0.17))
    half_x, half_y = (long, short) if layout == "vertical" else (short, long)
    if count == 1:
        centres = [(along, lateral)]
    elif layout == "vertical":
        half_x = float(rng.uniform(0.13, 0.18))
        gap = half_x + float(rng.uniform(0.05, 0.14))
        centres = [(along - gap, lateral), (along + gap, lateral + float(rng.uniform(-0.08, 0.08)))]
    else:
        half_y = float(rng.uniform(0.15, 0.20))
        gap = half_y + float(rng.uniform(0.05, 0.14))
        centres = [(along, lateral - gap), (along + float(rng.uniform(-0.08, 0.08)), lateral + gap)]
    cos, sin = math.cos(heading), math.sin(heading)
    return tuple(
        Obstacle(
            Pose(
                scene.start.x + cos * x - sin * y,
                scene.start.y + sin * x + cos * y,
                heading + float(rng.uniform(-0.2, 0.2)),
            ),
            half_x * float(rng.uniform(0.92, 1.08)),
            half_y * float(rng.uniform(0.92, 1.08)),
            float(rng.uniform(0.20, 0.38)),
            _cardboard(rng),
        )
        for x, y in centres
    )


def _place_objects(scene: Scene, nearest_m: float, depth_m: float, heading: float, rng: np.random.Generator) -> Scene:
    """Objects behind the boxes, spread over the width of the view, in random order."""
    items: list[PlacedObject] = []
    cos, sin = math.cos(heading), math.sin(heading)
    for kind, colour in _cast(rng):
        item = _object(kind, colour, rng)
        for _ in range(40):
            away = nearest_m + float(rng.uniform(0.0, depth_m))
            angle = float(rng.uniform(-0.55, 0.55))
            x, y = away * math.cos(angle), away * math.sin(angle)
            pose = Pose(scene.start.x + cos * x - sin * y, scene.start.y + sin * x + cos * y, _any_yaw(rng))
            candidate = replace(item, pose=pose)
            if _fits(scene, items, candidate):
                items.append(candidate)
                break
    return _with_cast(scene, items)


def _search_scene(scene: Scene, rng: np.random.Generator) -> Scene:
    """Objects anywhere around a start near the middle of the room."""
    yaw = _any_yaw(rng)
    scene = replace(scene, start=Pose(float(rng.uniform(-0.8, 0.8)), float(rng.uniform(-0.5, 0.5)), yaw))
    spread = 0.58 if scene.scenario == "distractors" else math.pi
    items: list[PlacedObject] = []
    if rng.random() < 0.4 and scene.scenario != "distractors":
        scene = replace(scene, obstacles=(_loose_box(scene, rng),))
    if scene.scenario == "distractors":
        back = float(rng.uniform(1.2, 1.8))
        scene = replace(
            scene, start=Pose(scene.start.x - back * math.cos(yaw), scene.start.y - 0.6 * back * math.sin(yaw), yaw)
        )
    for kind, colour in _cast(rng):
        item = _object(kind, colour, rng)
        for _ in range(40):
            away, angle = float(rng.uniform(1.1, 3.2)), scene.start.yaw + float(rng.uniform(-spread, spread))
            pose = Pose(scene.start.x + away * math.cos(angle), scene.start.y + away * math.sin(angle), _any_yaw(rng))
            candidate = replace(item, pose=pose)
            if _fits(scene, items, candidate):
                items.append(candidate)
                break
    scene = _with_cast(scene, items)
    if float(clearance(scene, np.array([scene.start.x, scene.start.y]))) < ROBOT_RADIUS_M + 0.25:
        raise SceneRejected
    visible = _visible_from_start(scene)
    if scene.scenario == "distractors":
        goals = _goals(scene, visible, None)
        if len(goals) < 3:
            raise SceneRejected
    elif scene.scenario == "hidden":
        goals = tuple(g for g in _goals(scene, _out_of_view(scene), None) if g)
    else:
        goals = _absent_goals(scene, rng)
    if not goals:
        raise SceneRejected
    return replace(scene, goals=goals)


def _manoeuvre_scene(scene: Scene, rng: np.random.Generator) -> Scene:
    scene = replace(
        scene,
        start=Pose(float(rng.uniform(-1.0, 1.0)), float(rng.uniform(-0.8, 0.8)), _any_yaw(rng)),
        goals=(Goal(Mode(scene.scenario)),),
    )
    items: list[PlacedObject] = []
    for kind, colour in _cast(rng):
        away, angle = float(rng.uniform(1.2, 3.0)), _any_yaw(rng)
        pose = Pose(scene.start.x + away * math.cos(angle), scene.start.y + away * math.sin(angle), _any_yaw(rng))
        candidate = replace(_object(kind, colour, rng), pose=pose)
        if _fits(scene, items, candidate):
            items.append(candidate)
    if not items:
        raise SceneRejected
    if scene.scenario == "stop":
        velocity = (float(rng.uniform(0.0, 0.45)), float(rng.uniform(-0.1, 0.1)), float(rng.uniform(-0.8, 0.8)))
        scene = replace(scene, start_velocity=velocity)
    return replace(scene, objects=tuple(items))


def _cast(rng: np.random.Generator) -> list[tuple[Kind, Colour]]:
    """Two kinds crossed with two colours, and up to two more, in random order."""
    kinds = rng.choice(len(Kind), size=4, replace=False)
    colours = rng.choice(len(Colour), size=4, replace=False)
    all_kinds, all_colours = list(Kind), list(Colour)
    cast = [(all_kinds[k], all_colours[c]) for k in kinds[:2] for c in colours[:2]]
    extra = int(rng.integers(0, 3))
    cast += [(all_kinds[kinds[2 + i]], all_colours[colours[2 + i]]) for i in range(extra)]
    order = rng.permutation(len(cast))
    return [cast[i] for i in order]


def _with_cast(scene: Scene, items: list[PlacedObject]) -> Scene:
    """All four of the crossing found a place, whichever of the others did."""
    kinds, colours = [item.kind for item in items], [item.colour for item in items]
    if sum(kinds.count(item.kind) == colours.count(item.colour) == 2 for item in items) < 4:
        raise SceneRejected
    return replace(scene, objects=tuple(items))


def _object(kind: Kind, colour: Colour, rng: np.random.Generator) -> PlacedObject:
    variant = int(rng.integers(len(VARIANT_SCALES)))
    hue = (HUE_DEG[colour] + float(rng.uniform(-5, 5))) / 360.0 % 1.0
    rgb = colorsys.hsv_to_rgb(hue, float(rng.uniform(0.85, 1.0)), float(rng.uniform(0.82, 1.0)))
    return PlacedObject(kind, colour, Pose(0.0, 0.0, 0.0), variant, rgb, VARIANT_SCALES[variant])


def _fits(scene: Scene, items: list[PlacedObject], item: PlacedObject) -> bool:
    """Room for the robot to stop before it, well apart from everything else, and inside the walls."""
    x, y = item.pose.x, item.pose.y
    away_from_start = math.hypot(x - scene.start.x, y - scene.start.y) - item.radius_m
    point = np.array([x, y])
    others = replace(scene, objects=tuple(items))
    return (
        away_from_start > 0.8
        and float(clearance(others, point)) - item.radius_m > 0.42
        and all(
            abs(wrap_angle(object_bearing(item, scene.start) - object_bearing(other, scene.start))) > 0.10
            for other in items
        )
    )


def _in_view(scene: Scene, index: int) -> bool:
    return abs(object_bearing(scene.objects[index], scene.start)) < _CAMERA_HALF_VIEW_RAD


def _visible_from_start(scene: Scene) -> tuple[int, ...]:
    return tuple(
        i
        for i in range(len(scene.objects))
        if _in_view(scene, i) and sight_fraction(scene, i, scene.start.x, scene.start.y) > 0.5
    )


def _out_of_view(scene: Scene) -> tuple[int, ...]:
    """Outside the picture at the start, and in plain sight once the robot turns to it."""
    return tuple(
        i
        for i, item in enumerate(scene.objects)
        if abs(object_bearing(item, scene.start)) > math.radians(55)
        and sight_fraction(scene, i, scene.start.x, scene.start.y) > 0.75
    )


def _goals(scene: Scene, indices: tuple[int, ...], side: Side | None) -> tuple[Goal, ...]:
    """A goal an object; the colour may go unsaid where there is only one of the kind."""
    goals = []
    for index in indices:
        item = scene.objects[index]
        goals.append(Goal(Mode.GO, Target(item.kind, item.colour), side))
        if len(scene.matching(Target(item.kind))) == 1:
            goals.append(Goal(Mode.GO, Target(item.kind), side))
    return tuple(goals)


def _absent_goals(scene: Scene, rng: np.random.Generator) -> tuple[Goal, ...]:
    """Names that nothing here answers to; near misses (right kind or right colour) among them."""
    here = {(item.kind, item.colour) for item in scene.objects}
    kinds, colours = {kind for kind, _ in here}, {colour for _, colour in here}
    missing = [pair for pair in product(Kind, Colour) if pair not in here]
    near = [(k, c) for k, c in missing if k in kinds or c in colours]
    picks = [near[int(i)] for i in rng.choice(len(near), size=2, replace=False)]
    picks.append(missing[int(rng.integers(len(missing)))])
    return tuple(Goal(Mode.GO, Target(kind, colour)) for kind, colour in picks)


def _loose_box(scene: Scene, rng: np.random.Generator) -> Obstacle:
    away, angle = float(rng.uniform(1.0, 1.8)), _any_yaw(rng)
    pose = Pose(scene.start.x + away * math.cos(angle), scene.start.y + away * math.sin(angle), _any_yaw(rng))
    return Obstacle(
        pose,
        float(rng.uniform(0.12, 0.2)),
        float(rng.uniform(0.12, 0.2)),
        float(rng.uniform(0.2, 0.3)),
        _cardboard(rng),
    )


def _appearance(rng: np.random.Generator) -> Appearance:
    return Appearance(
        floor_texture=int(rng.integers(N_TEXTURES)),
        wall_texture=int(rng.integers(N_TEXTURES)),
        floor_rgb=_muted(rng, 0.35, 0.85),
        wall_rgb=_muted(rng, 0.5, 0.95),
        light_xyz=(float(rng.uniform(-2, 2)), float(rng.uniform(-2, 2)), float(rng.uniform(2.2, 3.2))),
        light_diffuse=float(rng.uniform(0.45, 0.8)),
        light_ambient=float(rng.uniform(0.35, 0.55)),
        light_rgb=(float(rng.uniform(0.92, 1.0)), float(rng.uniform(0.92, 1.0)), float(rng.uniform(0.88, 1.0))),
        camera_height_m=float(rng.uniform(0.205, 0.235)),
        camera_pitch_rad=float(rng.uniform(-0.24, -0.18)),
        camera_fov_rad=float(rng.uniform(1.45, 1.52)),
    )


def _dynamics(rng: np.random.Generator) -> Dynamics:
    gains = rng.uniform(0.93, 1.03, size=3)
    return Dynamics(
        wheel_gains=(float(gains[0]), float(gains[1]), float(gains[2])),
        time_constant_s=float(rng.uniform(0.05, 0.15)),
        latency_s=float(rng.uniform(0.0, 0.1)),
    )


def _muted(rng: np.random.Generator, low: float, high: float) -> tuple[float, float, float]:
    return colorsys.hsv_to_rgb(float(rng.uniform()), float(rng.uniform(0.0, 0.18)), float(rng.uniform(low, high)))


def _cardboard(rng: np.random.Generator) -> tuple[float, float, float]:
    return colorsys.hsv_to_rgb(
        float(rng.uniform(22, 38)) / 360, float(rng.uniform(0.2, 0.45)), float(rng.uniform(0.5, 0.8))
    )


def _any_yaw(rng: np.random.Generator) -> float:
    return float(rng.uniform(-math.pi, math.pi))
