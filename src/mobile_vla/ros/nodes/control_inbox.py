"""What comes to the control node between two control steps: the transport's thread notes it down, the step takes it."""

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from mobile_vla.core import ActionChunk, Grounding
from mobile_vla.ros.messages import belief_from_message, chunk_from_message, stamp_ns
from mobile_vla.ros.ranges import RangeInbox
from mobile_vla.ros.topics import (
    BELIEF,
    CHUNK,
    CONTRACT,
    EMERGENCY_STOP,
    HEARTBEAT,
    INSTRUCTION,
    JOY,
    REARM,
    RESUME,
)
from mobile_vla.ros.transport import Received, Transport
from mobile_vla.ros.wire_time import from_wire
from mobile_vla.runtime.config import RangeConfig
from mobile_vla.safety import Clearance
from mobile_vla.teleop.joy import JoyStick

KEPT = 10
"""Chunks and beliefs between two steps; orders are fewer still. Older ones give way."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A chunk, stamped on our clock; ``stamp_ns`` is its stamp on the wire, by which it is paired with its belief."""

    chunk: ActionChunk
    stamp_ns: int
    received_ns: int


@dataclass(frozen=True, slots=True)
class Believed:
    """The belief behind the chunk of the same stamp, and the instruction under which it was made."""

    stamp_ns: int
    text: str
    grounding: Grounding
    inference_ms: float


@dataclass(frozen=True, slots=True)
class Say:
    """Follow these words; empty: come to rest."""

    text: str


@dataclass(frozen=True, slots=True)
class Rearm:
    """Undo an emergency stop."""


@dataclass(frozen=True, slots=True)
class Resume:
    """Undo a protective stop."""


Order = Say | Rearm | Resume


@dataclass(frozen=True, slots=True)
class Post:
    """What came since the last time. ``beliefs``: the newest ones, by stamp, whether or not they are new."""

    chunks: tuple[Arrived, ...]
    beliefs: Mapping[int, Believed]
    orders: tuple[Order, ...]
    contract: str | None


@dataclass(frozen=True, slots=True)
class Signals:
    """What the supervisor is to know; see ``safety.Inputs``. ``chunk_count``: messages since the last time."""

    chunk_count: int
    pressed: bool
    heartbeat_ns: int | None
    clearance: Clearance | None


class ControlInbox:
    """Listens on ``transport``. An emergency stop calls ``alarm`` at once, in the transport's thread.

    ``ranges``: of the range sensor.
    """

    def __init__(self, transport: Transport, alarm: Callable[[str], None], ranges: RangeConfig) -> None:
        self.stick = JoyStick()
        self._alarm = alarm
        self._lock = threading.Lock()
        self._chunks: deque[Arrived] = deque(maxlen=KEPT)
        self._beliefs: deque[Believed] = deque(maxlen=KEPT)
        self._orders: deque[Order] = deque(maxlen=KEPT)
        self._contract: str | None = None
        self._chunk_count = 0
        self._pressed = False
        self._heartbeat_ns: int | None = None
        self._ranges = RangeInbox(transport, ranges)
        for topic, listener in (
            (CONTRACT, self._on_contract),
            (BELIEF, self._on_belief),
            (CHUNK, self._on_chunk),
            (INSTRUCTION, self._on_instruction),
            (EMERGENCY_STOP, self._on_emergency_stop),
            (REARM, self._on_rearm),
            (RESUME, self._on_resume),
            (HEARTBEAT, self._on_heartbeat),
            (JOY, self._on_joy),
        ):
            transport.subscribe(topic, listener)

    def empty(self) -> Post:
        """Take out what came; each chunk and order is given once."""
        with self._lock:
            post = Post(
                tuple(self._chunks),
                {belief.stamp_ns: belief for belief in self._beliefs},
                tuple(self._orders),
                self._contract,
            )
            self._chunks.clear()
            self._orders.clear()
            self._contract = None
            return post

    def signals(self) -> Signals:
        """As of now; chunks are counted from the call before."""
        with self._lock:
            count, self._chunk_count = self._chunk_count, 0
            return Signals(count, self._pressed, self._heartbeat_ns, self._ranges.newest)

    def _on_chunk(self, received: Received) -> None:
        with self._lock:
            self._chunk_count += 1
        chunk = chunk_from_message(received.message)
        ours = replace(chunk, stamp_ns=from_wire(chunk.stamp_ns))
        with self._lock:
            self._chunks.append(Arrived(ours, chunk.stamp_ns, received.received_ns))

    def _on_belief(self, received: Received) -> None:
        grounding, text, inference_ms = belief_from_message(received.message)
        with self._lock:
            self._beliefs.append(Believed(stamp_ns(received.message), text, grounding, inference_ms))

    def _on_contract(self, received: Received) -> None:
        with self._lock:
            self._contract = received.message.data

    def _on_instruction(self, received: Received) -> None:
        self._order(Say(received.message.data))

    def _on_rearm(self, received: Received) -> None:
        self._order(Rearm())

    def _on_resume(self, received: Received) -> None:
        self._order(Resume())

    def _on_emergency_stop(self, received: Received) -> None:
        pressed = bool(received.message.data)
        with self._lock:
            self._pressed = pressed
        if pressed:
            self._alarm("the emergency stop was pressed")

    def _on_heartbeat(self, received: Received) -> None:
        with self._lock:
            self._heartbeat_ns = received.received_ns

    def _on_joy(self, received: Received) -> None:
        message = received.message
        self.stick.receive(message.axes.tolist(), message.buttons.tolist(), received.received_ns)

    def _order(self, order: Order) -> None:
        with self._lock:
            self._orders.append(order)
