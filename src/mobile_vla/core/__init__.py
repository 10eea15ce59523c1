"""The nouns of the house. Imports numpy alone."""

from mobile_vla.core.clock import NS_PER_S, Clock, ManualClock, MonotonicClock
from mobile_vla.core.contract import ActionContract
from mobile_vla.core.errors import (
    BaseError,
    CameraError,
    CheckpointError,
    ConfigError,
    ContractMismatchError,
    DamagedCheckpointError,
    DatasetError,
    InstructionError,
    MobileVLAError,
    SafetyLatchedError,
    TrainingError,
    UnsafeCheckpointError,
)
from mobile_vla.core.goal import Colour, Goal, Kind, Mode, Side, Target
from mobile_vla.core.motion import AXES, ZERO_TWIST, ActionChunk, Twist
from mobile_vla.core.observation import MAX_INSTRUCTION_CHARS, Frame, Instruction, Observation
from mobile_vla.core.policy import Grounding, Policy, Status, Step

__all__ = [
    "AXES",
    "MAX_INSTRUCTION_CHARS",
    "NS_PER_S",
    "ZERO_TWIST",
    "ActionChunk",
    "ActionContract",
    "BaseError",
    "CameraError",
    "CheckpointError",
    "Clock",
    "Colour",
    "ConfigError",
    "ContractMismatchError",
    "DamagedCheckpointError",
    "DatasetError",
    "Frame",
    "Goal",
    "Grounding",
    "Instruction",
    "InstructionError",
    "Kind",
    "ManualClock",
    "MobileVLAError",
    "Mode",
    "MonotonicClock",
    "Observation",
    "Policy",
    "SafetyLatchedError",
    "Side",
    "Status",
    "Step",
    "Target",
    "TrainingError",
    "Twist",
    "UnsafeCheckpointError",
]
