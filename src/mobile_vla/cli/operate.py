"""``mobile-vla say``, ``stop``, ``rearm`` and ``resume``: what an operator tells a robot that is up."""

import argparse
import contextlib
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from mobile_vla.cli.robot_options import add_node, node_config
from mobile_vla.cli.shared import Commands, add_json, positive, print_json

if TYPE_CHECKING:
    from mobile_vla.ros.operator import End, Operator, Stopped


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
    """0 when the policy says that it is done and the robot stands; 1 for every other end, and for a stop under way.

    Ctrl-C and SIGTERM bring the robot to rest: 130.
    """
    from mobile_vla.core import Instruction
    from mobile_vla.language import Grammar, encode, parse
    from mobile_vla.ros.connect import connect
    from mobile_vla.ros.operator import End, Operator

    parse(options.text, Grammar.load())
    encode(Instruction(options.text).text)
    with _sigterm_as_ctrl_c(), Operator(connect(node_config(options, "operator"))) as operator:
        try:
            end = operator.say(options.text, options.max_seconds, wait=not options.no_wait)
        except KeyboardInterrupt:
            return _come_to_rest(operator, options.json)
    if options.json:
        print_json(_as_json(end))
    else:
        print("accepted" if end is None else end)
    return 0 if end is None or (isinstance(end, End) and end.done) else 1


def _as_json(end: "End | Stopped | None") -> dict[str, object]:
    """``ending`` is null while the instruction is in force."""
    from mobile_vla.ros.operator import End
    from mobile_vla.runtime import Ending

    if end is None:
        return {"ending": None, "accepted": True}
    if isinstance(end, End):
        return asdict(end)
    return {"ending": None if end.in_force else Ending.STOPPED, **asdict(end)}


@contextlib.contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _come_to_rest(operator: "Operator", as_json: bool) -> int:
    """After Ctrl-C: nothing that was said goes on unseen. KeyboardInterrupt again where nothing was said yet."""
    from mobile_vla.cli.main import INTERRUPTED
    from mobile_vla.ros.operator import Rest

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # it takes seconds, and is to be told how it came out
    rest = operator.come_to_rest()
    if rest is None:
        raise KeyboardInterrupt
    print(f"mobile-vla: told the robot to come to rest: {rest}", file=sys.stderr)
    if as_json:
        print_json({"ending": "requested", "at_rest": rest is Rest.STANDS})
    return INTERRUPTED


def run_act(options: argparse.Namespace) -> int:
    """0 when the control node answers that it is so."""
    from mobile_vla.ros.connect import connect
    from mobile_vla.ros.operator import Operator

    with Operator(connect(node_config(options, "operator"))) as operator:
        values = options.act(operator)
    if options.json:
        print_json(values)
    else:
        print(f"{values['state']}: {values['sentence']}")
    return 0


def _stop(operator: "Operator") -> dict[str, str]:
    return operator.emergency_stop()


def _rearm(operator: "Operator") -> dict[str, str]:
    return operator.rearm()


def _resume(operator: "Operator") -> dict[str, str]:
    return operator.resume()
