"""Which side an obstacle was passed on: the definition shared by the expert, the judge and the reports."""

import math
from dataclasses import dataclass

from mobile_vla.core import Side
from mobile_vla.sim.scene import Scene


@dataclass(frozen=True, slots=True)
class Gate:
    """The line through an obstacle's centre across the way from the start. ``left`` is the unit vector along it."""

    x: float
    y: float
    ahead: tuple[float, float]
    left: tuple[float, float]

    def coordinates(self, x: float, y: float) -> tuple[float, float]:
        """A world point as (ahead of the line, left of the obstacle's centre), metres."""
        dx, dy = x - self.x, y - self.y
        return dx * self.ahead[0] + dy * self.ahead[1], dx * self.left[0] + dy * self.left[1]


def gates(scene: Scene) -> tuple[Gate, ...]:
    """One gate an obstacle, all across the direction from the start to the middle of the obstacles."""
    if not scene.obstacles:
        return ()
    middle_x = sum(o.pose.x for o in scene.obstacles) / len(scene.obstacles)
    middle_y = sum(o.pose.y for o in scene.obstacles) / len(scene.obstacles)
    distance = math.hypot(middle_x - scene.start.x, middle_y - scene.start.y)
    ahead = ((middle_x - scene.start.x) / distance, (middle_y - scene.start.y) / distance)
    return tuple(Gate(o.pose.x, o.pose.y, ahead, (-ahead[1], ahead[0])) for o in scene.obstacles)


class RouteTracker:
    """Follows a drive and notes on which side each gate was crossed."""

    def __init__(self, scene: Scene) -> None:
        self._gates = gates(scene)
        self._previous = [gate.coordinates(scene.start.x, scene.start.y) for gate in self._gates]
        self._sides: list[list[Side]] = [[] for _ in self._gates]

    def move(self, x: float, y: float) -> None:
        """The robot is now at (x, y)."""
        for index, gate in enumerate(self._gates):
            ahead, left = gate.coordinates(x, y)
            previous_ahead, previous_left = self._previous[index]
            if (previous_ahead < 0.0) != (ahead < 0.0):
                at_line = previous_left + (left - previous_left) * previous_ahead / (previous_ahead - ahead)
                self._sides[index].append(Side.LEFT if at_line > 0.0 else Side.RIGHT)
            self._previous[index] = (ahead, left)

    @property
    def side(self) -> Side | None:
        """The side on which every gate was crossed; None while a gate is not, or where the sides differ."""
        crossed = {side for sides in self._sides for side in sides}
        return crossed.pop() if len(crossed) == 1 and all(self._sides) else None

    def obeys(self, side: Side) -> bool:
        """Every obstacle was passed, and only on this side."""
        return self.side is side
