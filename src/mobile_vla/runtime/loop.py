"""The loop that drives: camera -> policy -> chunk queue -> safety -> base, at a fixed rate."""

import logging
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass

from mobile_vla.core import (
    NS_PER_S,
    ZERO_TWIST,
    Clock,
    ConfigError,
    ContractMismatchError,
    Frame,
    Instruction,
    Policy,
)
from mobile_vla.robot import Base, Camera
from mobile_vla.robot.protocols import Feedback
from mobile_vla.runtime.chunks import ChunkQueue
from mobile_vla.runtime.decide import Decider, Mailbox, VelocityLog
from mobile_vla.runtime.interpreter import QuietInterpreter
from mobile_vla.runtime.realtime import show_names, urgent
from mobile_vla.runtime.records import Ending, Outcome, Tick
from mobile_vla.safety import Clearance, FrameWatch, Inputs, Reason, SafetyState, Supervisor

VELOCITY_LOG_S = 2.0
"""How far back measured velocities are kept; a frame older than this is stale long since."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DriveConfig:
    """``settle_s``: how long the policy's status has to be final before the drive is finished.

    ``control_rate_hz``: control steps a second; None is the rate of the policy's contract. ``rest_limit_s``: how long
    the end of a drive waits, after the ramp, for the base to stand. ``camera_timeout_s`` and ``join_limit_s`` hold for
    the threads of ``run_threaded``. ``identical_pixels``: see ``safety.FrameWatch``.
    """

    time_limit_s: float = 60.0
    settle_s: float = 0.5
    control_rate_hz: float | None = None
    rest_limit_s: float = 2.0
    camera_timeout_s: float = 0.2
    join_limit_s: float = 5.0
    identical_pixels: bool = True

    def __post_init__(self) -> None:
        for name in ("time_limit_s", "settle_s", "control_rate_hz", "rest_limit_s", "camera_timeout_s", "join_limit_s"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} is {value}; it needs to be positive and finite")


class _Drive:
    """What belongs to one drive: a thread left over from an earlier one can touch nothing of the next."""

    def __init__(self, decider: Decider, queue: ChunkQueue, velocities: VelocityLog) -> None:
        self.decider = decider
        self.queue = queue
        self.velocities = velocities
        self.stop_requested = threading.Event()
        self.over = threading.Event()
        self.failure: tuple[Ending, Exception] | None = None
        self.use_spare: Callable[[int], None] = lambda spare_ns: None
        self.ticks = 0
        self.settled_steps = 0


class DriveLoop:
    """Drives one robot, one instruction after another; camera and base are open before and after.

    Each control step: measure the velocity of the base, take the row of the newest chunk that is meant for now, let the
    supervisor judge it, send it, tell ``observer``. ``clearance`` gives the newest reading of a range sensor, for a
    supervisor that is to heed one. ``run_blocking`` reads the camera and steps the policy inside the
    control step; ``run_threaded`` does so in two threads beside it, while the calling thread, which does the control
    steps, takes precedence (``realtime.urgent``). The base is used by the control thread alone.

    A drive ends when the policy's status has been final for ``settle_s`` and the base stands, at the time
    limit, on request, when the supervisor stops the robot, or when policy or camera raise, which does so too. It then
    ramps to rest (brakes, in a stop) within a bounded time. What base, clock or observer raise, and KeyboardInterrupt,
    pass through to the caller. In every case the last thing that the base gets is ``stop()``. After a stop of the
    supervisor the next drive is a SafetyLatchedError until its ``resume`` (after an emergency stop, ``rearm`` first).
    """

    def __init__(
        self,
        camera: Camera,
        base: Base,
        policy: Policy,
        supervisor: Supervisor,
        clock: Clock,
        config: DriveConfig | None = None,
        observer: Callable[[Tick], None] | None = None,
        clearance: Callable[[], Clearance | None] | None = None,
    ) -> None:
        if camera.rate_hz < policy.contract.frame_rate_hz:
            raise ContractMismatchError(
                f"camera {camera.name} gives {camera.rate_hz} frames a second, the policy was made for "
                f"{policy.contract.frame_rate_hz}; use a faster camera or a policy for this rate"
            )
        self._camera = camera
        self._base = base
        self._feedback = base if isinstance(base, Feedback) else None  # asked once: to ask takes 10 us
        self._policy = policy
        self._supervisor = supervisor
        self._clock = clock
        self._config = config or DriveConfig()
        self._observer = observer
        self._clearance = clearance
        rate_hz = self._config.control_rate_hz or policy.contract.rate_hz
        self._period_ns = round(NS_PER_S / rate_hz)
        self._settle_steps = max(1, round(self._config.settle_s * rate_hz))
        self._drive: _Drive | None = None
        self._stragglers: list[threading.Thread] = []

    def run_blocking(self, instruction: Instruction) -> Outcome:
        """Drive with the policy inside the control step: with a simulation's clock, the same every time."""
        drive = self._begin(instruction)

        def think() -> None:
            frame = self._read(drive, timeout_s=0.0)
            if frame is not None:
                self._consider(drive, frame)

        return self._run(drive, think)

    def run_threaded(self, instruction: Instruction) -> Outcome:
        """Drive with camera and policy in threads of their own: the control step waits for neither."""
        drive = self._begin(instruction)
        mailbox = Mailbox()
        threads = [
            threading.Thread(target=self._watch, args=(drive, mailbox), name="drive-camera", daemon=True),
            threading.Thread(target=self._infer, args=(drive, mailbox), name="drive-inference", daemon=True),
        ]
        try:
            for thread in threads:
                thread.start()
            show_names(main="drive-control")
            with urgent() as precedence, QuietInterpreter() as interpreter:
                _log.info("precedence of the control thread: %s", precedence)
                drive.use_spare = interpreter.turn
                return self._run(drive, think=lambda: None)
        finally:
            self._close(drive)
            self._join([thread for thread in threads if thread.ident is not None])

    def reset(self, instruction: Instruction) -> None:
        """Follow ``instruction`` from now on, with a fresh state of the policy; from any thread, or the observer.

        The old instruction's motion ends at once: the robot ramps down until the first chunk under the new one.
        RuntimeError when no drive is under way.
        """
        if self._drive is None:
            raise RuntimeError("no drive is under way: give the instruction to run_blocking or run_threaded")
        self._drive.decider.reset(instruction)

    def request_stop(self) -> None:
        """End the drive under way, if any, with a ramp to rest; from any thread, or the observer."""
        drive = self._drive
        if drive is not None:
            drive.stop_requested.set()

    def _begin(self, instruction: Instruction) -> _Drive:
        self._stragglers = [thread for thread in self._stragglers if thread.is_alive()]
        if self._drive is not None or self._stragglers:
            raise RuntimeError("the drive before is still under way, or its camera or policy still busy: wait for it")
        self._supervisor.begin()
        queue = ChunkQueue()
        velocities = VelocityLog(math.ceil(VELOCITY_LOG_S * NS_PER_S / self._period_ns))
        decider = Decider(
            self._policy,
            instruction,
            queue,
            velocities,
            FrameWatch(self._config.identical_pixels),
            clock=self._clock.name,
        )
        self._drive = _Drive(decider, queue, velocities)
        return self._drive

    def _run(self, drive: _Drive, think: Callable[[], None]) -> Outcome:
        try:
            began_ns = next_ns = self._clock.now_ns()
            limit_ns = began_ns + round(self._config.time_limit_s * NS_PER_S)
            while True:
                tick = self._control_step(drive, think)
                ending = self._ending(drive, tick, limit_ns)
                if ending is not None:
                    break
                next_ns = self._wait_for_next(drive, next_ns)
            drive.over.set()
            at_rest = self._come_to_rest(drive, tick, next_ns)
            return self._outcome(drive, ending, tick, began_ns, at_rest)
        finally:
            self._close(drive)
            self._base.stop()

    def _close(self, drive: _Drive) -> None:
        drive.over.set()
        self._drive = None

    def _control_step(self, drive: _Drive, think: Callable[[], None] | None) -> Tick:
        """One step; with ``think`` None the drive is over and zero is wanted, whatever the chunk says."""
        measured = self._base.velocity()
        drive.velocities.add(self._clock.now_ns(), measured)
        if think is not None:
            think()
        view = drive.decider.view()
        feedback_ns = self._feedback.feedback_ns if self._feedback is not None else None
        clearance = self._clearance() if self._clearance is not None else None
        now_ns = self._clock.now_ns()  # after all that is judged was read, or it could lie ahead
        plan = drive.queue.plan(now_ns)
        wanted = ZERO_TWIST if think is None else plan.twist
        inputs = Inputs(
            wanted,
            plan.capture_ns,
            idle=think is None,
            frame_repeated=view.frame_repeated,
            feedback_ns=feedback_ns,
            clearance=clearance,
        )
        safe = self._supervisor.step(now_ns, inputs)
        sent = self._base.send(safe.twist)
        decision = view.decision
        tick = Tick(
            stamp_ns=now_ns,
            state=safe.state,
            reason=safe.reason,
            sentence=safe.sentence,
            wanted=wanted,
            twist=sent,
            measured=measured,
            instruction=view.instruction,
            frame=decision.frame if decision else None,
            frame_age_ns=now_ns - decision.frame.capture_ns if decision else None,
            grounding=decision.grounding if decision else None,
            inference_ms=decision.inference_ms if decision else None,
        )
        drive.ticks += 1
        if self._observer is not None:
            self._observer(tick)
        return tick

    def _wait_for_next(self, drive: _Drive, last_ns: int) -> int:
        """Sleep until a period after ``last_ns``; periods that passed meanwhile are left out, never caught up."""
        now_ns = self._clock.now_ns()
        missed = max(0, now_ns - last_ns - 1) // self._period_ns
        next_ns = last_ns + (missed + 1) * self._period_ns
        drive.use_spare(next_ns - now_ns)
        self._clock.sleep_until(next_ns)
        return next_ns

    def _ending(self, drive: _Drive, tick: Tick, limit_ns: int) -> Ending | None:
        final = tick.grounding is not None and tick.grounding.status.is_final and tick.state is SafetyState.RUNNING
        drive.settled_steps = drive.settled_steps + 1 if final else 0
        if drive.failure is not None:
            return drive.failure[0]
        if tick.state.is_stop:
            return Ending.STOPPED
        if drive.stop_requested.is_set():
            return Ending.REQUESTED
        if drive.settled_steps >= self._settle_steps and self._supervisor.config.standstill.holds(tick.measured):
            return Ending.FINISHED
        return Ending.TIME_LIMIT if tick.stamp_ns >= limit_ns else None

    def _come_to_rest(self, drive: _Drive, tick: Tick, next_ns: int) -> bool:
        """Step with zero wanted until nothing is sent and the base stands, for a bounded number of steps."""
        stands = self._supervisor.config.standstill.holds
        limit_s = self._supervisor.limits.ramp_time_s + self._config.rest_limit_s
        for _ in range(math.ceil(limit_s * NS_PER_S / self._period_ns) + 2):
            if stands(tick.twist) and stands(tick.measured):
                return True
            next_ns = self._wait_for_next(drive, next_ns)
            tick = self._control_step(drive, think=None)
        return stands(tick.twist) and stands(tick.measured)

    def _outcome(self, drive: _Drive, ending: Ending, tick: Tick, began_ns: int, at_rest: bool) -> Outcome:
        view = drive.decider.view()
        return Outcome(
            ending=ending,
            status=view.decision.grounding.status if view.decision else None,
            reason=tick.reason,
            sentence=tick.sentence,
            instruction=view.instruction,
            duration_s=(self._clock.now_ns() - began_ns) / NS_PER_S,
            ticks=drive.ticks,
            decisions=drive.decider.decisions,
            at_rest=at_rest,
            error=drive.failure[1] if drive.failure else None,
        )

    def _watch(self, drive: _Drive, mailbox: Mailbox) -> None:
        while not drive.over.is_set() and drive.failure is None:
            frame = self._read(drive, self._config.camera_timeout_s)
            if frame is not None:
                mailbox.put(frame)
            else:
                drive.over.wait(0.001)  # so that a camera which never waits does not keep the others from running

    def _infer(self, drive: _Drive, mailbox: Mailbox) -> None:
        while not drive.over.is_set() and drive.failure is None:
            frame = mailbox.take(self._config.camera_timeout_s)
            if frame is not None:
                self._consider(drive, frame)

    def _read(self, drive: _Drive, timeout_s: float) -> Frame | None:
        try:
            return self._camera.read(timeout_s)
        except Exception as error:
            self._fail(drive, Ending.CAMERA_FAILED, Reason.CAMERA_FAILED, error)
            return None

    def _consider(self, drive: _Drive, frame: Frame) -> None:
        try:
            drive.decider.consider(frame)
        except Exception as error:
            self._fail(drive, Ending.POLICY_FAILED, Reason.POLICY_FAILED, error)

    def _fail(self, drive: _Drive, ending: Ending, reason: Reason, error: Exception) -> None:
        """Stop and keep the first error for the outcome; after the drive it can only be logged."""
        sentence = f"{reason.replace('_', ' ')}: {type(error).__name__}: {error}"
        _log.error(sentence, exc_info=error)
        if drive.over.is_set():
            return
        drive.failure = drive.failure or (ending, error)
        self._supervisor.stop(reason, sentence)

    def _join(self, threads: list[threading.Thread]) -> None:
        for thread in threads:
            thread.join(self._config.join_limit_s)
        self._stragglers = [thread for thread in threads if thread.is_alive()]
        for thread in self._stragglers:
            _log.warning("%s did not end within %s s after the drive", thread.name, self._config.join_limit_s)
