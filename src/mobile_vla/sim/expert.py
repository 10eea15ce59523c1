"""The expert: drives any goal from the true state, and answers for any state on the way (DAgger).

Paths come from the fast marching method (scikit-fmm; Sethian 1996): the travel time to the ring on which the robot
should stop, through a room whose speed falls near anything solid and where the forbidden side is walled off.
It acts on what the learner could know: a target not yet seen is searched for, always turning left.
"""

import math
from dataclasses import dataclass

import numpy as np
import skfmm
from numpy.typing import NDArray
from scipy import ndimage

from mobile_vla.core import ZERO_TWIST, ActionContract, Goal, Mode, Side, Status, Twist
from mobile_vla.sim.geometry import clearance, object_bearing, object_distance, wrap_angle
from mobile_vla.sim.route import gates
from mobile_vla.sim.scene import ROBOT_RADIUS_M, Pose, Scene

STOP_DISTANCE_M = 0.36
"""Base centre to the target's nearest surface when the expert stops; success asks for at most 0.5."""
QUARTER_TURN_RAD = math.pi / 2
NUDGE_M = 0.5
"""How far "come closer" and "back up" go."""
SEARCH_TURN_RAD = 2 * math.pi + 0.35
"""The expert calls a target absent after this much turning without seeing it."""
SEEN_FRACTION = 0.3

_CELL_M = 0.05
_CRUISE_MPS = 0.45
_SEARCH_RADPS = 0.8
_SAFE_CLEARANCE_M = ROBOT_RADIUS_M + 0.20
_COMFORT_CLEARANCE_M = ROBOT_RADIUS_M + 0.42


