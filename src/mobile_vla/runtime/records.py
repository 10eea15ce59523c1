"""What a drive tells: one record for every control step, and one at its end."""

from dataclasses import dataclass

from mobile_vla.core import Frame, Grounding, Instruction, Status, Twist
from mobile_vla.core.backports import StrEnum
from mobile_vla.safety import Reason, SafetyState


@dataclass(frozen=True, slots=True)
class Tick:
    """One control step, for displays and recorders.

    ``stamp_ns`` is on the loop's clock. ``wanted`` is the policy's velocity for now, ``twist`` what the base says it
    sent to its motors, ``measured`` its velocity just before. ``frame`` is the newest one the policy decided on under
    this instruction, with its age at ``stamp_ns``, the policy's belief and the time the step took, all None before the
    first. ``inference_ms`` is wall time, whatever the loop's clock is.
    """

    stamp_ns: int
    state: SafetyState
    reason: Reason
    sentence: str
    wanted: Twist | None
    twist: Twist
    measured: Twist
    instruction: Instruction
    frame: Frame | None
    frame_age_ns: int | None
    grounding: Grounding | None
    inference_ms: float | None


class Ending(StrEnum):
    """Why a drive ended."""

    FINISHED = "finished"  # the policy said so and the base stood still
    TIME_LIMIT = "time_limit"
    REQUESTED = "requested"
    STOPPED = "stopped"  # a protective or emergency stop of the supervisor; see Outcome.reason
    POLICY_FAILED = "policy_failed"  # it raised Outcome.error
    CAMERA_FAILED = "camera_failed"  # it raised Outcome.error


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a drive ended. The base was told to stop in every case; ``at_rest`` says whether it was measured to stand.

    ``status`` is the policy's last word, None when it had none. ``reason`` and ``sentence`` are the supervisor's when
    the drive ended, before the robot was brought to rest. ``decisions`` counts steps of the policy that were used.
    """

    ending: Ending
    status: Status | None
    reason: Reason
    sentence: str
    instruction: Instruction
    duration_s: float
    ticks: int
    decisions: int
    at_rest: bool
    error: Exception | None
