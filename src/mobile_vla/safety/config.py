"""The settings of the supervisor."""

import math
from dataclasses import dataclass

from mobile_vla.core import ConfigError, Twist
from mobile_vla.safety.clearance import ClearanceConfig
from mobile_vla.safety.envelope import SHORTEST_STEP_S


@dataclass(frozen=True, slots=True)
class Standstill:
    """When a measured velocity counts as standing: linear in m/s, angular in rad/s."""

    linear_mps: float = 0.01
    angular_radps: float = 0.02

    def holds(self, measured: Twist) -> bool:
        """The base stands; False for a velocity that is not finite."""
        return math.hypot(measured.vx, measured.vy) <= self.linear_mps and abs(measured.wz) <= self.angular_radps


@dataclass(frozen=True, slots=True)
class SafetyConfig:
    """The limits of every watchdog; ``docs/safety.md`` says where the defaults come from. ConfigError for nonsense.

    An age is too great when it is more than its limit: ``stale_after_s`` for the observation behind a command,
    ``command_after_s`` for the command stream, ``feedback_after_s`` for the base's measurements, ``heartbeat_after_s``
    for the operator's station (None: not watched). A stamp may lie ``future_tolerance_s`` after now.

    ``recover_steps``: good steps in a row before the robot moves again. ``period_s``: nominal time of a step;
    a step later than ``late_step_s`` after the one before holds. More than ``max_commands_per_s`` within a second are
    a flood. A drive that has not run for ``hold_limit_s`` does not go on by itself. ``clearance``: the stop distance
    from what a range sensor sees, None where there is no such sensor.
    """

    stale_after_s: float = 0.5
    command_after_s: float = 0.5
    feedback_after_s: float = 0.5
    heartbeat_after_s: float | None = None
    future_tolerance_s: float = 0.01
    recover_steps: int = 3
    period_s: float = 0.1
    late_step_s: float = 0.2
    max_commands_per_s: float = 100.0
    hold_limit_s: float = 2.0
    standstill: Standstill = Standstill()
    clearance: ClearanceConfig | None = None

    def __post_init__(self) -> None:
        for name in ("stale_after_s", "command_after_s", "feedback_after_s", "max_commands_per_s", "hold_limit_s"):
            _require_positive(name, getattr(self, name))
        if self.heartbeat_after_s is not None:
            _require_positive("heartbeat_after_s", self.heartbeat_after_s)
        if not 0 <= self.future_tolerance_s < math.inf:
            raise ConfigError(f"future_tolerance_s is {self.future_tolerance_s}; it needs to be at least 0 and finite")
        if self.recover_steps < 1:
            raise ConfigError(f"recover_steps is {self.recover_steps}; it needs to be at least 1")
        if not SHORTEST_STEP_S <= self.period_s < math.inf:
            raise ConfigError(f"period_s is {self.period_s}; it needs to be finite and at least {SHORTEST_STEP_S}")
        if not self.period_s < self.late_step_s < math.inf:
            raise ConfigError(
                f"late_step_s is {self.late_step_s}; it needs to be finite and more than period_s, {self.period_s}, "
                "else every step is late"
            )


def _require_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ConfigError(f"{name} is {value}; it needs to be positive and finite")