class TravelTime:
    """Travel time to the stopping ring of one target in one scene, on a grid; distances in metres of free driving."""

    def __init__(self, scene: Scene, target: int, side: Side | None) -> None:
        self._half_x, self._half_y = scene.half_x, scene.half_y
        xs = np.arange(-scene.half_x, scene.half_x + _CELL_M / 2, _CELL_M)
        ys = np.arange(-scene.half_y, scene.half_y + _CELL_M / 2, _CELL_M)
        grid = np.stack(np.meshgrid(xs, ys, indexing="ij"), axis=-1)
        item = scene.objects[target]
        ring = np.hypot(grid[..., 0] - item.pose.x, grid[..., 1] - item.pose.y) - (item.radius_m + STOP_DISTANCE_M)
        room = clearance(scene, grid, skip=(target,))
        speed = np.interp(room, [ROBOT_RADIUS_M, _SAFE_CLEARANCE_M, _COMFORT_CLEARANCE_M], [0.02, 0.15, 1.0])
        blocked = np.zeros(ring.shape, dtype=bool)
        if side is not None:
            for gate in gates(scene):
                dx, dy = grid[..., 0] - gate.x, grid[..., 1] - gate.y
                ahead = dx * gate.ahead[0] + dy * gate.ahead[1]
                left = dx * gate.left[0] + dy * gate.left[1]
                blocked |= (np.abs(ahead) < 0.75 * _CELL_M) & ((left < 0) if side is Side.LEFT else (left > 0))
        time = np.ma.asarray(skfmm.travel_time(np.ma.MaskedArray(ring, blocked), speed, dx=_CELL_M))
        unreached = np.ma.getmaskarray(time)
        nearest = ndimage.distance_transform_edt(unreached, return_distances=False, return_indices=True)
        self._time: NDArray[np.float64] = np.asarray(time.filled(0.0))[tuple(nearest)]
        self._grad_x, self._grad_y = np.gradient(self._time, _CELL_M)
        # a wall between two cells must not bend the gradient across it
        near = ndimage.binary_dilation(blocked)
        far_from_wall = ndimage.distance_transform_edt(near, return_distances=False, return_indices=True)
        self._grad_x, self._grad_y = self._grad_x[tuple(far_from_wall)], self._grad_y[tuple(far_from_wall)]

    def _cell(self, x: float, y: float) -> tuple[int, int, float, float]:
        i = min(max((x + self._half_x) / _CELL_M, 0.0), self._time.shape[0] - 1.001)
        j = min(max((y + self._half_y) / _CELL_M, 0.0), self._time.shape[1] - 1.001)
        return int(i), int(j), i - int(i), j - int(j)

    def at(self, x: float, y: float) -> float:
        """Seconds at 1 m/s in the open; zero on the ring."""
        i, j, a, b = self._cell(x, y)
        t = self._time
        return float(
            (1 - a) * ((1 - b) * t[i, j] + b * t[i, j + 1]) + a * ((1 - b) * t[i + 1, j] + b * t[i + 1, j + 1])
        )

    def direction(self, x: float, y: float) -> tuple[float, float]:
        """Unit vector, world frame, along which the travel time falls fastest."""
        i, j, a, b = self._cell(x, y)
        weights = ((1 - a) * (1 - b), (1 - a) * b, a * (1 - b), a * b)
        cells = ((i, j), (i, j + 1), (i + 1, j), (i + 1, j + 1))
        gx = -sum(w * float(self._grad_x[c]) for w, c in zip(weights, cells, strict=True))
        gy = -sum(w * float(self._grad_y[c]) for w, c in zip(weights, cells, strict=True))
        norm = math.hypot(gx, gy)
        return (gx / norm, gy / norm) if norm > 1e-9 else (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Advice:
    """What the expert would do now: velocities float32 (horizon, 3) in physical units, and what it is doing."""

    velocities: NDArray[np.float32]
    status: Status


class Expert:
    """Drives one goal in one scene. Call ``observe`` once a frame, then ask ``advise`` from the pose of that frame."""

    def __init__(self, scene: Scene, goal: Goal, contract: ActionContract) -> None:
        self._scene, self._goal, self._contract = scene, goal, contract
        matching = scene.matching(goal.target) if goal.target else ()
        self.target: int | None = (
            min(matching, key=lambda i: object_distance(scene.objects[i], scene.start.x, scene.start.y))
            if matching
            else None
        )
        self._time = TravelTime(scene, self.target, goal.side) if self.target is not None else None
        self._seen = False
        self._turned_rad = 0.0
        self._last_yaw = scene.start.yaw

    @property
    def shortest_path_m(self) -> float:
        """Length of the way from the start, in metres of free driving; 0 where the goal names no present target."""
        return self._time.at(self._scene.start.x, self._scene.start.y) if self._time else 0.0

    def observe(self, pose: Pose, target_visibility: float) -> None:
        """Take in one frame: where the base is and the share of the target that the camera sees."""
        self._seen |= target_visibility >= SEEN_FRACTION
        self._turned_rad += wrap_angle(pose.yaw - self._last_yaw)
        self._last_yaw = pose.yaw

    def advise(self, pose: Pose) -> Advice:
        """The chunk from ``pose``, by following its own commands ahead, and the status at ``pose``."""
        dt = 1.0 / self._contract.rate_hz
        velocities = np.zeros((self._contract.horizon, 3), dtype=np.float32)
        turned, here = self._turned_rad, pose
        first: Status | None = None
        for row in range(self._contract.horizon):
            twist, status = self._command(here, turned)
            first = first or status
            velocities[row] = twist.vx, twist.vy, twist.wz
            middle = here.yaw + 0.5 * dt * twist.wz
            cos, sin = math.cos(middle), math.sin(middle)
            here = Pose(
                here.x + dt * (cos * twist.vx - sin * twist.vy),
                here.y + dt * (sin * twist.vx + cos * twist.vy),
                here.yaw + dt * twist.wz,
            )
            turned += dt * twist.wz
        return Advice(velocities, first or Status.ARRIVED)

    def _command(self, pose: Pose, turned_rad: float) -> tuple[Twist, Status]:
        match self._goal.mode:
            case Mode.STOP:
                return ZERO_TWIST, Status.ARRIVED
            case Mode.TURN_LEFT | Mode.TURN_RIGHT:
                wanted = QUARTER_TURN_RAD if self._goal.mode is Mode.TURN_LEFT else -QUARTER_TURN_RAD
                return self._turn(wanted - turned_rad)
            case Mode.CLOSER | Mode.BACK:
                return self._nudge(pose, NUDGE_M if self._goal.mode is Mode.CLOSER else -NUDGE_M)
            case Mode.GO:
                return self._go(pose, turned_rad)

    def _turn(self, error_rad: float) -> tuple[Twist, Status]:
        if abs(error_rad) < 0.06:
            return ZERO_TWIST, Status.ARRIVED
        return Twist(0.0, 0.0, _clip(2.0 * error_rad, 1.0)), Status.DRIVING

    def _nudge(self, pose: Pose, wanted_m: float) -> tuple[Twist, Status]:
        start = self._scene.start
        cos, sin = math.cos(start.yaw), math.sin(start.yaw)
        error_x = start.x + cos * wanted_m - pose.x
        error_y = start.y + sin * wanted_m - pose.y
        ahead, left = cos * error_x + sin * error_y, -sin * error_x + cos * error_y
        if abs(ahead) < 0.03:
            return ZERO_TWIST, Status.ARRIVED
        turn = _clip(1.5 * wrap_angle(start.yaw - pose.yaw), 0.5)
        return Twist(_clip(1.5 * ahead, 0.3), _clip(left, 0.15), turn), Status.DRIVING

    def _go(self, pose: Pose, turned_rad: float) -> tuple[Twist, Status]:
        if not self._seen and not self._must_pass(pose):
            if turned_rad >= SEARCH_TURN_RAD:
                return ZERO_TWIST, Status.ABSENT
            return Twist(0.0, 0.0, _SEARCH_RADPS), Status.SEARCHING
        if self._time is None or self.target is None:
            return ZERO_TWIST, Status.ABSENT
        item = self._scene.objects[self.target]
        gap = object_distance(item, pose.x, pose.y) - STOP_DISTANCE_M
        bearing = object_bearing(item, pose)
        remaining = self._time.at(pose.x, pose.y)
        if remaining < 0.25 or abs(gap) < 0.15:  # the last stretch: straight at the target, or straight back from it
            if abs(gap) < 0.05 and abs(bearing) < 0.10:
                return ZERO_TWIST, Status.ARRIVED
            advance = _clip(1.6 * gap, 0.3) if abs(gap) >= 0.03 else 0.0
            twist = Twist(advance * math.cos(bearing), advance * math.sin(bearing), _clip(2.0 * bearing, 1.0))
            return twist, Status.DRIVING
        ahead_x, ahead_y = self._look_ahead(pose, min(0.24, remaining))
        travel = wrap_angle(math.atan2(ahead_y, ahead_x) - pose.yaw)
        # look along the path; near the end, at the target
        share = _clip((0.9 - remaining) / 0.5, 1.0) if remaining < 0.9 else 0.0
        facing = travel + share * wrap_angle(bearing - travel)
        speed = min(_CRUISE_MPS, 0.12 + 0.7 * remaining) * max(0.12, math.cos(0.9 * facing))
        return (
            Twist(speed * math.cos(travel), speed * math.sin(travel), _clip(2.0 * facing, 1.2)),
            Status.DRIVING,
        )

    def _must_pass(self, pose: Pose) -> bool:
        """A side was named and an obstacle still lies ahead: the way is known before the target is seen."""
        return (
            self._time is not None
            and self._goal.side is not None
            and any(gate.coordinates(pose.x, pose.y)[0] < 0.0 for gate in gates(self._scene))
        )

    def _look_ahead(self, pose: Pose, distance_m: float) -> tuple[float, float]:
        assert self._time is not None
        x, y, step = pose.x, pose.y, 0.06
        for _ in range(max(1, round(distance_m / step))):
            dx, dy = self._time.direction(x, y)
            x, y = x + step * dx, y + step * dy
        return x - pose.x, y - pose.y


def _clip(value: float, limit: float) -> float:
    return max(-limit, min(limit, value))
