"""A policy beside the control loop: it thinks in a thread of its own and is asked for what it wants now."""

import logging
import threading

from mobile_vla.core import ActionContract, Clock, Frame, Instruction, Policy
from mobile_vla.runtime import ChunkQueue, Plan
from mobile_vla.runtime.decide import Decider, Mailbox, VelocityLog, View
from mobile_vla.safety import FrameWatch

_TAKE_S, _JOIN_S = 0.2, 5.0
_log = logging.getLogger(__name__)


class PolicyPilot:
    """Begins idle. Use as a context, or ``start`` and ``close``; the rest belongs to the thread of the control loop.

    A new ``engage`` is a fresh drive of the policy.
    """

    def __init__(self, policy: Policy, clock: Clock, velocities: VelocityLog) -> None:
        self._policy, self._clock, self._velocities = policy, clock, velocities
        self._mailbox = Mailbox()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._drive: tuple[Decider, ChunkQueue] | None = None
        self._failed: Exception | None = None

    @property
    def contract(self) -> ActionContract:
        """Of the policy."""
        return self._policy.contract

    @property
    def engaged(self) -> bool:
        """It has an instruction to follow."""
        return self._drive is not None

    @property
    def failure(self) -> Exception | None:
        """What the policy raised since it was engaged."""
        return self._failed

    def start(self) -> None:
        """Begin the thread."""
        self._thread = threading.Thread(target=self._run, name="record-policy", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread; one that is busy with a step for longer than a few seconds is left to itself."""
        self._drive = None
        self._over.set()
        if self._thread is not None:
            self._thread.join(_JOIN_S)
            if self._thread.is_alive():
                _log.warning("the policy did not end its step within %g s", _JOIN_S)

    def engage(self, instruction: Instruction) -> None:
        """Follow ``instruction``, with a fresh state of the policy."""
        queue = ChunkQueue()
        decider = Decider(
            self._policy,
            instruction,
            queue,
            self._velocities,
            FrameWatch(),
            clock=self._clock.name,
        )
        self._failed = None
        self._drive = (decider, queue)

    def disengage(self) -> None:
        """Follow nothing; a step under way is thrown away."""
        self._drive = None

    def offer(self, frame: Frame) -> None:
        """The newest frame."""
        if self._drive is not None:
            self._mailbox.put(frame)

    def plan(self, now_ns: int) -> tuple[Plan, View]:
        """What it wants now and why. RuntimeError when it is not engaged."""
        if self._drive is None:
            raise RuntimeError("the policy follows no instruction: engage it first")
        decider, queue = self._drive
        return queue.plan(now_ns), decider.view()

    def _run(self) -> None:
        while not self._over.is_set():
            frame = self._mailbox.take(_TAKE_S)
            drive = self._drive
            if frame is None or drive is None:
                continue
            try:
                drive[0].consider(frame)
            except Exception as error:
                _log.exception("the policy failed")
                if self._drive is drive:
                    self._failed = error
