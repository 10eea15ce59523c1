"""The monitoring node: listens to what the others say and knows what comes too slowly, or no more."""

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from mobile_vla.core import NS_PER_S
from mobile_vla.core.backports import StrEnum
from mobile_vla.ros.messages import Diagnosis, Level, diagnoses, empty
from mobile_vla.ros.nodes.health import Diagnoser, Health, Pace
from mobile_vla.ros.topics import (
    ACTIVE_INSTRUCTION,
    BELIEF,
    CAMERA_INFO,
    CHUNK,
    DIAGNOSTICS,
    HEARTBEAT,
    ODOM,
    SAFETY,
    Topic,
)
from mobile_vla.ros.transport import Received, Transport
from mobile_vla.safety import SafetyState

WATCHED = (CAMERA_INFO, CHUNK, BELIEF, ODOM, SAFETY)
"""Topics of the table that come at a rate, and cost little to listen to."""

ONLY_WITH_AN_INSTRUCTION = (CHUNK, BELIEF)
STOPS = (SafetyState.PROTECTIVE_STOP, SafetyState.EMERGENCY_STOP)
SLOW_SHARE = 0.5
START_NS = 5 * NS_PER_S
PERIOD_NS = NS_PER_S
BEAT_S = 0.2


class Freshness(StrEnum):
    """How a topic does."""

    OK = "ok"
    SLOW = "slow"  # less than half its nominal rate
    STALE = "stale"  # older than the table allows
    SILENT = "silent"  # never came
    STARTING = "starting"  # did not come yet, but the monitor has only just begun to listen
    IDLE = "idle"  # not expected now


