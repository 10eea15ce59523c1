"""The inference node: frames and the active instruction in, chunks of velocities and the belief behind them out."""

import json
import logging
import statistics
import threading
import time
from collections import deque

from mobile_vla.core import ActionChunk, Instruction, InstructionError, MonotonicClock, Policy
from mobile_vla.ros.messages import (
    Level,
    belief_message,
    chunk_message,
    frame_from_image,
    stamp_ns,
    string,
    twist_from_message,
)
from mobile_vla.ros.nodes.health import Diagnoser, Health
from mobile_vla.ros.topics import ACTIVE_INSTRUCTION, BELIEF, CHUNK, CONTRACT, IMAGE, ODOM
from mobile_vla.ros.transport import Received, Transport
from mobile_vla.ros.wire_time import from_wire
from mobile_vla.runtime.decide import Decider, Mailbox, VelocityLog
from mobile_vla.safety import FrameWatch

CAMERA = "front"
WAIT_S = 0.1
KEPT_STAMPS = 1000
"""Frames whose stamp on the wire is remembered, so that a chunk bears it to the nanosecond: half a minute at 30 Hz."""
VELOCITIES = 200
"""Measured velocities kept: four seconds at 50 Hz."""

_log = logging.getLogger(__name__)


class _Outbox:
    """Takes the chunk where the loop of one process has its queue."""

    def __init__(self) -> None:
        self.chunk: ActionChunk | None = None

    def offer(self, chunk: ActionChunk) -> bool:
        self.chunk = chunk
        return True

    def clear(self) -> None:
        self.chunk = None


class InferenceNode:
    """Steps the policy on the newest frame whenever one is due, while there is an instruction.

    The frame is decided on with the velocity that was measured when it was captured. A policy that raises ends the
    process with its error: nothing is published in its stead. Words that it cannot read are no such error: it says so
    in its diagnosis, decides nothing, and waits for others.
    """

    def __init__(self, transport: Transport, policy: Policy, name: str, identical_pixels: bool = True) -> None:
        self._policy, self._name, self._identical_pixels = policy, name, identical_pixels
        self._lock = threading.Lock()
        self._decider: Decider | None = None
        self._text, self._refusal = "", ""
        self._outbox = _Outbox()
        self._mailbox, self._velocities = Mailbox(), VelocityLog(VELOCITIES)
        self._sequence = 0
        self._wire_stamps = [0] * KEPT_STAMPS
        self._taken_ms: deque[float] = deque(maxlen=100)
        self._times_ms: deque[float] = deque(maxlen=100)
        self._chunks, self._beliefs = transport.publisher(CHUNK), transport.publisher(BELIEF)
        self._contract = transport.publisher(CONTRACT)
        self._diagnoser = Diagnoser(transport, self._health)
        transport.subscribe(ACTIVE_INSTRUCTION, self._on_instruction)
        transport.subscribe(ODOM, self._on_odometry)
        transport.subscribe(IMAGE, self._on_image)

    def run(self, stop: threading.Event) -> None:
        """Decide until told to stop."""
        self._contract.publish(
            string(json.dumps({"policy": self._name, "contract": self._policy.contract.to_dict()}, ensure_ascii=False))
        )
        while not stop.is_set():
            self._diagnoser.turn()
            frame = self._mailbox.take(WAIT_S)
            with self._lock:
                decider = self._decider
            if frame is None or decider is None:
                continue
            self._taken_ms.append((time.monotonic_ns() - frame.capture_ns) / 1e6)
            try:
                decider.consider(frame)
            except InstructionError as error:
                self._refuse(decider, error)
                continue
            chunk, self._outbox.chunk = self._outbox.chunk, None
            decision = decider.view().decision
            if chunk is None or decision is None or decision.frame is not frame:
                continue
            self._times_ms.append(decision.inference_ms)
            captured_ns = self._wire_stamps[frame.sequence % KEPT_STAMPS]
            self._beliefs.publish(
                belief_message(
                    decision.grounding,
                    decider.view().instruction.text,
                    decision.inference_ms,
                    captured_ns,
                    decision.measured,
                )
            )
            self._chunks.publish(chunk_message(chunk, captured_ns))

    def _on_instruction(self, received: Received) -> None:
        text = received.message.data
        with self._lock:
            self._text, self._refusal = text, ""
            self._decider = None
            if text:
                self._decider = Decider(
                    self._policy,
                    Instruction(text),
                    self._outbox,
                    self._velocities,
                    FrameWatch(self._identical_pixels),
                    clock=MonotonicClock.name,
                )

    def _refuse(self, decider: Decider, error: InstructionError) -> None:
        _log.warning("not followed: %s", error)
        with self._lock:
            if self._decider is decider:
                self._decider, self._refusal = None, str(error)

    def _on_odometry(self, received: Received) -> None:
        message = received.message
        self._velocities.add(from_wire(stamp_ns(message)), twist_from_message(message.twist.twist))

    def _on_image(self, received: Received) -> None:
        self._sequence += 1
        captured_ns = stamp_ns(received.message)
        self._wire_stamps[self._sequence % KEPT_STAMPS] = captured_ns
        self._mailbox.put(
            frame_from_image(
                received.message,
                capture_ns=from_wire(captured_ns),
                clock=MonotonicClock.name,
                camera=CAMERA,
                sequence=self._sequence,
            )
        )

    def _health(self) -> Health:
        if self._refusal:
            return Health(Level.ERROR, f"not followed: {self._refusal}", {"policy": self._name})
        times = sorted(self._times_ms)
        if not times:
            return Health(Level.OK, "idle" if not self._text else "waiting for frames", {"policy": self._name})
        p50, period_ms = statistics.median(times), 1e3 / self._policy.contract.frame_rate_hz
        values = {
            "policy": self._name,
            "instruction": self._text,
            "capture_to_inference_p50_ms": f"{statistics.median(self._taken_ms):.1f}",
            "inference_p50_ms": f"{p50:.1f}",
            "inference_max_ms": f"{times[-1]:.1f}",
            "period_ms": f"{period_ms:.1f}",
        }
        if p50 > period_ms:
            return Health(
                Level.WARN, f"too slow: a decision takes {p50:.0f} ms, its rate allows {period_ms:.0f}", values
            )
        return Health(Level.OK, f"a decision takes {p50:.1f} ms", values)
