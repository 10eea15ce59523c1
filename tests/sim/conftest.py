import pytest

from mobile_vla.core import Colour, Goal, Kind, Mode
from mobile_vla.sim.scene import RGB, Appearance, Dynamics, Obstacle, PlacedObject, Pose, Scene
from mobile_vla.sim.shapes import VARIANT_SCALES
from mobile_vla.sim.world import World

RGBS: dict[Colour, RGB] = {
    Colour.RED: (0.85, 0.08, 0.08),
    Colour.ORANGE: (0.95, 0.45, 0.05),
    Colour.YELLOW: (0.95, 0.85, 0.10),
    Colour.GREEN: (0.10, 0.65, 0.15),
    Colour.BLUE: (0.10, 0.20, 0.85),
    Colour.PURPLE: (0.50, 0.10, 0.65),
}
ORIGIN = Pose(0.0, 0.0, 0.0)


def thing(kind: Kind, colour: Colour, x: float, y: float, yaw: float = 0.3, variant: int = 1) -> PlacedObject:
    return PlacedObject(kind, colour, Pose(x, y, yaw), variant, RGBS[colour], VARIANT_SCALES[variant])


def carton(x: float, y: float, half_x: float = 0.2, half_y: float = 0.3, height: float = 0.5) -> Obstacle:
    return Obstacle(Pose(x, y, 0.0), half_x, half_y, height, (0.75, 0.58, 0.38))


def plain_scene(
    objects: tuple[PlacedObject, ...] = (),
    obstacles: tuple[Obstacle, ...] = (),
    start: Pose = ORIGIN,
    floor: int = 0,
    wall: int = 0,
    half: tuple[float, float] = (3.0, 2.5),
    velocity: tuple[float, float, float] = (0.0, 0.0, 0.0),
    dynamics: Dynamics | None = None,
) -> Scene:
    look = Appearance(floor, wall, (0.62, 0.55, 0.48), (0.75, 0.75, 0.70), (0.3, 0.2, 2.2), 0.6, 0.4, (1.0, 1.0, 1.0))
    goals = (Goal(Mode.STOP),)
    return Scene("test", 0, *half, objects, obstacles, start, velocity, goals, look, dynamics or Dynamics())


def busy_scene(floor: int = 3, wall: int = 4) -> Scene:
    colours = list(Colour)
    objects = tuple(
        thing(kind, colours[i % 6], 1.0 + 0.22 * i, 0.75 * (-1) ** i, variant=i % 3) for i, kind in enumerate(Kind)
    )
    return plain_scene(objects, (carton(2.0, 0.0),), floor=floor, wall=wall)


@pytest.fixture(scope="session")
def _world() -> World:
    return World()


@pytest.fixture
def world(_world: World) -> World:
    """One planar world for all tests: loading a scene leaves nothing of the one before."""
    _world.load(plain_scene())
    return _world


@pytest.fixture(scope="session")
def ray_world() -> World:
    return World(renderer="rays")