@dataclass(frozen=True, slots=True)
class Line:
    """A topic now. ``age_s`` is None before the first message; ``nominal_hz``: what its rate is measured by."""

    topic: Topic
    freshness: Freshness
    rate_hz: float
    age_s: float | None
    nominal_hz: float | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything the monitor knows at one moment. ``nodes``: the newest diagnosis of each, by full name."""

    topics: tuple[Line, ...]
    nodes: dict[str, Diagnosis]
    silent_nodes: tuple[str, ...]
    safety: Diagnosis | None
    instruction: str

    @property
    def is_stopped(self) -> bool:
        """The safety layer has stopped the robot until a person acts."""
        return self.safety is not None and self.safety.values.get("state") in STOPS

    @property
    def level(self) -> Level:
        """The worst of all; a robot that waits for a person after a stop is an error."""
        bad = {Freshness.STALE, Freshness.SILENT}
        if self.is_stopped or self.silent_nodes or any(line.freshness in bad for line in self.topics):
            return Level.ERROR
        levels = [node.level for node in self.nodes.values()]
        if any(level >= Level.ERROR for level in levels):
            return Level.ERROR
        late = any(line.freshness in (Freshness.SLOW, Freshness.STARTING) for line in self.topics)
        return Level.WARN if late or any(level == Level.WARN for level in levels) else Level.OK


@dataclass(slots=True)
class _Heard:
    pace: Pace = field(default_factory=Pace)
    last_ns: int | None = None


class MonitoringNode:
    """Shows a snapshot a second to ``show``; says on /diagnostics how the whole does.

    ``heartbeat``: it is the operator's station, and publishes the sign of life that control may be set to ask for.
    """

    def __init__(self, transport: Transport, show: Callable[[Snapshot], None], heartbeat: bool = False) -> None:
        self._show = show
        self._heartbeat = transport.publisher(HEARTBEAT) if heartbeat else None
        self._lock = threading.Lock()
        self._heard = {topic.name: _Heard() for topic in WATCHED}
        self._nodes: dict[str, tuple[Diagnosis, int]] = {}
        self._safety: Diagnosis | None = None
        self._instruction, self._told_ns = "", 0
        self._own_name = transport.node
        self._began_ns = time.monotonic_ns()
        self._diagnoser = Diagnoser(transport, self._health)
        for topic in WATCHED:
            transport.subscribe(topic, self._listener(topic))
        transport.subscribe(ACTIVE_INSTRUCTION, self._on_instruction)
        transport.subscribe(DIAGNOSTICS, self._on_diagnostics)

    def run(self, stop: threading.Event) -> None:
        """Listen until told to stop."""
        show_due_ns = 0
        while not stop.wait(BEAT_S):
            if self._heartbeat is not None:
                self._heartbeat.publish(empty())
            self._diagnoser.turn()
            if time.monotonic_ns() >= show_due_ns:
                show_due_ns = time.monotonic_ns() + PERIOD_NS
                self._show(self.snapshot())

    def snapshot(self) -> Snapshot:
        """As of now."""
        now_ns = time.monotonic_ns()
        with self._lock:
            lines = tuple(self._line(topic, now_ns) for topic in WATCHED)
            silent_ns = round((DIAGNOSTICS.stale_after_s or 0) * NS_PER_S)
            silent = tuple(name for name, (_, heard_ns) in self._nodes.items() if now_ns - heard_ns > silent_ns)
            nodes = {name: diagnosis for name, (diagnosis, _) in sorted(self._nodes.items())}
            return Snapshot(lines, nodes, silent, self._safety, self._instruction)

    def _line(self, topic: Topic, now_ns: int) -> Line:
        heard = self._heard[topic.name]
        expected = topic not in ONLY_WITH_AN_INSTRUCTION or self._is_due(topic, now_ns)
        rate_hz = heard.pace.rate_hz(now_ns)
        nominal_hz = self._camera_hz() if topic is CAMERA_INFO else topic.rate_hz
        if heard.last_ns is None:
            missing = Freshness.STARTING if now_ns - self._began_ns < START_NS else Freshness.SILENT
            return Line(topic, missing if expected else Freshness.IDLE, 0.0, None, nominal_hz)
        age_s = (now_ns - heard.last_ns) / NS_PER_S
        if not expected:
            freshness = Freshness.IDLE
        elif topic.stale_after_s is not None and age_s > topic.stale_after_s:
            freshness = Freshness.STALE
        elif nominal_hz is not None and rate_hz < SLOW_SHARE * nominal_hz:
            freshness = Freshness.SLOW
        else:
            freshness = Freshness.OK
        return Line(topic, freshness, rate_hz, age_s, nominal_hz)

    def _is_due(self, topic: Topic, now_ns: int) -> bool:
        """The instruction is as old as a message of ``topic`` may be."""
        return bool(self._instruction) and now_ns - self._told_ns > (topic.stale_after_s or 0.0) * NS_PER_S

    def _camera_hz(self) -> float | None:
        """What the camera node says that its camera gives nominally; the table's figure while it says nothing."""
        for name, (diagnosis, _) in self._nodes.items():
            if name.endswith("/camera") and "nominal_hz" in diagnosis.values:
                with contextlib.suppress(ValueError):
                    return float(diagnosis.values["nominal_hz"])
        return CAMERA_INFO.rate_hz

    def _listener(self, topic: Topic) -> Callable[[Received], None]:
        def listen(received: Received) -> None:
            with self._lock:
                heard = self._heard[topic.name]
                heard.pace.add(received.received_ns)
                heard.last_ns = received.received_ns
                if topic is SAFETY:
                    self._safety = diagnoses(received.message)[0]

        return listen

    def _on_instruction(self, received: Received) -> None:
        with self._lock:
            self._instruction, self._told_ns = received.message.data, received.received_ns
            for topic in ONLY_WITH_AN_INSTRUCTION:
                self._heard[topic.name] = _Heard()  # the pause before it says nothing about their rate

    def _on_diagnostics(self, received: Received) -> None:
        with self._lock:
            for diagnosis in diagnoses(received.message):
                if diagnosis.name != self._own_name and self._is_ours(diagnosis.name):
                    self._nodes[diagnosis.name] = (diagnosis, received.received_ns)

    def _is_ours(self, name: str) -> bool:
        """/diagnostics is one topic for all robots. What does not call itself by its node's full name may be ours."""
        return not name.startswith("/") or name.rpartition("/")[0] == self._own_name.rpartition("/")[0]

    def _health(self) -> Health:
        snapshot = self.snapshot()
        late = [f"{line.topic.name} {line.freshness}" for line in snapshot.topics if line.freshness not in _FINE]
        late += [f"{name} silent" for name in snapshot.silent_nodes]
        if snapshot.safety is not None and snapshot.is_stopped:
            late.append(f"{snapshot.safety.values['state']}: {snapshot.safety.message}")
        return Health(snapshot.level, ", ".join(late) or "all fresh")


_FINE = (Freshness.OK, Freshness.IDLE)
