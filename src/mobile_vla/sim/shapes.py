"""What each kind of object is made of: primitive parts, in metres at scale 1, standing on z = 0 at the origin.

Every part lies within the circle of ``FOOTPRINT_RADIUS_M`` and under ``HEIGHT_M``. The role of a part says where its
colour comes from, so that the named colour covers most of what can be seen.
"""

import math
from dataclasses import dataclass

from mobile_vla.core import Kind
from mobile_vla.core.backports import StrEnum
from mobile_vla.sim.scene import RGB

VARIANT_SCALES = (0.88, 1.0, 1.14)
"""Sizes in which every kind exists; ``PlacedObject.variant`` is an index into them."""

Vec3 = tuple[float, float, float]


class Role(StrEnum):
    """Where a part's colour comes from."""

    MAIN = "main"  # the named colour
    SHADE = "shade"  # the named colour, darker: legs, posts, inner sides
    TINT = "tint"  # the named colour mixed with white: tape
    DARK = "dark"
    WHITE = "white"
    LEAF = "leaf"

    def paint(self, rgb: RGB) -> tuple[float, float, float, float]:
        """RGBA of a part of this role on an object of colour ``rgb``."""
        red, green, blue = rgb
        match self:
            case Role.MAIN:
                return (red, green, blue, 1.0)
            case Role.SHADE:
                return (red * 0.72, green * 0.72, blue * 0.72, 1.0)
            case Role.TINT:
                return (0.5 + red * 0.5, 0.5 + green * 0.5, 0.5 + blue * 0.5, 1.0)
            case Role.DARK:
                return (0.10, 0.09, 0.09, 1.0)
            case Role.WHITE:
                return (0.95, 0.95, 0.93, 1.0)
            case Role.LEAF:
                return (0.16, 0.42, 0.14, 1.0)


@dataclass(frozen=True, slots=True)
class Frustum:
    """A cone cut off at both ends, as a mesh: radii at the bottom and the top, and height, at scale 1."""

    name: str
    bottom_m: float
    top_m: float
    height_m: float

    def mesh_name(self, variant: int) -> str:
        """Name of the mesh for one size."""
        return f"{self.name}_{variant}"

    def vertices(self, scale: float, sides: int = 20) -> list[float]:
        """Flat list of x, y, z; the bottom at z = 0."""
        values: list[float] = []
        for radius, z in ((self.bottom_m, 0.0), (self.top_m, self.height_m)):
            for k in range(sides):
                angle = 2 * math.pi * k / sides
                values += [scale * radius * math.cos(angle), scale * radius * math.sin(angle), scale * z]
        return values


CUP_BODY = Frustum("cup_body", 0.035, 0.046, 0.149)
SHOULDER = Frustum("shoulder", 0.053, 0.018, 0.055)
CONE_BODY = Frustum("cone_body", 0.105, 0.018, 0.34)
CONE_BAND = Frustum("cone_band", 0.0715, 0.0545, 0.065)
POT_BODY = Frustum("pot_body", 0.095, 0.132, 0.20)
FRUSTUMS = (CUP_BODY, SHOULDER, CONE_BODY, CONE_BAND, POT_BODY)


@dataclass(frozen=True, slots=True)
class Part:
    """One primitive. ``size`` as MJCF has it (half lengths); ``end`` makes a capsule from ``at`` to ``end``."""

    shape: str
    size: tuple[float, ...]
    at: Vec3
    role: Role = Role.MAIN
    end: Vec3 | None = None
    frustum: Frustum | None = None

    def mjcf(self, variant: int) -> str:
        """The ``<geom>`` of this part on an object of that size."""
        scale = VARIANT_SCALES[variant]
        where = " ".join(f"{scale * value:.6f}" for value in self.at)
        size = " ".join(f"{scale * value:.6f}" for value in self.size)
        if self.frustum is not None:
            return f'<geom type="mesh" mesh="{self.frustum.mesh_name(variant)}" pos="{where}"/>'
        if self.end is not None:
            upto = " ".join(f"{scale * value:.6f}" for value in self.end)
            return f'<geom type="{self.shape}" size="{size}" fromto="{where} {upto}"/>'
        return f'<geom type="{self.shape}" size="{size}" pos="{where}"/>'


def _box(half: Vec3, at: Vec3, role: Role = Role.MAIN) -> Part:
    return Part("box", half, at, role)


def _cylinder(radius: float, bottom: float, top: float, role: Role = Role.MAIN, x: float = 0.0) -> Part:
    return Part("cylinder", (radius, (top - bottom) / 2), (x, 0.0, (top + bottom) / 2), role)


def _bar(radius: float, start: Vec3, end: Vec3, role: Role = Role.MAIN) -> Part:
    return Part("capsule", (radius,), start, role, end=end)


def _frustum(frustum: Frustum, bottom: float, role: Role = Role.MAIN, x: float = 0.0) -> Part:
    return Part("mesh", (), (x, 0.0, bottom), role, frustum=frustum)


def _leaves(half: Vec3, at: Vec3) -> Part:
    return Part("ellipsoid", half, at, Role.LEAF)


