"""What an operator's program does: tells the control node something, and waits until it says that it is so."""

import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from typing_extensions import Self

from mobile_vla.core import NS_PER_S, MobileVLAError
from mobile_vla.ros.messages import boolean, diagnoses, empty, stamp_ns, string
from mobile_vla.ros.topics import EMERGENCY_STOP, INSTRUCTION, REARM, RESUME, SAFETY, Topic
from mobile_vla.ros.transport import Publisher, Received, Transport
from mobile_vla.ros.wire_time import from_wire
from mobile_vla.runtime import Ending
from mobile_vla.safety import SafetyState

FOUND_WITHIN_S = 10.0
ANSWERED_WITHIN_S = 3.0
NOBODY = "no robot is up here: start it with mobile-vla up, and use its namespace and domain"


class NoAnswerError(MobileVLAError):
    """No control node is there, or it does not do what it was told."""


@dataclass(frozen=True, slots=True)
class End:
    """How an instruction came out, as the control node tells it. ``status``: the policy's last word, or empty."""

    ending: str
    status: str
    duration_s: float

    @property
    def done(self) -> bool:
        """The policy said that it is done, and the robot stands."""
        return self.ending == Ending.FINISHED

    def __str__(self) -> str:
        return f"{self.ending}, {self.status or 'the policy said nothing'}, {self.duration_s:.1f} s"


class Operator:
    """Owns ``transport``. Every wait has a limit; NoAnswerError says what did not come."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._publishers: dict[str, Publisher] = {}
        self._heard: queue.SimpleQueue[tuple[int, dict[str, str]]] = queue.SimpleQueue()
        transport.subscribe(SAFETY, self._on_safety)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._transport.close()

    def say(self, text: str, limit_s: float, wait: bool = True) -> End | None:
        """Tell it where to go; returns how that ended, or None once it is accepted when not to ``wait``."""
        self._order(INSTRUCTION, string(text), lambda values: values["instruction"] == text)
        told_ns = time.monotonic_ns()
        if not wait:
            return None
        values = self._wait(
            lambda values: values["instruction"] != text,
            limit_s,
            f"the robot has not ended within {limit_s:g} s; it goes on: tell it mobile-vla stop",
        )
        return End(values["last_ending"], values["last_status"], (time.monotonic_ns() - told_ns) / NS_PER_S)

    def emergency_stop(self) -> dict[str, str]:
        """Stop it now; returns what it says then. The button does not stay pressed."""
        self._publish(EMERGENCY_STOP, boolean(True))
        values = self._wait(
            lambda values: values["state"] == SafetyState.EMERGENCY_STOP,
            ANSWERED_WITHIN_S,
            "the robot did not answer: use its switch",
        )
        self._publish(EMERGENCY_STOP, boolean(False))
        return values

    def rearm(self) -> dict[str, str]:
        """Undo an emergency stop."""
        return self._order(REARM, empty(), lambda values: values["state"] != SafetyState.EMERGENCY_STOP)

    def resume(self) -> dict[str, str]:
        """Undo a protective stop."""
        return self._order(RESUME, empty(), lambda values: not SafetyState(values["state"]).is_stop)

    def _order(self, topic: Topic, message: Any, holds: Callable[[dict[str, str]], bool]) -> dict[str, str]:
        """Publish, and wait until the control node has judged it and says that it ``holds``."""
        before = int(self._wait(lambda values: True, FOUND_WITHIN_S, NOBODY)["orders"])
        self._publish(topic, message)

        def judged(values: dict[str, str]) -> bool:
            if int(values["orders"]) > before and values["refused"]:
                raise NoAnswerError(values["refused"])
            return int(values["orders"]) > before and holds(values)

        return self._wait(
            judged, ANSWERED_WITHIN_S, "the control node did not answer: look at mobile-vla node monitoring"
        )

    def _publish(self, topic: Topic, message: Any) -> None:
        """Once the control node listens."""
        if topic.name not in self._publishers:
            self._publishers[topic.name] = self._transport.publisher(topic)
        if not self._transport.wait_for_readers(topic, 1, FOUND_WITHIN_S):
            raise NoAnswerError(NOBODY)
        self._publishers[topic.name].publish(message)

    def _wait(self, holds: Callable[[dict[str, str]], bool], limit_s: float, otherwise: str) -> dict[str, str]:
        """What the control node says once ``holds``, of what it said from now on."""
        after_ns, end_s = time.monotonic_ns(), time.monotonic() + limit_s
        while (left_s := end_s - time.monotonic()) > 0:
            try:
                said_ns, values = self._heard.get(timeout=left_s)
            except queue.Empty:
                break
            if said_ns > after_ns and holds(values):
                return values
        raise NoAnswerError(otherwise)

    def _on_safety(self, received: Received) -> None:
        message = received.message
        self._heard.put((from_wire(stamp_ns(message)), dict(diagnoses(message)[0].values)))
