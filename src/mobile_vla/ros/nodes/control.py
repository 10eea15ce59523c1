"""The control node: chunks in, velocities to the base out, with the safety layer between, fifty times a second.

It needs nobody: when inference hangs, is killed, floods it, or the network goes, it brings the robot to rest. What
others send is only noted down by the transport's thread; everything is judged in the control step.
"""

import contextlib
import json
import logging
import threading
from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from mobile_vla.core import (
    NS_PER_S,
    ZERO_TWIST,
    ActionContract,
    BaseError,
    ContractMismatchError,
    Instruction,
    InstructionError,
    MobileVLAError,
    Mode,
    MonotonicClock,
    SafetyLatchedError,
    Twist,
)
from mobile_vla.language import Grammar, parse
from mobile_vla.robot import Base
from mobile_vla.robot.odometry import Pose, moved
from mobile_vla.ros.messages import Level, diagnostics, odometry, string
from mobile_vla.ros.nodes.control_inbox import Arrived, Believed, ControlInbox, Order, Rearm, Resume, Say
from mobile_vla.ros.nodes.health import Diagnoser, Health
from mobile_vla.ros.topics import ACTIVE_INSTRUCTION, ODOM, SAFETY
from mobile_vla.ros.transport import Publisher, Transport
from mobile_vla.ros.wire_time import to_wire
from mobile_vla.runtime.chunks import ChunkQueue
from mobile_vla.runtime.config import RangeConfig
from mobile_vla.runtime.interpreter import QuietInterpreter
from mobile_vla.runtime.kept_base import KeptBase
from mobile_vla.runtime.mission import Mission, MissionConfig
from mobile_vla.runtime.realtime import Precedence, urgent
from mobile_vla.runtime.records import Ending
from mobile_vla.runtime.takeover import Hands, Takeover, twist_of
from mobile_vla.safety import Inputs, Reason, SafeCommand, SafetyState, Supervisor
from mobile_vla.teleop import Button

RATE_HZ = 50.0
SAFETY_PERIOD_NS = NS_PER_S // 10
REST_LIMIT_S = 3.0
STOP_SHOWN_NS = NS_PER_S // 2
"""An instruction to stop stays the one under way at least so long, so that who gave it hears of it."""
PAIR_LIMIT_NS = NS_PER_S // 2

FREE_OF_CONTRACT = ("limits", "rate_hz", "horizon", "frame_rate_hz", "normalisation")
"""Fields in which a policy may differ from this robot: chunks carry velocities in SI units and their own rate."""

REMEDY = {
    SafetyState.PROTECTIVE_STOP: "find out why, then resume",
    SafetyState.EMERGENCY_STOP: "release the emergency stop, re-arm, then resume",
}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Wish:
    """What is wanted for now; fields as in ``safety.Inputs``."""

    command: Twist | None
    capture_ns: int | None
    command_ns: int | None
    manual: bool
    idle: bool


