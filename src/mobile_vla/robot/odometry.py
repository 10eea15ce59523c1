"""Dead reckoning: where a base is when it has moved so. Frames after REP-105: ``odom`` is where it began."""

import math
from dataclasses import dataclass

from typing_extensions import Self

from mobile_vla.core import Twist

_SMALL_TURN_RAD = 1e-4


@dataclass(frozen=True, slots=True)
class Pose:
    """A place on the floor and a direction: ``x`` and ``y`` in m, ``yaw`` in rad within -pi..pi, REP-103."""

    x: float = 0.0
    y: float = 0.0
    yaw: float = 0.0

    def after(self, moved: Twist) -> Self:
        """The pose after a displacement in m, m, rad that was made at one constant velocity.

        Exact: the base moved on an arc, the exponential of SE(2) (Lynch and Park, Modern Robotics, 13.4).
        """
        turn = moved.wz
        if abs(turn) < _SMALL_TURN_RAD:  # the series, good to 1e-17 of the way; the quotients lose digits
            along, across = 1.0 - turn * turn / 6.0, turn / 2.0 - turn**3 / 24.0
        else:
            along, across = math.sin(turn) / turn, (1.0 - math.cos(turn)) / turn
        return self.at(type(self)(along * moved.vx - across * moved.vy, across * moved.vx + along * moved.vy, turn))

    def at(self, other: "Pose") -> Self:
        """The pose that ``other``, given in the frame of this one, has where this one is given."""
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        return type(self)(
            self.x + c * other.x - s * other.y,
            self.y + s * other.x + c * other.y,
            math.remainder(self.yaw + other.yaw, math.tau),
        )

    def inverse(self) -> Self:
        """The pose of the frame in which this one is given, seen from this one."""
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        return type(self)(-c * self.x - s * self.y, s * self.x - c * self.y, math.remainder(-self.yaw, math.tau))


def moved(twist: Twist, seconds: float) -> Twist:
    """The displacement in m, m, rad of a base that keeps ``twist`` for so long; for ``Pose.after``."""
    return Twist(twist.vx * seconds, twist.vy * seconds, twist.wz * seconds)
