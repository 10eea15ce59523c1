"""``mobile-vla teleop``: drive a robot by hand, with the keyboard or a gamepad."""

import argparse
import threading
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mobile_vla.cli.robot_options import add_node, add_robot, node_config, robot_of
from mobile_vla.cli.shared import Commands, add_json, print_json
from mobile_vla.core import ConfigError

if TYPE_CHECKING:
    from mobile_vla.core import Clock
    from mobile_vla.record.hands import HandStep
    from mobile_vla.ros.transport import NodeConfig, Received, Transport
    from mobile_vla.runtime.config import RobotConfig
    from mobile_vla.teleop import Stick, StickState


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser("teleop", help="drive a robot by hand, with the keyboard or a gamepad")
    add_robot(parser)
    add_stick(parser)
    add_node(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def add_stick(parser: argparse.ArgumentParser) -> None:
    """What the person drives with."""
    parser.add_argument(
        "--stick",
        default="keyboard",
        metavar="keyboard|gamepad|joy|DEVICE",
        help="what to drive with: joy is the topic of that name, a device a gamepad such as /dev/input/js1 "
        "(default keyboard)",
    )
    parser.add_argument(
        "--speed", type=share, default=0.5, metavar="SHARE", help="of the limits, for the keyboard (default 0.5)"
    )
    parser.add_argument(
        "--no-dead-man", action="store_true", help="let a gamepad drive without holding its left shoulder button"
    )


def share(text: str) -> float:
    """A number above 0 and at most 1, for argparse."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} needs to be above 0 and at most 1")
    return value


def stick_of(options: argparse.Namespace, clock: "Clock") -> "Stick":
    """What the options mean to drive with, not yet open."""
    from mobile_vla.teleop import Gamepad, Keyboard

    if options.stick == "joy":
        return JoyTopic(node_config(options, "teleop"))
    if options.stick == "keyboard":
        return Keyboard(clock, share=options.speed)
    device = None if options.stick == "gamepad" else Path(options.stick)
    return Gamepad(clock, device, dead_man=not options.no_dead_man)


def require_no_ranges(config: "RobotConfig") -> None:
    """ConfigError for a robot that is to heed a range sensor: without readings it would hold for ever."""
    if config.safety.clearance is not None:
        raise ConfigError(
            "safety.clearance needs the range sensor on the wire: "
            "drive with mobile-vla up and node joy, or leave it out"
        )


class JoyTopic:
    """The topic ``joy`` as a stick; every pad that publishes as ``joy/game_controller_node`` does."""

    def __init__(self, node: "NodeConfig") -> None:
        from mobile_vla.teleop import JoyStick

        self.name = "topic joy"
        self._node = node
        self._stick = JoyStick()
        self._transport: Transport | None = None

    def open(self) -> None:
        """Listen; ConfigError or TransportError when the wire cannot be reached."""
        from mobile_vla.ros.connect import connect
        from mobile_vla.ros.topics import JOY

        if self._transport is None:
            self._transport = connect(self._node)
            self._transport.subscribe(JOY, self._receive)

    def close(self) -> None:
        """Leave the graph."""
        if self._transport is not None:
            self._transport.close()
        self._transport = None
        self._stick.close()

    def read(self) -> "StickState":
        """The newest message."""
        return self._stick.read()

    def _receive(self, received: "Received") -> None:
        message = received.message
        self._stick.receive(message.axes.tolist(), message.buttons.tolist(), received.received_ns)


def run(options: argparse.Namespace) -> int:
    """Drive until the person quits; 0 then, and an error when the robot fails."""
    config = robot_of(options, needs=("base",))
    require_no_ranges(config)

    from rich.console import Console

    from mobile_vla.core import NS_PER_S, ActionContract, MonotonicClock
    from mobile_vla.monitor.line import LiveLine
    from mobile_vla.record.aside import Aside
    from mobile_vla.record.hands import HandLoop
    from mobile_vla.record.interrupt import interruptible
    from mobile_vla.runtime.config import at_rate
    from mobile_vla.safety import Supervisor
    from mobile_vla.teleop import Button
    from mobile_vla.teleop.keyboard import HELP

    clock = MonotonicClock()
    stick, base, over = stick_of(options, clock), config.base.build(clock), threading.Event()
    console = Console(stderr=options.json)
    began_ns, steps, path_m = clock.now_ns(), 0, 0.0
    contract = ActionContract()

    def listen(step: "HandStep") -> None:
        nonlocal steps, path_m
        steps += 1
        path_m += (step.tick.measured.vx**2 + step.tick.measured.vy**2) ** 0.5 / contract.rate_hz
        if Button.QUIT in step.stick.pressed:
            over.set()
        tick = replace(step.tick, stamp_ns=step.tick.stamp_ns - began_ns)
        aside.do(lambda: live.show(tick))

    with ExitStack() as stack:
        stack.enter_context(interruptible(over))
        stack.callback(base.close)
        base.open()
        stack.callback(stick.close)
        stick.open()
        console.print(f"{config.name}: base {config.base_kind}, {stick.name}\n{HELP}", highlight=False)
        live = stack.enter_context(LiveLine(console))
        aside = stack.enter_context(Aside(over.set))  # a terminal may stall, or go away
        supervisor = Supervisor(config.limits, at_rate(config.safety, contract.rate_hz))
        loop = HandLoop(
            stick,
            base,
            supervisor,
            clock,
            contract,
            listener=listen,
            say=lambda sentence: aside.do(lambda: console.print(sentence, highlight=False)),
        )
        loop.run(over)
        duration_s = (clock.now_ns() - began_ns) / NS_PER_S
    if options.json:
        print_json(
            {
                "robot": config.name,
                "stick": stick.name,
                "duration_s": duration_s,
                "steps": steps,
                "path_m": path_m,
                "state": supervisor.state,
            }
        )
    else:
        console.print(f"drove {path_m:.1f} m in {duration_s:.0f} s; the robot was told to stop", highlight=False)
    return 0
