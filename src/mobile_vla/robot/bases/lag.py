"""A base as a first-order lag: how it moves when it comes up to a wanted velocity with one time constant."""

import math

from mobile_vla.core import NS_PER_S, ZERO_TWIST, Twist
from mobile_vla.robot.odometry import Pose, moved

_STEP_S = 0.02


class Lag:
    """Velocity and pose under the last command; the command ends at its ``until_ns``. Not for several threads.

    The velocity is exact. The pose is that of arcs of at most 20 ms, each at the mean velocity of its time.
    """

    def __init__(self, lag_s: float, now_ns: int) -> None:
        self._lag_s = lag_s
        self._now_ns = self._until_ns = now_ns
        self._wanted = self.velocity = ZERO_TWIST
        self.pose = Pose()

    def want(self, twist: Twist, now_ns: int, until_ns: int) -> None:
        """From now on until then; afterwards zero is wanted."""
        self.play(now_ns)
        self._wanted, self._until_ns = twist, until_ns

    def play(self, now_ns: int) -> None:
        """Move until ``now_ns``; a time that has passed changes nothing."""
        self._move(min(now_ns, self._until_ns))
        if now_ns > self._until_ns:
            self._wanted = ZERO_TWIST
            self._move(now_ns)

    def _move(self, end_ns: int) -> None:
        seconds = (end_ns - self._now_ns) / NS_PER_S
        if seconds <= 0:
            return
        self._now_ns = end_ns
        steps = max(1, math.ceil(min(seconds, 10 * self._lag_s) / _STEP_S))  # after ten lags it moves evenly
        for _ in range(steps - 1):
            self._step(_STEP_S)
        self._step(seconds - (steps - 1) * _STEP_S)

    def _step(self, seconds: float) -> None:
        left = math.exp(-seconds / self._lag_s)
        mean = (1 - left) * self._lag_s / seconds
        before, wanted = self.velocity, self._wanted
        self.pose = self.pose.after(moved(_between(wanted, before, mean), seconds))
        self.velocity = _between(wanted, before, left)


def _between(one: Twist, other: Twist, share: float) -> Twist:
    """``share`` of the other, the rest of the one."""
    return Twist(*(a + (b - a) * share for a, b in ((one.vx, other.vx), (one.vy, other.vy), (one.wz, other.wz))))
