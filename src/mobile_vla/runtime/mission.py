"""From an instruction to its end: what a robot that stays switched on has been told, and how that came out."""

from dataclasses import dataclass

from mobile_vla.core import NS_PER_S, Instruction, Status, Twist
from mobile_vla.runtime.records import Ending
from mobile_vla.safety import SafetyState, Standstill


@dataclass(frozen=True, slots=True)
class MissionConfig:
    """``settle_s``: a final status of the policy has to last so long. ``time_limit_s``: of one instruction."""

    settle_s: float = 0.5
    time_limit_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How an instruction ended. ``status`` is the policy's last word, None when it had none."""

    instruction: Instruction
    ending: Ending
    status: Status | None
    duration_s: float


class Mission:
    """One instruction at a time. A protective stop suspends it, an emergency stop and its own end finish it."""

    def __init__(self, config: MissionConfig | None = None, standstill: Standstill | None = None) -> None:
        self._config, self._standstill = config or MissionConfig(), standstill or Standstill()
        self._instruction: Instruction | None = None
        self._began_ns = 0
        self._final_since_ns: int | None = None
        self._status: Status | None = None
        self.last: Ended | None = None

    @property
    def instruction(self) -> Instruction | None:
        """What is being done; None when nothing is."""
        return self._instruction

    @property
    def began_ns(self) -> int:
        """When the instruction was accepted."""
        return self._began_ns

    def begin(self, instruction: Instruction, now_ns: int) -> None:
        """Follow ``instruction`` from now on; one under way is ended as requested."""
        self.end(Ending.REQUESTED, now_ns)
        self._instruction, self._began_ns = instruction, now_ns
        self._final_since_ns = self._status = None

    def end(self, ending: Ending, now_ns: int) -> None:
        """End what is under way, if anything is."""
        if self._instruction is not None:
            duration_s = (now_ns - self._began_ns) / NS_PER_S
            self.last = Ended(self._instruction, ending, self._status, duration_s)
            self._instruction = None

    def turn(self, now_ns: int, state: SafetyState, status: Status | None, measured: Twist) -> Ended | None:
        """Judge one control step; returns how the instruction ended when it did so in this step."""
        if self._instruction is None:
            return None
        self._status = status or self._status
        final = status is not None and status.is_final and state is SafetyState.RUNNING
        if not final:
            self._final_since_ns = None
        elif self._final_since_ns is None:
            self._final_since_ns = now_ns
        settled = self._final_since_ns is not None and now_ns - self._final_since_ns >= self._config.settle_s * NS_PER_S
        if state is SafetyState.EMERGENCY_STOP:
            self.end(Ending.STOPPED, now_ns)
        elif settled and self._standstill.holds(measured):
            self.end(Ending.FINISHED, now_ns)
        elif now_ns - self._began_ns >= self._config.time_limit_s * NS_PER_S:
            self.end(Ending.TIME_LIMIT, now_ns)
        return self.last if self._instruction is None else None
