"""The half of the loop that thinks: from a frame to the chunk queue, in whichever thread the loop lets it run."""

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Protocol

from mobile_vla.core import (
    NS_PER_S,
    ZERO_TWIST,
    ActionChunk,
    ContractMismatchError,
    Frame,
    Grounding,
    Instruction,
    Observation,
    Policy,
    Step,
    Twist,
)
from mobile_vla.safety import FrameWatch


class VelocityLog:
    """Measured velocities of the last ``length`` control steps, so that a frame gets the one of its capture."""

    def __init__(self, length: int) -> None:
        self._lock = threading.Lock()
        self._entries: deque[tuple[int, Twist]] = deque(maxlen=length)

    def add(self, stamp_ns: int, velocity: Twist) -> None:
        """Stamps rise from call to call."""
        with self._lock:
            self._entries.append((stamp_ns, velocity))

    def at(self, stamp_ns: int) -> Twist:
        """The last one measured up to ``stamp_ns``, else the oldest kept; zero when there is none."""
        with self._lock:  # a frame is young: what it asks for is among the last few
            for stamp, velocity in reversed(self._entries):
                if stamp <= stamp_ns:
                    return velocity
            return self._entries[0][1] if self._entries else ZERO_TWIST


class Mailbox:
    """One slot: putting a frame in throws an unread one out, so that the taker always gets the newest."""

    def __init__(self) -> None:
        self._filled = threading.Condition()
        self._frame: Frame | None = None

    def put(self, frame: Frame) -> None:
        """Never waits."""
        with self._filled:
            self._frame = frame
            self._filled.notify()

    def take(self, timeout_s: float) -> Frame | None:
        """The newest frame put in since the last take, or None when none comes within ``timeout_s``."""
        with self._filled:
            self._filled.wait_for(lambda: self._frame is not None, timeout_s)
            frame, self._frame = self._frame, None
            return frame


@dataclass(frozen=True, slots=True)
class Decision:
    """The newest step of the policy: what it looked at, what it believed, how long it took in wall time.

    ``measured``: the velocity of the base that it was told.
    """

    frame: Frame
    grounding: Grounding
    inference_ms: float
    measured: Twist


@dataclass(frozen=True, slots=True)
class View:
    """What the control step needs to know of the thinking half, read in one piece."""

    instruction: Instruction
    decision: Decision | None
    frame_repeated: bool


class ChunkSink(Protocol):
    """Where chunks go: the ``ChunkQueue`` of this process, or the way to another one."""

    def offer(self, chunk: ActionChunk) -> bool:
        """Take a chunk; tells whether it was taken."""
        ...

    def clear(self) -> None:
        """What was offered no longer holds."""
        ...


class Decider:
    """Keeps the policy's state for one drive and steps it on frames that are new and due.

    ``consider`` belongs to one thread; ``reset`` and ``view`` may be called from any. A decision under an instruction
    that was replaced while it was being made is thrown away.
    """

    def __init__(
        self,
        policy: Policy,
        instruction: Instruction,
        queue: ChunkSink,
        velocities: VelocityLog,
        watch: FrameWatch,
        *,
        clock: str,
    ) -> None:
        self._policy = policy
        self._queue = queue
        self._velocities = velocities
        self._watch = watch
        self._clock = clock
        self._period_ns = round(NS_PER_S / policy.contract.frame_rate_hz)
        self._lock = threading.Lock()
        self._instruction = instruction
        self._generation = 0
        self._decision: Decision | None = None
        self._frame_repeated = False
        self.decisions = 0
        # What follows is touched by the thread of consider alone.
        self._state: Any = None
        self._state_generation = -1
        self._decided_capture_ns: int | None = None
        self._seen_capture_ns: int | None = None

    def reset(self, instruction: Instruction) -> None:
        """Begin anew under ``instruction``: the chunk of the old one is dropped, the policy gets a fresh state."""
        with self._lock:
            self._instruction = instruction
            self._generation += 1
            self._decision = None
            self._queue.clear()

    def view(self) -> View:
        """What is known now."""
        with self._lock:
            return View(self._instruction, self._decision, self._frame_repeated)

    def consider(self, frame: Frame) -> None:
        """Step the policy on ``frame`` if it is new and its turn has come, and offer the chunk to the queue.

        ContractMismatchError when frame or chunk is not what the contract or the protocol says; whatever the policy
        raises passes through.
        """
        if frame.clock != self._clock:
            raise ContractMismatchError(
                f"camera {frame.camera} stamps its frames on clock {frame.clock!r}, the loop runs on {self._clock!r}: "
                "the age of a frame cannot be known; give both the same clock"
            )
        repeated = self._watch.repeats(frame)
        with self._lock:
            self._frame_repeated = repeated
            instruction, generation = self._instruction, self._generation
        if repeated:
            return
        if generation != self._state_generation:
            self._state = self._policy.reset(instruction)
            self._state_generation = generation
            self._decided_capture_ns = None
        if self._is_due(frame.capture_ns):
            self._decided_capture_ns = frame.capture_ns
            self._decide(frame, generation)

    def _is_due(self, capture_ns: int) -> bool:
        """A frame up to half a camera period early counts as due, else jitter would skip every other one."""
        before_ns, self._seen_capture_ns = self._seen_capture_ns, capture_ns
        if self._decided_capture_ns is None or before_ns is None:
            return True
        camera_period_ns = min(capture_ns - before_ns, self._period_ns)
        return capture_ns - self._decided_capture_ns >= self._period_ns - camera_period_ns / 2

    def _decide(self, frame: Frame, generation: int) -> None:
        observation = Observation(frame, self._velocities.at(frame.capture_ns))
        began_ns = time.perf_counter_ns()
        step = self._policy.step(observation, self._state)
        inference_ms = (time.perf_counter_ns() - began_ns) / 1e6
        self._require_honest(step, frame)
        self._state = step.state
        with self._lock:
            if generation == self._generation:
                self._queue.offer(step.chunk)
                self._decision = Decision(frame, step.grounding, inference_ms, observation.velocity)
                self.decisions += 1

    def _require_honest(self, step: Step, frame: Frame) -> None:
        chunk, contract = step.chunk, self._policy.contract
        if chunk.stamp_ns != frame.capture_ns:
            raise ContractMismatchError(
                f"the policy stamped its chunk {chunk.stamp_ns}, the frame was captured at {frame.capture_ns}: "
                "a chunk carries the capture time of its frame, else its age is hidden"
            )
        if chunk.rate_hz != contract.rate_hz:
            raise ContractMismatchError(
                f"the policy gave a chunk of {chunk.rate_hz} Hz, its contract says {contract.rate_hz} Hz"
            )
