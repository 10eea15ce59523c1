"""What may reach the wheels, and when not: limits, watchdogs, stop states. Imports core alone."""

from mobile_vla.safety.clearance import Clearance, ClearanceConfig
from mobile_vla.safety.config import SafetyConfig, Standstill
from mobile_vla.safety.depth import DepthCamera
from mobile_vla.safety.envelope import SHORTEST_STEP_S, Envelope, Limits
from mobile_vla.safety.judge import Inputs
from mobile_vla.safety.states import Reason, SafetyState
from mobile_vla.safety.supervisor import SafeCommand, Supervisor
from mobile_vla.safety.watchdog import FrameWatch

__all__ = [
    "SHORTEST_STEP_S",
    "Clearance",
    "ClearanceConfig",
    "DepthCamera",
    "Envelope",
    "FrameWatch",
    "Inputs",
    "Limits",
    "Reason",
    "SafeCommand",
    "SafetyConfig",
    "SafetyState",
    "Standstill",
    "Supervisor",
]
