"""What a drive achieved, judged from the true state: the one definition of success, for reports, env and tests."""

import math
from dataclasses import dataclass

from mobile_vla.core import Goal, Mode, Status
from mobile_vla.core.backports import StrEnum
from mobile_vla.sim.expert import NUDGE_M, QUARTER_TURN_RAD
from mobile_vla.sim.geometry import object_bearing, object_distance, to_base, wrap_angle
from mobile_vla.sim.route import RouteTracker
from mobile_vla.sim.scene import Pose, Scene

STOP_WITHIN_M = 0.5
"""Base centre to the target's nearest surface."""
FACING_WITHIN_RAD = math.radians(20)
NUDGE_TOLERANCE_M = 0.2
TURN_TOLERANCE_RAD = math.radians(20)
STAY_WITHIN_M = 0.25
"""How far the base may roll when told to stop, or wander while it turns on the spot."""


class Failure(StrEnum):
    """The first thing that kept a drive from success; NONE is success."""

    NONE = "success"
    TOUCHED = "touched something"
    NOT_ENDED = "did not end in time"
    WRONG_SIDE = "passed on the wrong side"
    WRONG_OBJECT = "stopped at another object"
    TOO_FAR = "stopped too far from the target"
    NOT_FACING = "stopped without facing the target"
    SAID_ABSENT = "said that the target is not here"
    MISSED_ABSENCE = "claimed a target that is not here"
    WRONG_MOTION = "moved otherwise than told"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One drive, judged. Fields that do not apply to its goal are None. Metres, radians, seconds.

    ``right_target``: the object reached at the end (``object_reached``) is one that was named.
    """

    failure: Failure
    touched: str | None
    route_obeyed: bool | None
    right_target: bool | None
    stop_distance_m: float | None
    facing_error_rad: float | None
    path_m: float
    duration_s: float
    end: Pose

    @property
    def success(self) -> bool:
        """Everything as told."""
        return self.failure is Failure.NONE


def object_reached(scene: Scene, pose: Pose) -> int | None:
    """Index of the object at which a robot stands: of those in reach, the one most straight ahead; else the nearest."""
    away = [object_distance(item, pose.x, pose.y) for item in scene.objects]
    in_reach = [index for index, distance in enumerate(away) if distance <= STOP_WITHIN_M]
    if in_reach:
        return min(in_reach, key=lambda index: abs(object_bearing(scene.objects[index], pose)))
    return min(range(len(away)), key=away.__getitem__, default=None)


class Judge:
    """Follows one drive. ``move`` after every control step, ``verdict`` at the end."""

    def __init__(self, scene: Scene, goal: Goal) -> None:
        self._scene, self._goal = scene, goal
        self._route = RouteTracker(scene)
        self._pose = scene.start
        self._turned_rad = 0.0
        self._path_m = 0.0
        self._touched: str | None = None

    @property
    def touched(self) -> str | None:
        """The first thing that was touched."""
        return self._touched

    @property
    def turned_rad(self) -> float:
        """How far the base has turned, left positive, full turns counted."""
        return self._turned_rad

    def move(self, pose: Pose, touching: str | None) -> None:
        """The base is now at ``pose`` and touched ``touching`` on the way."""
        self._path_m += math.hypot(pose.x - self._pose.x, pose.y - self._pose.y)
        self._turned_rad += wrap_angle(pose.yaw - self._pose.yaw)
        self._pose = pose
        self._route.move(pose.x, pose.y)
        self._touched = self._touched or touching

    def verdict(self, status: Status | None, ended: bool, duration_s: float) -> Verdict:
        """``status`` is the policy's last word; ``ended``: it finished by itself, standing, in time."""
        goal, pose = self._goal, self._pose
        target = self._nearest_named()
        side = goal.side if self._scene.obstacles else None  # nothing to pass, nothing to obey
        failure = Failure.TOUCHED if self._touched else Failure.NONE if ended else Failure.NOT_ENDED
        if failure is Failure.NONE:
            failure = self._shortcoming(status)
        return Verdict(
            failure=failure,
            touched=self._touched,
            route_obeyed=None if side is None or target is None else self._route.obeys(side),
            right_target=None if target is None else object_reached(self._scene, pose) in self._named(),
            stop_distance_m=None if target is None else object_distance(self._scene.objects[target], pose.x, pose.y),
            facing_error_rad=None if target is None else abs(object_bearing(self._scene.objects[target], pose)),
            path_m=self._path_m,
            duration_s=duration_s,
            end=pose,
        )

    def _shortcoming(self, status: Status | None) -> Failure:
        match self._goal.mode:
            case Mode.GO:
                return self._go_shortcoming(status)
            case Mode.STOP:
                return Failure.NONE if self._path_m < STAY_WITHIN_M else Failure.WRONG_MOTION
            case Mode.TURN_LEFT | Mode.TURN_RIGHT:
                wanted = QUARTER_TURN_RAD if self._goal.mode is Mode.TURN_LEFT else -QUARTER_TURN_RAD
                turned = abs(self._turned_rad - wanted) < TURN_TOLERANCE_RAD
                ahead, left = to_base(self._scene.start, self._pose.x, self._pose.y)
                return Failure.NONE if turned and math.hypot(ahead, left) < STAY_WITHIN_M else Failure.WRONG_MOTION
            case Mode.CLOSER | Mode.BACK:
                wanted = NUDGE_M if self._goal.mode is Mode.CLOSER else -NUDGE_M
                ahead, left = to_base(self._scene.start, self._pose.x, self._pose.y)
                close = abs(ahead - wanted) < NUDGE_TOLERANCE_M and abs(left) < NUDGE_TOLERANCE_M
                return Failure.NONE if close else Failure.WRONG_MOTION

    def _go_shortcoming(self, status: Status | None) -> Failure:
        target = self._nearest_named()
        if target is None:
            return Failure.NONE if status is Status.ABSENT else Failure.MISSED_ABSENCE
        if status is Status.ABSENT:
            return Failure.SAID_ABSENT
        if self._goal.side is not None and self._scene.obstacles and not self._route.obeys(self._goal.side):
            return Failure.WRONG_SIDE
        if object_reached(self._scene, self._pose) not in self._named():
            return Failure.WRONG_OBJECT
        item = self._scene.objects[target]
        if object_distance(item, self._pose.x, self._pose.y) > STOP_WITHIN_M:
            return Failure.TOO_FAR
        if abs(object_bearing(item, self._pose)) > FACING_WITHIN_RAD:
            return Failure.NOT_FACING
        return Failure.NONE

    def _named(self) -> tuple[int, ...]:
        return self._scene.matching(self._goal.target) if self._goal.target else ()

    def _nearest_named(self) -> int | None:
        return min(self._named(), key=self._distance, default=None)

    def _distance(self, index: int) -> float:
        return object_distance(self._scene.objects[index], self._pose.x, self._pose.y)
