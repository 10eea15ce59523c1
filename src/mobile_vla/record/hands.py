"""The loop that drives a robot by hand, at the contract's rate, below the safety supervisor.

A policy may drive in it as well: a touch of the stick takes the robot from it, and it gets it back by resume alone.
"""

import contextlib
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass

from mobile_vla.core import (
    NS_PER_S,
    ZERO_TWIST,
    ActionContract,
    CameraError,
    Clock,
    ContractMismatchError,
    Frame,
    Grounding,
    Instruction,
    SafetyLatchedError,
    Twist,
)
from mobile_vla.record.drivers import Driver
from mobile_vla.record.pilot import PolicyPilot
from mobile_vla.robot import Base, Camera
from mobile_vla.robot.protocols import Feedback
from mobile_vla.runtime import Tick
from mobile_vla.runtime.decide import VelocityLog
from mobile_vla.runtime.takeover import Hands, Takeover, twist_of
from mobile_vla.safety import Inputs, Reason, SafetyState, Supervisor
from mobile_vla.teleop import Button, Stick, StickState

VELOCITY_LOG_S = 2.0
REST_LIMIT_S = 2.0
BY_HAND = Instruction("by hand")


@dataclass(frozen=True, slots=True)
class HandStep:
    """One control step. ``frame``: a new one, with ``measured_then``, the velocity at its capture; else None, zero."""

    tick: Tick
    stick: StickState
    driver: Driver
    frame: Frame | None
    measured_then: Twist


@dataclass(frozen=True, slots=True)
class _Wish:
    inputs: Inputs
    driver: Driver
    grounding: Grounding | None = None
    inference_ms: float | None = None


