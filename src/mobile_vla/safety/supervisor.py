"""The supervisor: the last word on every command before it reaches the base."""

import math
import threading
from dataclasses import dataclass

from mobile_vla.core import NS_PER_S, ZERO_TWIST, ConfigError, SafetyLatchedError, Twist
from mobile_vla.core.backports import StrEnum
from mobile_vla.safety.envelope import SHORTEST_STEP_S, Envelope, Limits
from mobile_vla.safety.watchdog import Finding, ObservationWatchdog, Reason


class SafetyState(StrEnum):
    """What the supervisor lets the base do."""

    RUNNING = "running"  # the command, limited
    STALE = "stale"  # ramps to zero: what the robot sees is too old
    STARVED = "starved"  # ramps to zero: there is no command for now
    LATCHED = "latched"  # stops as fast as braking allows, and stays so until re-armed


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
    """``recover_steps``: fresh steps in a row before the robot moves again. ``period_s``: nominal time of a step."""

    stale_after_s: float = 0.5
    future_tolerance_s: float = 0.01
    recover_steps: int = 3
    period_s: float = 0.1
    standstill: Standstill = Standstill()

    def __post_init__(self) -> None:
        if not (math.isfinite(self.stale_after_s) and self.stale_after_s > 0):
            raise ConfigError(f"stale_after_s is {self.stale_after_s}; it needs to be positive and finite")
        if not (math.isfinite(self.future_tolerance_s) and self.future_tolerance_s >= 0):
            raise ConfigError(f"future_tolerance_s is {self.future_tolerance_s}; it needs to be at least 0 and finite")
        if self.recover_steps < 1:
            raise ConfigError(f"recover_steps is {self.recover_steps}; it needs to be at least 1")
        if not SHORTEST_STEP_S <= self.period_s < math.inf:
            raise ConfigError(f"period_s is {self.period_s}; it needs to be finite and at least {SHORTEST_STEP_S}")


@dataclass(frozen=True, slots=True)
class SafeCommand:
    """What to send to the base, and why; ``sentence`` is for people and holds the figures."""

    twist: Twist
    state: SafetyState
    reason: Reason
    sentence: str


LATCHING = frozenset(
    {
        Reason.NON_FINITE_COMMAND,
        Reason.FRAME_IN_THE_FUTURE,
        Reason.EMERGENCY_STOP,
        Reason.POLICY_FAILED,
        Reason.CAMERA_FAILED,
    }
)
"""Reasons that stop the robot until somebody re-arms it."""


