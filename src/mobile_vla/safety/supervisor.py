"""The supervisor: the last word on every command before it reaches the base."""

import threading
from collections import deque
from dataclasses import dataclass

from mobile_vla.core import NS_PER_S, ZERO_TWIST, SafetyLatchedError, Twist
from mobile_vla.safety.config import SafetyConfig
from mobile_vla.safety.envelope import SHORTEST_STEP_S, Envelope, Limits
from mobile_vla.safety.judge import Inputs, Judge, Moment
from mobile_vla.safety.states import Event, Finding, Reason, SafetyState, state_after


@dataclass(frozen=True, slots=True)
class SafeCommand:
    """What to send to the base, and why; ``sentence`` is for people and holds the figures."""

    twist: Twist
    state: SafetyState
    reason: Reason
    sentence: str


class Supervisor:
    """Judges each step and passes the outcome through the envelope. Begins HOLDING, at rest.

    In each step every watchdog is asked (``judge.Judge``); the most severe finding wins, and ``states.TRANSITIONS``
    says where it leads. HOLDING ends after ``recover_steps`` steps in a row without a finding, of which the last one
    moves. PROTECTIVE_STOP ends by ``resume`` alone, EMERGENCY_STOP by ``rearm``, which leads to PROTECTIVE_STOP: a
    reset alone never starts motion.

    ``step`` belongs to one thread; everything else may be called from any. ``stop`` and ``emergency_stop`` wait for no
    lock, so that a signal handler may call them too.
    """

    def __init__(self, limits: Limits | None = None, config: SafetyConfig | None = None) -> None:
        self.config = config or SafetyConfig()
        self._envelope = Envelope(limits or Limits())
        self._judge = Judge(self.limits, self.config)
        self._lock = threading.Lock()
        self._asked: deque[Finding] = deque()
        self._state = SafetyState.HOLDING
        self._stop = Finding(Reason.NO_COMMAND, "")  # what led to the present stop; read in a stop alone
        self._button_pressed = False
        self._good_steps = 0
        self._last_ns: int | None = None
        self._not_run_ns: int | None = None  # since the last step that ran; None before it and where it does not count

    @property
    def limits(self) -> Limits:
        """What the envelope keeps."""
        return self._envelope.limits

    @property
    def state(self) -> SafetyState:
        """As of the last step, or of a stop that was asked for since."""
        asked, state = tuple(self._asked), self._state  # in this order: what is off the list has been entered
        for finding in asked:
            state = state_after(state, finding.event)
        return state

    def step(self, now_ns: int, inputs: Inputs) -> SafeCommand:
        """What the base may do now. Call it once a period, whether or not there is a command."""
        with self._lock:
            self._heed()
            elapsed_ns, clock_failed = self._elapsed(now_ns)
            self._button_pressed = inputs.emergency_stop
            self._count_time_without_running(elapsed_ns, inputs.idle)
            finding = self._judge.worst(Moment(now_ns, elapsed_ns, clock_failed, self._not_run_ns), inputs)
            share = 1.0 if finding else self._judge.share(now_ns, inputs, self._envelope.velocity)
            if share == 0:
                finding = Finding(Reason.OBSTACLE, "something is in the way, too near to drive on")
            told = self._stumble(finding) if finding else self._recover(share)
            twist = self._envelope.step(self._wanted(inputs.command, share), elapsed_ns / NS_PER_S)
            return SafeCommand(twist, self._state, told.reason, told.sentence)

    def emergency_stop(self, sentence: str = "an emergency stop was asked for") -> None:
        """Stop at the next step, until ``rearm`` and ``resume``; from any thread."""
        self.stop(Reason.EMERGENCY_STOP, sentence)

    def stop(self, reason: Reason, sentence: str) -> None:
        """Stop at the next step, for a reason that stops; from any thread.

        ``reason.state`` says whether it is a protective or an emergency stop. The first reason of a stop stays, unless
        a protective stop becomes an emergency stop. ValueError for a reason that does not stop.
        """
        if not reason.state.is_stop:
            raise ValueError(f"{reason} does not stop the robot: give one of states.PROTECTIVE or states.EMERGENCIES")
        self._asked.append(Finding(reason, sentence))

    def rearm(self, measured: Twist) -> None:
        """End an emergency stop: a protective stop is left, which waits for ``resume``.

        ``measured``: the velocity of the base now. SafetyLatchedError while the emergency stop is pressed, while the
        supervisor still brakes, or while the base moves. Does nothing without an emergency stop.
        """
        with self._lock:
            self._heed()
            if self._state is not SafetyState.EMERGENCY_STOP:
                return
            if self._button_pressed:
                raise SafetyLatchedError(f"{self._because}: release the emergency stop, then re-arm")
            self._require_rest(measured, "re-arm")
            self._state = state_after(self._state, Event.REARM)
            self._stop = Finding(Reason.REARMED, f"re-armed after a stop ({self._stop.sentence}), waiting for resume")

    def resume(self, measured: Twist) -> None:
        """End a protective stop: the robot then waits for fresh data as after a start.

        ``measured``: the velocity of the base now. SafetyLatchedError in an emergency stop, while the supervisor still
        brakes, or while the base moves. Does nothing without a stop.
        """
        with self._lock:
            self._heed()
            if self._state is SafetyState.EMERGENCY_STOP:
                raise SafetyLatchedError(f"{self._because}: re-arm the emergency stop, then resume")
            if self._state is not SafetyState.PROTECTIVE_STOP:
                return
            self._require_rest(measured, "resume")
            self._state = state_after(self._state, Event.RESUME)
            self._wait_for_fresh_data()

    def begin(self) -> None:
        """Begin a drive that somebody asked for anew, with the base stopped: what was before does not count.

        The robot waits for fresh data as after a start, and the time since the last step is no fault.
        SafetyLatchedError while a stop is in force.
        """
        with self._lock:
            self._heed()
            if self._state.is_stop:
                first = "re-arm, then resume" if self._state is SafetyState.EMERGENCY_STOP else "resume"
                raise SafetyLatchedError(f"{self._because}: find out why, then {first}")
            self._state = state_after(self._state, Event.HOLD)
            self._wait_for_fresh_data()
            self._last_ns = None
            self._envelope = Envelope(self._envelope.limits)

    @property
    def _because(self) -> str:
        return f"stopped because {self._stop.sentence}"

    def _require_rest(self, measured: Twist, action: str) -> None:
        if self._envelope.velocity != ZERO_TWIST:
            raise SafetyLatchedError(
                f"{self._because}: still braking; keep stepping until the robot stands, then {action}"
            )
        if not self.config.standstill.holds(measured):
            raise SafetyLatchedError(
                f"{self._because}: the base still moves ({measured}); wait until it stands, then {action}"
            )

    def _wait_for_fresh_data(self) -> None:
        self._good_steps = 0
        self._not_run_ns = None

    def _elapsed(self, now_ns: int) -> tuple[int, bool]:
        """Nanoseconds since the last step, and whether the clock failed; the nominal period where it did."""
        last_ns, self._last_ns = self._last_ns, now_ns
        period_ns = round(self.config.period_s * NS_PER_S)
        if last_ns is None:
            return period_ns, False
        elapsed_ns = now_ns - last_ns
        return (elapsed_ns, False) if elapsed_ns >= SHORTEST_STEP_S * NS_PER_S else (period_ns, True)

    def _count_time_without_running(self, elapsed_ns: int, idle: bool) -> None:
        if idle:
            self._not_run_ns = None
        elif self._not_run_ns is not None:
            self._not_run_ns += elapsed_ns

    def _heed(self) -> None:
        """Enter the stops that were asked for. Each is taken off after it, so that ``state`` never misses one."""
        while self._asked:
            self._enter(self._asked[0])
            self._asked.popleft()

    def _enter(self, finding: Finding) -> None:
        """Go where ``finding`` leads; what led to a stop is kept."""
        state = state_after(self._state, finding.event)
        if state is not self._state and state.is_stop:
            self._stop = finding
        self._state = state

    def _stumble(self, finding: Finding) -> Finding:
        self._good_steps = 0
        self._enter(finding)
        return self._stop if self._state.is_stop else finding

    def _recover(self, share: float) -> Finding:
        """Nothing is wrong in this step: count it, and run when enough of them came in a row."""
        if self._state.is_stop:
            return self._stop
        self._good_steps = min(self._good_steps + 1, self.config.recover_steps)
        if self._good_steps < self.config.recover_steps:
            counts = f"{self._good_steps} of {self.config.recover_steps}"
            return Finding(Reason.RECOVERING, f"waiting for fresh data in a row: {counts} steps")
        self._state = state_after(self._state, Event.RECOVERED)
        self._not_run_ns = 0
        return Finding(Reason.DRIVING, "driving" if share == 1 else f"driving at {share:.0%}: something is near")

    def _wanted(self, command: Twist | None, share: float) -> Twist | None:
        """What the envelope is asked for; None brakes."""
        if self._state.is_stop:
            return None
        if self._state is SafetyState.HOLDING or command is None:
            return ZERO_TWIST
        fitted = self.limits.fit(command)
        return Twist(fitted.vx * share, fitted.vy * share, fitted.wz * share)
