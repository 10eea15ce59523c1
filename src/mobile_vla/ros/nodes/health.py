"""What every node says of itself once a second, on /diagnostics."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from mobile_vla.core import NS_PER_S
from mobile_vla.ros.messages import Level, diagnostics
from mobile_vla.ros.topics import DIAGNOSTICS
from mobile_vla.ros.transport import Transport
from mobile_vla.ros.wire_time import to_wire

PERIOD_NS = NS_PER_S


@dataclass(frozen=True, slots=True)
class Health:
    """How a node does, in a word for people and figures for tools."""

    level: Level
    message: str
    values: Mapping[str, object] = field(default_factory=dict)


class Diagnoser:
    """Publishes ``ask()`` when a second has passed since the last time."""

    def __init__(self, transport: Transport, ask: Callable[[], Health]) -> None:
        self._transport, self._ask = transport, ask
        self._publisher = transport.publisher(DIAGNOSTICS)
        self._due_ns = 0

    def turn(self) -> None:
        """Call it often; mostly it does nothing."""
        now_ns = time.monotonic_ns()
        if now_ns < self._due_ns:
            return
        self._due_ns = now_ns + PERIOD_NS
        health = self._ask()
        values = {"unreadable or failed messages": self._transport.failures, **health.values}
        words = {key: str(value) for key, value in values.items()}
        self._publisher.publish(diagnostics(health.level, self._transport.node, health.message, words, to_wire(now_ns)))


class Pace:
    """Rate and spread of recent events. One thread adds; another may read."""

    def __init__(self, length: int = 100) -> None:
        self._stamps: deque[int] = deque(maxlen=length)

    def add(self, stamp_ns: int) -> None:
        """One more event."""
        self._stamps.append(stamp_ns)

    def rate_hz(self, now_ns: int) -> float:
        """Events a second over those remembered, up to now: silence lowers it. 0 before the second event."""
        stamps = tuple(self._stamps)
        if len(stamps) < 2:
            return 0.0
        mean_ns = (stamps[-1] - stamps[0]) / (len(stamps) - 1)
        silent_ns = now_ns - stamps[-1]
        span_ns = stamps[-1] - stamps[0] + (silent_ns if silent_ns > 2 * mean_ns else 0)
        return (len(stamps) - 1) * NS_PER_S / span_ns if span_ns > 0 else 0.0