class HandLoop:
    """Drives one robot; camera, base and stick are open before and after.

    Each step: read the stick, measure, ask who drives, let the supervisor judge, send, tell ``listener``. The buttons
    for emergency stop, re-arm and resume act here; what cannot be granted is told to ``say`` as one sentence. The rest
    is the listener's. ``run`` ends when ``over`` is set or the camera fails, ramps to rest within a bounded time, and
    then raises what the camera raised. What the base or the listener raise passes through. In every case the last thing
    that the base gets is ``stop()``.

    ContractMismatchError when the camera is slower than the contract.
    """

    def __init__(
        self,
        stick: Stick,
        base: Base,
        supervisor: Supervisor,
        clock: Clock,
        contract: ActionContract,
        camera: Camera | None = None,
        listener: Callable[[HandStep], None] = lambda step: None,
        say: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        if camera is not None and camera.rate_hz < contract.frame_rate_hz:
            raise ContractMismatchError(
                f"camera {camera.name} gives {camera.rate_hz:g} frames a second, recording needs "
                f"{contract.frame_rate_hz:g}: use a faster camera or set its rate_hz"
            )
        self._stick, self._base, self._supervisor, self._clock = stick, base, supervisor, clock
        self._camera, self._listener, self._say = camera, listener, say
        self._period_ns = round(NS_PER_S / contract.rate_hz)
        self.velocities = VelocityLog(math.ceil(VELOCITY_LOG_S * contract.rate_hz))
        self.instruction = BY_HAND
        self._pilot: PolicyPilot | None = None
        self._takeover: Takeover | None = None
        self._reason = Reason.NO_COMMAND
        self._heard_ns: int | None = None
        self._newest: Frame | None = None
        self._failure: CameraError | None = None

    @property
    def supervisor(self) -> Supervisor:
        """Which judges every step."""
        return self._supervisor

    def hand_to(self, pilot: PolicyPilot, instruction: Instruction) -> None:
        """Let the policy drive from the next step on, until the stick is touched."""
        pilot.engage(instruction)
        self._pilot, self._takeover, self.instruction = pilot, Takeover(), instruction

    def take_back(self) -> None:
        """The policy drives no longer."""
        if self._pilot is not None:
            self._pilot.disengage()
        self._pilot = self._takeover = None
        self.instruction = BY_HAND

    def run(self, over: threading.Event) -> None:
        """Drive until ``over``."""
        try:
            next_ns = self._clock.now_ns()
            while True:
                tick = self._step(asked=True)
                if over.is_set() or self._failure is not None:
                    break
                next_ns = self._wait_for_next(next_ns)
            self._come_to_rest(tick, next_ns)
        finally:
            self.take_back()
            self._base.stop()
        if self._failure is not None:
            raise self._failure

    def _step(self, asked: bool) -> Tick:
        """One step; with ``asked`` False the drive is over and zero is wanted, whatever the stick says."""
        stick = self._stick.read()
        if stick.connected:
            self._heard_ns = stick.stamp_ns
        measured = self._base.velocity()
        now_ns = self._clock.now_ns()
        self.velocities.add(now_ns, measured)
        frame = self._read_camera() if asked else None
        self._press(stick, measured)
        now_ns = self._clock.now_ns()
        wish = self._wish(now_ns, stick, measured) if asked else self._nothing()
        safe = self._supervisor.step(now_ns, wish.inputs)
        self._reason = safe.reason
        sent = self._base.send(safe.twist)
        newest = self._newest
        tick = Tick(
            stamp_ns=now_ns,
            state=safe.state,
            reason=safe.reason,
            sentence=safe.sentence,
            wanted=wish.inputs.command,
            twist=sent,
            measured=measured,
            instruction=self.instruction,
            frame=newest,
            frame_age_ns=now_ns - newest.capture_ns if newest else None,
            grounding=wish.grounding,
            inference_ms=wish.inference_ms,
        )
        if asked:
            then = self.velocities.at(frame.capture_ns) if frame else ZERO_TWIST
            self._listener(HandStep(tick, stick, wish.driver, frame, then))
        return tick

    def _press(self, stick: StickState, measured: Twist) -> None:
        if Button.EMERGENCY_STOP in stick.pressed:
            self._supervisor.emergency_stop("the operator pressed the emergency stop")
            return
        try:
            if Button.REARM in stick.pressed:
                self._supervisor.rearm(measured)
            if Button.RESUME in stick.pressed:
                self._supervisor.resume(measured)
                if self._takeover is not None:
                    self._takeover.resume()
        except SafetyLatchedError as error:
            self._say(str(error))

    def _wish(self, now_ns: int, stick: StickState, measured: Twist) -> _Wish:
        if self._pilot is None or self._takeover is None:
            return self._by_hand(stick, measured)
        handover = self._takeover.step(now_ns, stick)
        if handover.let_go is not None:
            self._supervisor.stop(Reason.TAKEN_OVER, f"{handover.let_go}; resume hands back to the policy")
        if handover.hands is Hands.OPERATOR:
            return self._by_hand(stick, measured)
        if handover.hands is Hands.RELEASED:
            return _Wish(self._inputs(None, manual=True, command_ns=self._heard_ns), Driver.NOBODY)
        return self._by_policy(now_ns, self._pilot)

    def _by_hand(self, stick: StickState, measured: Twist) -> _Wish:
        """Zero is asked for while the stick is not touched, so that the first touch moves at once.

        A touch ends the stop of an operator who let go: that stop keeps the policy from driving, not the operator.
        """
        stopped = self._supervisor.state is SafetyState.PROTECTIVE_STOP
        if stick.touched and stopped and self._reason is Reason.TAKEN_OVER:
            with contextlib.suppress(SafetyLatchedError):  # it moves still: at one of the next steps
                self._supervisor.resume(measured)
        wanted = twist_of(stick.twist_share, self._supervisor.limits) if stick.connected else None
        return _Wish(self._inputs(wanted, manual=True, command_ns=self._heard_ns), Driver.OPERATOR)

    def _by_policy(self, now_ns: int, pilot: PolicyPilot) -> _Wish:
        if pilot.failure is not None:
            error = pilot.failure
            self._supervisor.stop(Reason.POLICY_FAILED, f"the policy failed: {type(error).__name__}: {error}")
        plan, view = pilot.plan(now_ns)
        inputs = self._inputs(plan.twist, capture_ns=plan.capture_ns, frame_repeated=view.frame_repeated)
        decision = view.decision
        if decision is None:
            return _Wish(inputs, Driver.POLICY)
        return _Wish(inputs, Driver.POLICY, decision.grounding, decision.inference_ms)

    def _nothing(self) -> _Wish:
        return _Wish(self._inputs(ZERO_TWIST, idle=True), Driver.NOBODY)

    def _inputs(
        self,
        command: Twist | None,
        *,
        manual: bool = False,
        idle: bool = False,
        command_ns: int | None = None,
        capture_ns: int | None = None,
        frame_repeated: bool = False,
    ) -> Inputs:
        return Inputs(
            command,
            capture_ns=capture_ns,
            command_ns=command_ns,
            manual=manual,
            idle=idle,
            frame_repeated=frame_repeated,
            feedback_ns=self._base.feedback_ns if isinstance(self._base, Feedback) else None,
            heartbeat_ns=self._heard_ns,
            commands_received=1 if manual else 0,
        )

    def _read_camera(self) -> Frame | None:
        if self._camera is None:
            return None
        try:
            frame = self._camera.read(0.0)
        except CameraError as error:
            self._failure = error
            self._supervisor.stop(Reason.CAMERA_FAILED, f"the camera failed: {error}")
            return None
        if frame is None:
            return None
        if frame.clock != self._clock.name:
            raise ContractMismatchError(
                f"camera {frame.camera} stamps its frames on clock {frame.clock!r}, the loop runs on "
                f"{self._clock.name!r}: the age of a frame cannot be known; give both the same clock"
            )
        self._newest = frame
        if self._pilot is not None:
            self._pilot.offer(frame)
        return frame

    def _wait_for_next(self, last_ns: int) -> int:
        """Sleep until a period after ``last_ns``; periods that passed meanwhile are left out, never caught up."""
        missed = max(0, self._clock.now_ns() - last_ns - 1) // self._period_ns
        next_ns = last_ns + (missed + 1) * self._period_ns
        self._clock.sleep_until(next_ns)
        return next_ns

    def _come_to_rest(self, tick: Tick, next_ns: int) -> None:
        stands = self._supervisor.config.standstill.holds
        limit_s = self._supervisor.limits.ramp_time_s + REST_LIMIT_S
        for _ in range(math.ceil(limit_s * NS_PER_S / self._period_ns) + 2):
            if stands(tick.twist) and stands(tick.measured):
                return
            next_ns = self._wait_for_next(next_ns)
            tick = self._step(asked=False)
