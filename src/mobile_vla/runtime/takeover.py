"""Takeover: a touch of the stick overrides the policy, and the policy gets the robot back only when it is told so."""

import math
from dataclasses import dataclass

from mobile_vla.core import NS_PER_S, ConfigError, Twist
from mobile_vla.core.backports import StrEnum
from mobile_vla.safety import Limits
from mobile_vla.teleop import Shares, StickState


class Hands(StrEnum):
    """In whose hands the robot is."""

    POLICY = "policy"
    OPERATOR = "operator"
    RELEASED = "released"  # the operator let go: zero, until the stick is touched again or the policy may resume


TRANSITIONS = frozenset(
    {
        (Hands.POLICY, Hands.OPERATOR),  # a touch
        (Hands.OPERATOR, Hands.RELEASED),  # let go, vanished or silent
        (Hands.RELEASED, Hands.OPERATOR),  # a touch
        (Hands.RELEASED, Hands.POLICY),  # resume, and nothing else
    }
)
"""All changes that there are. No way leads from OPERATOR to POLICY at once."""


@dataclass(frozen=True, slots=True)
class Handover:
    """``let_go``: in this step the operator let go, and this sentence says how; else None."""

    hands: Hands
    let_go: str | None = None


class Takeover:
    """Judges the stick once a control step. Begins in the hands of the policy.

    A stick that drives and is gone, or was not heard of for ``silent_after_s``, counts as let go. Whoever keeps the
    robot calls ``Supervisor.stop(Reason.TAKEN_OVER, let_go)`` in the step that lets go, and ``resume`` of both when the
    operator asks for it. ConfigError when ``silent_after_s`` is not positive and finite.
    """

    def __init__(self, silent_after_s: float = 0.5) -> None:
        if not (math.isfinite(silent_after_s) and silent_after_s > 0):
            raise ConfigError(f"silent_after_s is {silent_after_s}; it needs to be positive and finite")
        self._silent_after_ns = round(silent_after_s * NS_PER_S)
        self._hands = Hands.POLICY

    @property
    def hands(self) -> Hands:
        """As of the last step or resume."""
        return self._hands

    def step(self, now_ns: int, stick: StickState) -> Handover:
        """``now_ns`` on the clock of the stick's stamps."""
        silent = now_ns - stick.stamp_ns > self._silent_after_ns
        if stick.touched and stick.connected and not silent:
            self._hands = Hands.OPERATOR
            return Handover(Hands.OPERATOR)
        if self._hands is not Hands.OPERATOR:
            return Handover(self._hands)
        self._hands = Hands.RELEASED
        if not stick.connected:
            return Handover(Hands.RELEASED, "the stick went away while it drove")
        if silent:
            age_s = (now_ns - stick.stamp_ns) / NS_PER_S
            return Handover(Hands.RELEASED, f"the stick fell silent while it drove, {age_s:.2f} s ago")
        return Handover(Hands.RELEASED, "the stick was let go")

    def resume(self) -> None:
        """The policy may drive again; while the operator drives this does nothing."""
        if self._hands is Hands.RELEASED:
            self._hands = Hands.POLICY


def twist_of(shares: Shares, limits: Limits) -> Twist:
    """Shares (x, y, yaw) of -1 to 1 as a velocity within ``limits``; what is too fast is scaled on all axes."""
    vx, vy, wz = (share * limit for share, limit in zip(shares, limits.speed, strict=True))
    return limits.fit(Twist(vx, vy, wz))
