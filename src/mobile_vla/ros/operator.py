"""What an operator's program does: tells the control node something, and waits until it says that it is so."""

import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from typing_extensions import Self

from mobile_vla.core import NS_PER_S, MobileVLAError, Twist
from mobile_vla.core.backports import StrEnum
from mobile_vla.ros.messages import boolean, diagnoses, empty, stamp_ns, string, twist_from_message
from mobile_vla.ros.topics import EMERGENCY_STOP, INSTRUCTION, ODOM, REARM, RESUME, SAFETY, Topic
from mobile_vla.ros.transport import Publisher, Received, Transport
from mobile_vla.ros.wire_time import from_wire
from mobile_vla.runtime import Ending
from mobile_vla.safety import SafetyState, Standstill

FOUND_WITHIN_S = 10.0
STOP_FOUND_WITHIN_S = 3.0
ANSWERED_WITHIN_S = 3.0
NOBODY = "no robot is up here: start it with mobile-vla up, and use its namespace and domain"
ONE_PROCESS = "a drive in one process is under way here: it takes no words; mobile-vla stop reaches it"
ONE_PROCESS_NAME = "/drive/safety"
"""What ``mobile-vla drive --robot`` calls its safety layer (``ros.preview``); the control node has another name."""


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


@dataclass(frozen=True, slots=True)
class Stopped:
    """The robot stands in a stop of its safety layer, a ``state`` that a person ends, for the reason in ``sentence``.

    ``in_force``: the instruction is not ended, and resume goes on with it. ``status`` as in ``End``.
    """

    state: str
    sentence: str
    in_force: bool
    status: str
    duration_s: float

    def __str__(self) -> str:
        next_step = (
            "the instruction stays in force: mobile-vla resume goes on"
            if self.in_force
            else "the instruction is ended: mobile-vla rearm, then mobile-vla resume, then say it again"
        )
        return f"{self.state}: {self.sentence}; {next_step}"


class Rest(StrEnum):
    """What became of a robot that was told to come to rest, in words."""

    STANDS = "it has"
    MOVES = "it still moves: use its switch"
    SILENT = "it does not answer: use its switch"


class Operator:
    """Owns ``transport``. Every wait has a limit; NoAnswerError says what did not come."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._publishers: dict[str, Publisher] = {}
        self._heard: queue.SimpleQueue[tuple[int, dict[str, str]]] = queue.SimpleQueue()
        self._one_process = False
        self._orders_before_words: int | None = None
        self._measured: Twist | None = None
        transport.subscribe(SAFETY, self._on_safety)
        transport.subscribe(ODOM, self._on_odometry)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._transport.close()

    def say(self, text: str, limit_s: float, wait: bool = True, through_stops: bool = False) -> End | Stopped | None:
        """Tell it where to go; returns how that ended, or None once it is accepted when not to ``wait``.

        Stopped when the safety layer stops it under way; with ``through_stops`` the end is waited for all the same.
        """

        def is_over(values: dict[str, str]) -> bool:
            return values["instruction"] != text or (SafetyState(values["state"]).is_stop and not through_stops)

        def is_accepted(values: dict[str, str]) -> bool:
            return text in (values["instruction"], values.get("last_instruction"))  # "stop" may have ended already

        values = self._order(INSTRUCTION, string(text), is_accepted)
        told_ns = time.monotonic_ns()
        if not wait:
            return None
        if not is_over(values):
            values = self._wait(
                is_over, limit_s, f"the robot has not ended within {limit_s:g} s; it goes on: tell it mobile-vla stop"
            )
        duration_s = (time.monotonic_ns() - told_ns) / NS_PER_S
        in_force, ending = values["instruction"] == text, values["last_ending"]
        if not through_stops and (in_force or (ending == Ending.STOPPED and SafetyState(values["state"]).is_stop)):
            status = values["policy_status"] if in_force else values["last_status"]
            return Stopped(values["state"], values["sentence"], in_force, status, duration_s)
        return End(ending, values["last_status"], duration_s)

    def come_to_rest(self) -> Rest | None:
        """Take back what was said: end the instruction, and watch the robot stop. None where nothing was said yet."""
        before, answered = self._orders_before_words, False
        if before is None:
            return None

        def stands(values: dict[str, str]) -> bool:
            nonlocal answered
            orders = int(values["orders"])  # the words and their end are two; fewer than before: control began anew
            answered = answered or ((orders >= before + 2 or orders < before) and not values["instruction"])
            still = self._measured is None or Standstill().holds(self._measured)
            return answered and still and not any(float(values[axis]) for axis in ("vx_mps", "vy_mps", "wz_radps"))

        self._publishers[INSTRUCTION.name].publish(string(""))
        try:
            self._wait(stands, ANSWERED_WITHIN_S, NOBODY)
        except NoAnswerError:
            return Rest.MOVES if answered else Rest.SILENT
        return Rest.STANDS

    def emergency_stop(self) -> dict[str, str]:
        """Stop it now; returns what it says then. The button does not stay pressed."""
        button = self._publisher(EMERGENCY_STOP, STOP_FOUND_WITHIN_S)
        button.publish(boolean(True))
        values = self._wait(
            lambda values: values["state"] == SafetyState.EMERGENCY_STOP,
            ANSWERED_WITHIN_S,
            "the robot did not answer: use its switch",
        )
        button.publish(boolean(False))  # a drive in one process has ended by now, and nobody listens
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
        if self._one_process:
            raise NoAnswerError(ONE_PROCESS)
        publisher = self._publisher(topic, FOUND_WITHIN_S)
        if topic is INSTRUCTION:
            self._orders_before_words = before
        publisher.publish(message)

        def judged(values: dict[str, str]) -> bool:
            if int(values["orders"]) > before and values["refused"]:
                raise NoAnswerError(values["refused"])
            return int(values["orders"]) > before and holds(values)

        return self._wait(
            judged, ANSWERED_WITHIN_S, "the control node did not answer: look at mobile-vla node monitoring"
        )

    def _publisher(self, topic: Topic, limit_s: float) -> Publisher:
        """Once the control node listens."""
        if topic.name not in self._publishers:
            self._publishers[topic.name] = self._transport.publisher(topic)
        if not self._transport.wait_for_readers(topic, 1, limit_s):
            raise NoAnswerError(NOBODY)
        return self._publishers[topic.name]

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
        diagnosis = diagnoses(message)[0]
        self._one_process = diagnosis.name.endswith(ONE_PROCESS_NAME)
        self._heard.put((from_wire(stamp_ns(message)), dict(diagnosis.values)))

    def _on_odometry(self, received: Received) -> None:
        self._measured = twist_from_message(received.message)