class Supervisor:
    """Judges each step and passes the outcome through the envelope. Begins STARVED, at rest.

    Checked in this order: a latched or requested stop, a non-finite command, a frame from the future (these latch); a
    clock that stands still or goes back, a frame missing or too old (STALE); no command (STARVED). STALE and STARVED
    end after ``recover_steps`` steps in a row with none of these, of which the last one moves. LATCHED ends by
    ``rearm`` alone, and then the state is STARVED.

    ``step`` belongs to one thread; ``stop`` and ``emergency_stop`` may be called from any.
    """

    def __init__(self, limits: Limits | None = None, config: SafetyConfig | None = None) -> None:
        self.config = config or SafetyConfig()
        self._envelope = Envelope(limits or Limits())
        self._observation = ObservationWatchdog(self.config.stale_after_s, self.config.future_tolerance_s)
        self._lock = threading.Lock()
        self._latched: Finding | None = None
        self._button_pressed = False
        self._state = SafetyState.STARVED
        self._fresh_steps = 0
        self._last_ns: int | None = None

    @property
    def limits(self) -> Limits:
        """What the envelope keeps."""
        return self._envelope.limits

    @property
    def state(self) -> SafetyState:
        """As of the last step; LATCHED as soon as a stop is requested."""
        return SafetyState.LATCHED if self._latched is not None else self._state

    def step(
        self,
        now_ns: int,
        command: Twist | None,
        observation_capture_ns: int | None,
        *,
        emergency_stop: bool = False,
        frame_repeated: bool = False,
    ) -> SafeCommand:
        """What the base may do now. Call it once a period, whether or not there is a command.

        ``command``: what the policy wants for now, None when it wants nothing. ``observation_capture_ns``: when the
        frame behind the command was captured, None before the first, on the same clock as ``now_ns``.
        ``emergency_stop``: the button is pressed. ``frame_repeated``: since that frame the camera gave only repeats.
        """
        with self._lock:
            dt_s, clock_fault = self._elapsed(now_ns)
            self._button_pressed = emergency_stop
            if emergency_stop:
                self._latch(Finding(Reason.EMERGENCY_STOP, "the emergency stop is pressed"))
            finding = (
                self._latched
                or self._judge_command(command)
                or self._judge_observation(now_ns, observation_capture_ns, frame_repeated, clock_fault)
                or (Finding(Reason.NO_COMMAND, "there is no command for now") if command is None else None)
            )
            if finding is not None and finding.reason in LATCHING:
                self._latch(finding)
            return self._act(command, finding, dt_s)

    def emergency_stop(self) -> None:
        """Stop and latch at the next step; from any thread."""
        self.stop(Reason.EMERGENCY_STOP, "an emergency stop was asked for")

    def stop(self, reason: Reason, sentence: str) -> None:
        """Stop and latch at the next step, for a reason that latches; from any thread. The first reason stays."""
        if reason not in LATCHING:
            raise ValueError(f"{reason} does not latch; one of {sorted(LATCHING)} does")
        with self._lock:
            self._latch(Finding(reason, sentence))

    def rearm(self, measured: Twist) -> None:
        """Undo a latched stop; the robot then waits for fresh data as after a start.

        ``measured``: the velocity of the base now. SafetyLatchedError while the base moves, while the supervisor is
        still braking, or while the emergency stop is pressed. Does nothing when no stop is latched.
        """
        with self._lock:
            if self._latched is None:
                return
            because = f"stopped because {self._latched.sentence}"
            if self._button_pressed:
                raise SafetyLatchedError(f"{because}: release the emergency stop, then re-arm")
            if self._envelope.velocity != ZERO_TWIST:
                raise SafetyLatchedError(f"{because}: still braking; keep stepping until the robot stands, then re-arm")
            if not self.config.standstill.holds(measured):
                raise SafetyLatchedError(f"{because}: the base still moves ({measured}); wait until it stands")
            self._latched = None
            self._state = SafetyState.STARVED
            self._fresh_steps = 0

    def _latch(self, finding: Finding) -> None:
        self._latched = self._latched or finding

    def _elapsed(self, now_ns: int) -> tuple[float, bool]:
        """Seconds since the last step, and whether the clock failed; the nominal period where it did."""
        last_ns, self._last_ns = self._last_ns, now_ns
        if last_ns is None:
            return self.config.period_s, False
        elapsed_s = (now_ns - last_ns) / NS_PER_S
        return (elapsed_s, False) if elapsed_s >= SHORTEST_STEP_S else (self.config.period_s, True)

    def _judge_command(self, command: Twist | None) -> Finding | None:
        if command is None or all(map(math.isfinite, (command.vx, command.vy, command.wz))):
            return None
        return Finding(Reason.NON_FINITE_COMMAND, f"the command {command} is not finite")

    def _judge_observation(
        self, now_ns: int, capture_ns: int | None, repeated: bool, clock_fault: bool
    ) -> Finding | None:
        if clock_fault:
            # The age is not to be believed either, so a frame that seems to come from the future does not latch here.
            return Finding(Reason.CLOCK_NOT_ADVANCING, "the clock stood still or went back since the last step")
        return self._observation.judge(now_ns, capture_ns, repeated)

    def _act(self, command: Twist | None, finding: Finding | None, dt_s: float) -> SafeCommand:
        if finding is None:
            finding = self._recover()
        else:
            self._fresh_steps = 0
            self._state = _state_for(finding.reason)
        wanted = {SafetyState.RUNNING: command, SafetyState.LATCHED: None}.get(self._state, ZERO_TWIST)
        return SafeCommand(self._envelope.step(wanted, dt_s), self._state, finding.reason, finding.sentence)

    def _recover(self) -> Finding:
        """Nothing is wrong in this step: count it, and run when enough of them came in a row."""
        self._fresh_steps = min(self._fresh_steps + 1, self.config.recover_steps)
        if self._state is SafetyState.RUNNING or self._fresh_steps == self.config.recover_steps:
            self._state = SafetyState.RUNNING
            return Finding(Reason.DRIVING, "driving")
        counts = f"{self._fresh_steps} of {self.config.recover_steps}"
        return Finding(Reason.RECOVERING, f"waiting for fresh data in a row: {counts} steps")


def _state_for(reason: Reason) -> SafetyState:
    if reason in LATCHING:
        return SafetyState.LATCHED
    return SafetyState.STARVED if reason is Reason.NO_COMMAND else SafetyState.STALE
