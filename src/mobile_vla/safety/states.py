"""The states of the supervisor, the reasons that lead to them, and the table of ways between them."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from mobile_vla.core.backports import StrEnum


class SafetyState(StrEnum):
    """What the supervisor lets the base do, from the mildest to the most severe."""

    RUNNING = "running"  # the command, limited
    HOLDING = "holding"  # ramps to zero; goes on by itself after enough good steps in a row
    PROTECTIVE_STOP = "protective_stop"  # brakes, and waits for resume()
    EMERGENCY_STOP = "emergency_stop"  # brakes, and waits for rearm(), which leads to PROTECTIVE_STOP

    @property
    def is_stop(self) -> bool:
        """The robot stays stopped until a person acts."""
        return self in (SafetyState.PROTECTIVE_STOP, SafetyState.EMERGENCY_STOP)

    @property
    def severity(self) -> int:
        """0 for RUNNING up to 3 for EMERGENCY_STOP."""
        return tuple(SafetyState).index(self)


class Event(StrEnum):
    """What can change the state."""

    RECOVERED = "recovered"  # enough good steps in a row
    HOLD = "hold"  # a finding whose state is HOLDING, or a new drive
    PROTECT = "protect"  # a finding whose state is PROTECTIVE_STOP
    EMERGENCY = "emergency"  # a finding whose state is EMERGENCY_STOP
    RESUME = "resume"  # resume() was granted
    REARM = "rearm"  # rearm() was granted


TRANSITIONS: Mapping[tuple[SafetyState, Event], SafetyState] = MappingProxyType(
    {
        (SafetyState.HOLDING, Event.RECOVERED): SafetyState.RUNNING,
        (SafetyState.RUNNING, Event.HOLD): SafetyState.HOLDING,
        (SafetyState.RUNNING, Event.PROTECT): SafetyState.PROTECTIVE_STOP,
        (SafetyState.HOLDING, Event.PROTECT): SafetyState.PROTECTIVE_STOP,
        (SafetyState.RUNNING, Event.EMERGENCY): SafetyState.EMERGENCY_STOP,
        (SafetyState.HOLDING, Event.EMERGENCY): SafetyState.EMERGENCY_STOP,
        (SafetyState.PROTECTIVE_STOP, Event.EMERGENCY): SafetyState.EMERGENCY_STOP,
        (SafetyState.EMERGENCY_STOP, Event.REARM): SafetyState.PROTECTIVE_STOP,
        (SafetyState.PROTECTIVE_STOP, Event.RESUME): SafetyState.HOLDING,
    }
)
"""Every change of state that there is. A pair that is not listed leaves the state as it is."""


def state_after(state: SafetyState, event: Event) -> SafetyState:
    """Where ``event`` leads from ``state``, by ``TRANSITIONS``."""
    return TRANSITIONS.get((state, event), state)


class Reason(StrEnum):
    """Why the supervisor does what it does."""

    DRIVING = "driving"
    RECOVERING = "recovering"
    IDLE = "idle"
    NO_FRAME = "no_frame"
    FRAME_TOO_OLD = "frame_too_old"
    FRAME_REPEATED = "frame_repeated"
    NO_COMMAND = "no_command"
    COMMAND_TOO_OLD = "command_too_old"
    CLOCK_NOT_ADVANCING = "clock_not_advancing"
    LOOP_LATE = "loop_late"
    NO_HEARTBEAT = "no_heartbeat"
    RANGE_TOO_OLD = "range_too_old"
    OBSTACLE = "obstacle"
    NON_FINITE_COMMAND = "non_finite_command"
    FRAME_IN_THE_FUTURE = "frame_in_the_future"
    FEEDBACK_LOST = "feedback_lost"
    COMMAND_FLOOD = "command_flood"
    HELD_TOO_LONG = "held_too_long"
    POLICY_FAILED = "policy_failed"
    CAMERA_FAILED = "camera_failed"
    BASE_FAILED = "base_failed"
    NODE_LOST = "node_lost"
    TAKEN_OVER = "taken_over"
    REARMED = "rearmed"
    EMERGENCY_STOP = "emergency_stop"
    HEARTBEAT_LOST = "heartbeat_lost"

    @property
    def state(self) -> SafetyState:
        """The state that it leads to."""
        if self is Reason.DRIVING:
            return SafetyState.RUNNING
        if self in EMERGENCIES:
            return SafetyState.EMERGENCY_STOP
        return SafetyState.PROTECTIVE_STOP if self in PROTECTIVE else SafetyState.HOLDING


EMERGENCIES = frozenset({Reason.EMERGENCY_STOP, Reason.HEARTBEAT_LOST})
"""Reasons of an emergency stop."""

PROTECTIVE = frozenset(
    {
        Reason.NON_FINITE_COMMAND,
        Reason.FRAME_IN_THE_FUTURE,
        Reason.FEEDBACK_LOST,
        Reason.COMMAND_FLOOD,
        Reason.HELD_TOO_LONG,
        Reason.POLICY_FAILED,
        Reason.CAMERA_FAILED,
        Reason.BASE_FAILED,
        Reason.NODE_LOST,
        Reason.TAKEN_OVER,
        Reason.REARMED,
    }
)
"""Reasons of a protective stop. What is in neither set and is not DRIVING holds."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A reason, and the sentence that a person is shown."""

    reason: Reason
    sentence: str

    @property
    def event(self) -> Event:
        """What it means for the state."""
        return _EVENTS[self.reason.state]


_EVENTS = {
    SafetyState.RUNNING: Event.RECOVERED,
    SafetyState.HOLDING: Event.HOLD,
    SafetyState.PROTECTIVE_STOP: Event.PROTECT,
    SafetyState.EMERGENCY_STOP: Event.EMERGENCY,
}