def _basket() -> tuple[Part, ...]:
    side, rim, post = 0.118, 0.135, 0.008
    parts = [_box((side, side, 0.008), (0, 0, 0.010), Role.SHADE)]
    for height in (0.052, 0.115):
        for sign in (-1, 1):
            parts.append(_box((0.006, side, 0.021), (sign * side, 0, height)))
            parts.append(_box((side, 0.006, 0.021), (0, sign * side, height)))
    for sign_x in (-1, 1):
        for sign_y in (-1, 1):
            parts.append(_box((post, post, rim / 2), (sign_x * side, sign_y * side, rim / 2), Role.SHADE))
    parts.append(_bar(0.008, (0, -side, rim), (0, -0.06, 0.21)))
    parts.append(_bar(0.008, (0, side, rim), (0, 0.06, 0.21)))
    parts.append(_bar(0.008, (0, -0.06, 0.21), (0, 0.06, 0.21)))
    return tuple(parts)


def _chair() -> tuple[Part, ...]:
    side, seat, top = 0.165, 0.42, 0.80
    parts = [_box((side, side, 0.022), (0, 0, seat))]
    for sign_x in (-1, 1):
        for sign_y in (-1, 1):
            x, y = sign_x * (side - 0.02), sign_y * (side - 0.02)
            parts.append(_box((0.02, 0.02, seat / 2), (x, y, seat / 2)))
    for sign in (-1, 1):
        parts.append(_box((0.018, 0.018, (top - seat) / 2), (-side + 0.02, sign * (side - 0.02), (top + seat) / 2)))
        parts.append(_box((side - 0.02, 0.012, 0.018), (0, sign * (side - 0.02), 0.14), Role.SHADE))
    parts.append(_box((0.014, side - 0.02, 0.11), (-side + 0.02, 0, top - 0.13)))
    return tuple(parts)


PARTS: dict[Kind, tuple[Part, ...]] = {
    Kind.CUP: (
        _frustum(CUP_BODY, 0.0, x=-0.014),
        _cylinder(0.034, 0.120, 0.150, Role.DARK, x=-0.014),
        _bar(0.007, (0.025, 0, 0.120), (0.053, 0, 0.105)),
        _bar(0.007, (0.053, 0, 0.105), (0.053, 0, 0.055)),
        _bar(0.007, (0.053, 0, 0.055), (0.020, 0, 0.035)),
    ),
    Kind.BOTTLE: (
        _cylinder(0.053, 0.0, 0.20),
        _frustum(SHOULDER, 0.20),
        _cylinder(0.018, 0.25, 0.30),
        _cylinder(0.023, 0.288, 0.32, Role.DARK),
    ),
    Kind.BALL: (Part("sphere", (0.12,), (0.0, 0.0, 0.12)),),
    Kind.BASKET: _basket(),
    Kind.BOX: (
        _box((0.119, 0.119, 0.129), (0, 0, 0.129)),
        _box((0.120, 0.020, 0.130), (0, 0, 0.130), Role.TINT),
        _box((0.020, 0.120, 0.130), (0, 0, 0.130), Role.TINT),
    ),
    Kind.CONE: (
        _box((0.098, 0.098, 0.010), (0, 0, 0.010)),
        _frustum(CONE_BODY, 0.020),
        _frustum(CONE_BAND, 0.165, Role.WHITE),
    ),
    Kind.CHAIR: _chair(),
    Kind.PLANT_POT: (
        _frustum(POT_BODY, 0.0),
        _cylinder(0.139, 0.185, 0.225),
        _cylinder(0.105, 0.20, 0.227, Role.DARK),
        _leaves((0.075, 0.075, 0.10), (0.0, 0.0, 0.35)),
        _leaves((0.050, 0.045, 0.075), (0.055, 0.025, 0.30)),
        _leaves((0.045, 0.055, 0.075), (-0.045, 0.07, 0.31)),
        _leaves((0.050, 0.050, 0.070), (-0.03, -0.07, 0.30)),
    ),
}

MAX_PARTS = max(len(parts) for parts in PARTS.values())

SILHOUETTE: dict[Kind, tuple[tuple[float, float], ...]] = {
    Kind.CUP: ((0.75, 0.95), (0.75, 0.05)),
    Kind.BOTTLE: ((0.85, 0.62), (0.85, 0.04), (0.3, 0.92)),
    Kind.BALL: ((0.55, 0.85), (0.9, 0.5), (0.55, 0.15)),
    Kind.BASKET: ((0.66, 0.6), (0.66, 0.06)),
    Kind.BOX: ((0.7, 0.95), (0.7, 0.05)),
    Kind.CONE: ((0.12, 0.95), (0.42, 0.5), (0.65, 0.08)),
    Kind.CHAIR: ((0.58, 0.93), (0.6, 0.53), (0.58, 0.05)),
    Kind.PLANT_POT: ((0.5, 0.9), (0.85, 0.45), (0.65, 0.06)),
}
"""Outline of each kind as (half width / footprint radius, height / full height), for choosing where to look for it."""
