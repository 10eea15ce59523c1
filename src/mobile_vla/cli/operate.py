"""``mobile-vla say``, ``stop``, ``rearm`` and ``resume``: what an operator tells a robot that is up."""

import argparse
import queue
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mobile_vla.cli.robot_options import add_node, node_config
from mobile_vla.cli.shared import Commands, add_json, positive, print_json
from mobile_vla.core import MobileVLAError

if TYPE_CHECKING:
    from mobile_vla.ros.transport import Transport

FOUND_WITHIN_S = 10.0
ANSWERED_WITHIN_S = 3.0


class NoAnswerError(MobileVLAError):
    """No control node is there, or it does not do what it was told."""


def add_to(commands: Commands) -> None:
    """Describe the commands."""
    say = commands.add_parser("say", help="tell a robot that is up where to go, and wait how it comes out")
    say.add_argument("text", help='e.g. "pass the box on the left to the red cup"')
    say.add_argument("--max-seconds", type=positive, default=180.0, metavar="S", help="how long to wait for its end")
    say.add_argument("--no-wait", action="store_true", help="end when the robot has accepted the words")
    say.set_defaults(run=run_say)
    for name, about, act in (
        ("stop", "emergency stop of a robot that is up", _stop),
        ("rearm", "undo an emergency stop; the robot then waits for resume", _rearm),
        ("resume", "go on after a protective stop, a takeover, or rearm", _resume),
    ):
        parser = commands.add_parser(name, help=about)
        parser.set_defaults(run=run_act, act=act)
        add_node(parser)
        add_json(parser)
    add_node(say)
    add_json(say)


def run_say(options: argparse.Namespace) -> int:
    """0 when the policy says that it is done and the robot stands; 1 for every other end."""
    from mobile_vla.core import Instruction
    from mobile_vla.language import Grammar, encode, parse
    from mobile_vla.ros.messages import string
    from mobile_vla.ros.topics import INSTRUCTION
    from mobile_vla.runtime import Ending

    parse(options.text, Grammar.load())
    encode(Instruction(options.text).text)
    with _Operator(options) as operator:
        before = operator.newest(FOUND_WITHIN_S)
        operator.publish(INSTRUCTION, string(options.text))
        told_ns = time.monotonic_ns()

        def accepted(values: dict[str, str]) -> bool:
            if values["refused"] and values["refused"] != before["refused"]:
                raise NoAnswerError(values["refused"])
            return bool(values["instruction"] == options.text)

        operator.wait(accepted, ANSWERED_WITHIN_S, "the control node did not accept the words")
        if options.no_wait:
            return 0
        end = operator.wait(
            lambda values: not values["instruction"] and values["last_instruction"] == options.text,
            options.max_seconds,
            f"the robot has not ended within {options.max_seconds:g} s; it goes on: tell it mobile-vla stop",
        )
        duration_s = (time.monotonic_ns() - told_ns) / 1e9
    done = end["last_ending"] == Ending.FINISHED
    sentence = f"{end['last_ending']}, {end['last_status'] or 'the policy said nothing'}, {duration_s:.1f} s"
    if options.json:
        print_json({"ending": end["last_ending"], "status": end["last_status"], "duration_s": duration_s})
    else:
        print(sentence)
    return 0 if done else 1


def run_act(options: argparse.Namespace) -> int:
    """0 when the control node answers that it is so."""
    with _Operator(options) as operator:
        values = options.act(operator)
    if options.json:
        print_json(values)
    else:
        print(f"{values['state']}: {values['sentence']}")
    return 0


class _Operator:
    """A node that speaks to the control node and hears its safety state."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._heard: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()

    def __enter__(self) -> "_Operator":
        from mobile_vla.ros.connect import connect
        from mobile_vla.ros.messages import diagnoses
        from mobile_vla.ros.topics import SAFETY

        self._transport: Transport = connect(node_config(self._options, "operator"))
        self._transport.subscribe(SAFETY, lambda received: self._heard.put(dict(diagnoses(received.message)[0].values)))
        return self

    def __exit__(self, *_: object) -> None:
        self._transport.close()

    def publish(self, topic: Any, message: Any) -> None:
        """To the control node, once it reads the topic; NoAnswerError when none does."""
        publisher = self._transport.publisher(topic)
        if not self._transport.wait_for_readers(topic, 1, FOUND_WITHIN_S):
            raise NoAnswerError("no robot is up here: start it with mobile-vla up, and use its namespace and domain")
        publisher.publish(message)

    def newest(self, limit_s: float) -> dict[str, str]:
        """What the control node says next."""
        return self.wait(lambda values: True, limit_s, "no robot is up here: start it with mobile-vla up")

    def wait(self, holds: Callable[[dict[str, str]], bool], limit_s: float, otherwise: str) -> dict[str, str]:
        """What the control node says once ``holds``; NoAnswerError with ``otherwise`` when it does not in time."""
        end_s = time.monotonic() + limit_s
        while (left_s := end_s - time.monotonic()) > 0:
            try:
                values = self._heard.get(timeout=left_s)
            except queue.Empty:
                break
            if holds(values):
                return values
        raise NoAnswerError(otherwise)


def _stop(operator: _Operator) -> dict[str, str]:
    from mobile_vla.ros.messages import boolean
    from mobile_vla.ros.topics import EMERGENCY_STOP

    operator.publish(EMERGENCY_STOP, boolean(True))
    values = operator.wait(
        lambda values: values["state"] == "emergency_stop",
        ANSWERED_WITHIN_S,
        "the robot did not answer: use its switch",
    )
    operator.publish(EMERGENCY_STOP, boolean(False))  # a command is no button: nothing stays pressed
    return values


def _rearm(operator: _Operator) -> dict[str, str]:
    from mobile_vla.ros.messages import empty
    from mobile_vla.ros.topics import REARM

    return _ask(operator, REARM, empty(), lambda values: values["state"] != "emergency_stop")


def _resume(operator: _Operator) -> dict[str, str]:
    from mobile_vla.ros.messages import empty
    from mobile_vla.ros.topics import RESUME

    return _ask(operator, RESUME, empty(), lambda values: values["state"] in ("holding", "running"))


def _ask(operator: _Operator, topic: Any, message: Any, holds: Callable[[dict[str, str]], bool]) -> dict[str, str]:
    operator.newest(FOUND_WITHIN_S)
    operator.publish(topic, message)
    refused = ""

    def turned(values: dict[str, str]) -> bool:
        nonlocal refused
        refused = values["refused"]
        return holds(values)

    try:
        return operator.wait(turned, ANSWERED_WITHIN_S, "")
    except NoAnswerError:
        raise NoAnswerError(
            refused or "the robot did not do so and did not say why: look at mobile-vla node monitoring"
        ) from None
