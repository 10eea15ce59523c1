"""What the settings and commands of every base are checked for."""

import math
from typing import Any

from mobile_vla.core import ConfigError, Twist
from mobile_vla.robot.protocols import Base


def require_positive(kind: str, settings: Any, *names: str) -> None:
    """ConfigError for a setting that is not above zero and finite."""
    for name in names:
        value = getattr(settings, name)
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{name} of the base {kind} is {value}; it needs to be above zero and finite")


def require_finite(base: Base, twist: Twist) -> None:
    """ValueError for a twist that is not finite, after a stop of the base."""
    if not twist.is_finite:
        base.stop()
        raise ValueError(f"the base cannot move at {twist}: every component must be finite")
