"""A scene: everything that is the case at the start of an episode, as plain values.

Frame ``world``: origin at the middle of the room, x along its length, y to the left of x, metres and radians.
"""

from dataclasses import dataclass

from mobile_vla.core import Colour, Goal, Kind, Target

RGB = tuple[float, float, float]

FOOTPRINT_RADIUS_M: dict[Kind, float] = {
    Kind.CUP: 0.06,
    Kind.BOTTLE: 0.055,
    Kind.BALL: 0.12,
    Kind.BASKET: 0.18,
    Kind.BOX: 0.17,
    Kind.CONE: 0.14,
    Kind.CHAIR: 0.25,
    Kind.PLANT_POT: 0.14,
}
"""Radius of the circle that an object of scale 1 stands in."""

HEIGHT_M: dict[Kind, float] = {
    Kind.CUP: 0.15,
    Kind.BOTTLE: 0.32,
    Kind.BALL: 0.24,
    Kind.BASKET: 0.22,
    Kind.BOX: 0.26,
    Kind.CONE: 0.36,
    Kind.CHAIR: 0.80,
    Kind.PLANT_POT: 0.45,
}
"""Height of an object of scale 1."""

ROBOT_RADIUS_M = 0.17
"""Radius of the hull of the base, a cylinder."""


@dataclass(frozen=True, slots=True)
class Pose:
    """A pose in the plane: metres and radians."""

    x: float
    y: float
    yaw: float


@dataclass(frozen=True, slots=True)
class PlacedObject:
    """A named object. ``variant`` picks one of the built sizes; ``rgb`` is the shade of its colour."""

    kind: Kind
    colour: Colour
    pose: Pose
    variant: int
    rgb: RGB
    scale: float

    @property
    def radius_m(self) -> float:
        """Radius of its footprint."""
        return FOOTPRINT_RADIUS_M[self.kind] * self.scale

    @property
    def height_m(self) -> float:
        """Height above the floor."""
        return HEIGHT_M[self.kind] * self.scale


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A cardboard box to be driven round; ``half_x`` and ``half_y`` along its own axes."""

    pose: Pose
    half_x: float
    half_y: float
    height_m: float
    rgb: RGB


@dataclass(frozen=True, slots=True)
class Appearance:
    """How the room looks and how the camera is mounted; a negative ``camera_pitch_rad`` looks down."""

    floor_texture: int
    wall_texture: int
    floor_rgb: RGB
    wall_rgb: RGB
    light_xyz: tuple[float, float, float]
    light_diffuse: float
    light_ambient: float
    light_rgb: RGB
    camera_height_m: float = 0.22
    camera_pitch_rad: float = -0.21
    camera_fov_rad: float = 1.484  # horizontal


@dataclass(frozen=True, slots=True)
class Dynamics:
    """How the base answers: gain of each wheel (slip), first-order time constant, and delay of commands."""

    wheel_gains: tuple[float, float, float] = (1.0, 1.0, 1.0)
    time_constant_s: float = 0.08
    latency_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Scene:
    """One scene. ``goals`` are the instructions' meanings that can be asked for in it; an episode takes one."""

    scenario: str
    seed: int
    half_x: float
    half_y: float
    objects: tuple[PlacedObject, ...]
    obstacles: tuple[Obstacle, ...]
    start: Pose
    start_velocity: tuple[float, float, float]
    goals: tuple[Goal, ...]
    appearance: Appearance
    dynamics: Dynamics

    def matching(self, target: Target) -> tuple[int, ...]:
        """Indices of the objects that answer to ``target``."""
        return tuple(i for i, item in enumerate(self.objects) if target.matches(item.kind, item.colour))
