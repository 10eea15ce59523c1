"""What may reach the wheels, and when not: limits, watchdogs, stop states. Imports core alone."""

from mobile_vla.safety.envelope import SHORTEST_STEP_S, Envelope, Limits
from mobile_vla.safety.supervisor import SafeCommand, SafetyConfig, SafetyState, Standstill, Supervisor
from mobile_vla.safety.watchdog import FrameWatch, Reason

__all__ = [
    "SHORTEST_STEP_S",
    "Envelope",
    "FrameWatch",
    "Limits",
    "Reason",
    "SafeCommand",
    "SafetyConfig",
    "SafetyState",
    "Standstill",
    "Supervisor",
]