class ControlNode:
    """Owns the safety state and the base.

    An instruction is accepted while the robot may run, and published as the active one. A chunk is used only with the
    belief of the same stamp, made under the active instruction, from a frame captured after that was accepted, by a
    policy whose contract speaks of the same axes. Words that mean "stop" are obeyed without a policy.

    ``publish_odometry`` is False where the base's own driver does so. ``ranges`` as in ``ControlInbox``.
    """

    def __init__(
        self,
        transport: Transport,
        base: Base,
        supervisor: Supervisor,
        mission: MissionConfig | None = None,
        rate_hz: float = RATE_HZ,
        publish_odometry: bool = True,
        ranges: RangeConfig | None = None,
    ) -> None:
        self._clock = MonotonicClock()
        self._supervisor = supervisor
        self._base = KeptBase(base, self._clock, lambda sentence: supervisor.stop(Reason.BASE_FAILED, sentence))
        self._mission = Mission(mission, supervisor.config.standstill)
        self._period_ns = round(NS_PER_S / rate_hz)
        self._queue = ChunkQueue()
        self._pose = Pose()
        self._moved_ns: int | None = None
        self._measured = ZERO_TWIST
        self._unpaired: deque[Arrived] = deque(maxlen=10)
        self._newest: Believed | None = None
        self._command_ns: int | None = None
        self._used_stamp_ns: int | None = None
        self._contract_fits = False
        self._takeover = Takeover()
        self._reason = Reason.IDLE
        self._grammar = Grammar.load()
        self._by_rule = False
        self._refusal = ""
        self._orders = 0
        self._arrivals_ms: deque[float] = deque(maxlen=100)
        self._delays_ms: deque[float] = deque(maxlen=100)
        self._lateness_ms: deque[float] = deque(maxlen=3000)
        self._period_errors_ms: deque[float] = deque(maxlen=3000)
        self._woke_ns: int | None = None
        self._left_out = 0
        self._interpreter = QuietInterpreter()
        self._precedence = Precedence.ORDINARY
        self._safety_due_ns = 0
        self._safety = transport.publisher(SAFETY)
        self._active = transport.publisher(ACTIVE_INSTRUCTION)
        self._odom = transport.publisher(ODOM) if publish_odometry else None
        self._transport = transport
        self._diagnoser = Diagnoser(transport, self._health)
        self._inbox = ControlInbox(transport, supervisor.emergency_stop, ranges or RangeConfig())

    def run(self, stop: threading.Event) -> None:
        """Step until told to stop; then ramp to rest, in bounded time, and let the base go.

        The calling thread takes precedence meanwhile, see ``runtime.realtime``.
        """
        self._active.publish(string(""))
        self._base.open()
        try:
            with urgent() as self._precedence, self._interpreter:
                self._step_until(stop)
        finally:
            self._base.stop()
            self._base.close()

    def emergency_stop(self, sentence: str) -> None:
        """From any thread, and from a signal handler."""
        self._supervisor.emergency_stop(sentence)

    def _step_until(self, stop: threading.Event) -> None:
        next_ns = self._clock.now_ns()
        while not stop.is_set():
            self._turn()
            next_ns = self._wait(next_ns)
        end_ns = self._clock.now_ns() + round(REST_LIMIT_S * NS_PER_S)
        while self._clock.now_ns() < end_ns and not self._stands():
            self._step(self._clock.now_ns(), idle=True)
            next_ns = self._wait(next_ns)

    def _turn(self) -> None:
        self._obey()
        now_ns = self._clock.now_ns()
        safe = self._step(now_ns, idle=self._mission.instruction is None or self._by_rule)
        self._advance(now_ns, safe.state)
        if now_ns >= self._safety_due_ns:
            self._safety_due_ns = now_ns + SAFETY_PERIOD_NS
            self._tell(now_ns, safe)
        self._diagnoser.turn()

    def _step(self, now_ns: int, *, idle: bool) -> SafeCommand:
        self._measured = self._base.velocity()
        signals = self._inbox.signals()
        wish = self._wish(now_ns, idle=idle)
        # a robot that stands and is asked nothing has no drive that lost feedback could stop
        feedback_ns = None if wish.idle and self._stands() else self._base.feedback_ns
        now_ns = self._clock.now_ns()  # after all that is judged was read, or it could lie ahead
        safe = self._supervisor.step(
            now_ns,
            Inputs(
                command=wish.command,
                capture_ns=wish.capture_ns,
                command_ns=wish.command_ns,
                manual=wish.manual,
                idle=wish.idle,
                emergency_stop=signals.pressed,
                feedback_ns=feedback_ns,
                heartbeat_ns=signals.heartbeat_ns,
                commands_received=signals.chunk_count,
                clearance=signals.clearance,
            ),
        )
        self._reason = safe.reason
        self._base.send(safe.twist)
        if wish.capture_ns is not None and wish.capture_ns != self._used_stamp_ns:
            self._used_stamp_ns = wish.capture_ns
            self._delays_ms.append((self._clock.now_ns() - wish.capture_ns) / 1e6)
        if self._odom is not None and self._measured.is_finite:
            self._publish_odometry(self._odom, now_ns)
        return safe

    def _publish_odometry(self, publisher: Publisher, now_ns: int) -> None:
        """As the base sums it, or our own sum where it does not."""
        if self._moved_ns is not None:
            self._pose = self._pose.after(moved(self._measured, (now_ns - self._moved_ns) / NS_PER_S))
        self._moved_ns = now_ns
        pose = self._base.odometry or self._pose
        publisher.publish(odometry(self._measured, (pose.x, pose.y, pose.yaw), to_wire(now_ns)))

    def _wish(self, now_ns: int, *, idle: bool) -> _Wish:
        """Who drives now, and what that one wants."""
        stick = self._inbox.stick.read()
        if Button.EMERGENCY_STOP in stick.pressed:
            self._supervisor.emergency_stop("the operator pressed the emergency stop")
        if Button.REARM in stick.pressed:
            self._carry_out(Rearm())
        if Button.RESUME in stick.pressed:
            self._carry_out(Resume())
        handover = self._takeover.step(now_ns, stick)
        if handover.let_go is not None:
            if self._mission.instruction is None:
                self._takeover.resume()  # there is nothing to hand back to
            else:
                self._supervisor.stop(Reason.TAKEN_OVER, f"{handover.let_go}; resume hands back to the policy")
        if handover.hands is Hands.OPERATOR:
            if self._reason is Reason.TAKEN_OVER and self._supervisor.state is SafetyState.PROTECTIVE_STOP:
                with contextlib.suppress(SafetyLatchedError):  # still moving: at one of the next steps
                    self._supervisor.resume(self._measured)  # the touch asks for it, and a person drives
            wanted = twist_of(stick.twist_share, self._supervisor.limits)
            return _Wish(wanted, None, stick.stamp_ns, manual=True, idle=False)
        if handover.hands is Hands.RELEASED:
            return _Wish(None, None, stick.stamp_ns, manual=True, idle=False)
        plan = self._queue.plan(now_ns)
        return _Wish(plan.twist, plan.capture_ns, self._command_ns, manual=False, idle=idle)

    def _obey(self) -> None:
        """Carry out what came, in this thread."""
        post = self._inbox.empty()
        if post.contract is not None:
            self._judge_contract(post.contract)
        for order in post.orders:
            self._carry_out(order)
        self._unpaired.extend(post.chunks)
        for _ in range(len(self._unpaired)):
            arrived = self._unpaired.popleft()
            belief = post.beliefs.get(arrived.stamp_ns)
            if belief is not None:
                self._take(arrived, belief)
            elif self._clock.now_ns() - arrived.received_ns < PAIR_LIMIT_NS:
                self._unpaired.append(arrived)

    def _carry_out(self, order: Order) -> None:
        self._orders += 1
        try:
            match order:
                case Say(text):
                    self._instruct(text)
                case Rearm() | Resume() if self._base.is_away:
                    raise BaseError("the base is away: see that it is on and connected; it is tried every second")
                case Rearm():
                    self._supervisor.rearm(self._measured)
                case Resume():
                    self._supervisor.resume(self._measured)
                    self._takeover.resume()
            self._refusal = ""
        except MobileVLAError as error:
            self._refusal = str(error)
            _log.warning("refused: %s", error)

    def _take(self, arrived: Arrived, belief: Believed) -> None:
        """A chunk and the belief behind it are complete: use them if they answer the active instruction."""
        instruction = self._mission.instruction
        if instruction is None or not self._contract_fits or belief.text != instruction.text:
            return
        if not np.isfinite(arrived.chunk.velocities).all():
            # now, and not when its row comes: a newer chunk may hide it, and whoever sent it is not to be followed
            self._supervisor.stop(Reason.NON_FINITE_COMMAND, "a chunk holds velocities that are not finite")
            return
        if arrived.chunk.stamp_ns >= self._mission.began_ns and self._queue.offer(arrived.chunk):
            self._newest, self._command_ns = belief, arrived.received_ns
            self._arrivals_ms.append((arrived.received_ns - arrived.chunk.stamp_ns) / 1e6)

    def _instruct(self, text: str) -> None:
        now_ns = self._clock.now_ns()
        if not text.strip():
            self._mission.end(Ending.REQUESTED, now_ns)
        else:
            state = self._supervisor.state
            if state.is_stop:
                raise SafetyLatchedError(f"{text!r} is not begun: the robot is in {state}; {REMEDY[state]}")
            self._mission.begin(Instruction(text), now_ns)
        self._by_rule = text.strip() != "" and self._means_stop(text)
        self._forget()
        self._active.publish(string("" if self._mission.instruction is None or self._by_rule else text))

    def _means_stop(self, text: str) -> bool:
        """Words that the rules read as "stop" are obeyed here, and no policy is asked."""
        try:
            return parse(text, self._grammar).mode is Mode.STOP
        except InstructionError:
            return False

    def _judge_contract(self, text: str) -> None:
        ours = ActionContract()
        try:
            values = json.loads(text)
            theirs = ActionContract.from_dict(values["contract"], "the policy")
            same = replace(ours, **{field: getattr(theirs, field) for field in FREE_OF_CONTRACT})
            same.require_same(theirs, "this robot", f"the policy {values['policy']}")
        except (ContractMismatchError, ValueError, KeyError, TypeError) as error:
            self._contract_fits = False
            self._supervisor.stop(Reason.POLICY_FAILED, f"the policy does not fit this robot: {error}")
            return
        self._contract_fits = True

    def _advance(self, now_ns: int, state: SafetyState) -> None:
        status = self._newest.grounding.status if self._newest is not None else None
        ended = self._mission.turn(now_ns, state, status, self._measured)
        if self._by_rule and self._stands() and now_ns - self._mission.began_ns >= STOP_SHOWN_NS:
            self._by_rule = False
            self._mission.end(Ending.FINISHED, now_ns)
        if ended is not None:
            _log.info("%s: %s, %s", ended.instruction.text, ended.ending, ended.status)
            self._forget()
            self._active.publish(string(""))

    def _forget(self) -> None:
        self._queue.clear()
        self._newest = self._command_ns = None

    def _stands(self) -> bool:
        return self._base.is_away or self._supervisor.config.standstill.holds(self._measured)

    def _wait(self, last_ns: int) -> int:
        """Sleep until a period after ``last_ns``; periods that passed meanwhile are left out, never caught up."""
        now_ns = self._clock.now_ns()
        missed = max(0, now_ns - last_ns - 1) // self._period_ns
        self._left_out += missed
        next_ns = last_ns + (missed + 1) * self._period_ns
        self._interpreter.turn(next_ns - now_ns)
        self._clock.sleep_until(next_ns)
        woke_ns, before_ns = self._clock.now_ns(), self._woke_ns
        self._woke_ns = woke_ns
        self._lateness_ms.append((woke_ns - next_ns) / 1e6)
        if before_ns is not None:
            self._period_errors_ms.append(abs(woke_ns - before_ns - self._period_ns) / 1e6)
        return next_ns

    def _tell(self, now_ns: int, safe: SafeCommand) -> None:
        instruction, last = self._mission.instruction, self._mission.last
        capture_ns = self._queue.plan(now_ns).capture_ns
        values = {
            "state": safe.state,
            "reason": safe.reason,
            "sentence": safe.sentence,
            "instruction": instruction.text if instruction else "",
            "hands": self._takeover.hands,
            "policy_status": self._newest.grounding.status if self._newest else "",
            "last_instruction": last.instruction.text if last else "",
            "last_ending": last.ending if last else "",
            "last_status": (last.status or "") if last else "",
            "orders": str(self._orders),
            "refused": self._refusal,
            "vx_mps": f"{safe.twist.vx:.4f}",
            "vy_mps": f"{safe.twist.vy:.4f}",
            "wz_radps": f"{safe.twist.wz:.4f}",
            "capture_age_ms": _age_ms(now_ns, capture_ns),
            "command_age_ms": _age_ms(now_ns, self._command_ns),
            "inference_ms": f"{self._newest.inference_ms:.1f}" if self._newest else "",
        }
        level = {SafetyState.RUNNING: Level.OK, SafetyState.HOLDING: Level.WARN}.get(safe.state, Level.ERROR)
        if safe.state is SafetyState.HOLDING and instruction is None:
            level = Level.OK
        self._safety.publish(
            diagnostics(level, f"{self._transport.node}/safety", safe.sentence, values, to_wire(now_ns))
        )

    def _health(self) -> Health:
        late, delays = sorted(self._lateness_ms), sorted(self._delays_ms)
        arrivals = sorted(self._arrivals_ms)
        values = {
            "precedence": self._precedence,
            "period_error_p99_ms": _quantile(sorted(self._period_errors_ms), 0.99),
            "late_p50_ms": _quantile(late, 0.5),
            "late_p99_ms": _quantile(late, 0.99),
            "late_max_ms": _quantile(late, 1.0),
            "left_out_steps": self._left_out,
            "capture_to_chunk_p50_ms": _quantile(arrivals, 0.5),
            "capture_to_command_p50_ms": _quantile(delays, 0.5),
            "capture_to_command_max_ms": _quantile(delays, 1.0),
        }
        if self._base.is_away:
            return Health(Level.ERROR, "the base is away", values)
        if self._refusal:
            return Health(Level.WARN, f"refused: {self._refusal}", values)
        state = self._supervisor.state
        return Health(Level.ERROR if state.is_stop else Level.OK, state, values)


def _age_ms(now_ns: int, stamp_ns: int | None) -> str:
    return "" if stamp_ns is None else f"{(now_ns - stamp_ns) / 1e6:.1f}"


def _quantile(ascending: list[float], share: float) -> str:
    return f"{ascending[min(int(share * len(ascending)), len(ascending) - 1)]:.2f}" if ascending else ""
