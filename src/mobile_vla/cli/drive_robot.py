"""``mobile-vla drive --robot``: a real robot, with camera, policy and control in one process."""

import argparse
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mobile_vla.cli.robot_options import node_config, robot_of
from mobile_vla.cli.shared import policy_folder, print_json
from mobile_vla.core import ConfigError

if TYPE_CHECKING:
    from mobile_vla.runtime import DriveLoop, Tick
    from mobile_vla.safety import Supervisor

RATE_HZ = 50.0
KEYS_EVERY_S = 0.02


def run(options: argparse.Namespace) -> int:
    """Drive; 0 when the policy says that it is done and the robot stands, 1 for every other end.

    The space bar is the emergency stop, k and Ctrl-C ramp to rest; so does SIGTERM.
    """
    from mobile_vla.core import Instruction, MonotonicClock
    from mobile_vla.language import Grammar, encode, parse

    instruction = Instruction(options.say)
    parse(options.say, Grammar.load())
    encode(instruction.text)

    import torch
    from rich.console import Console

    from mobile_vla.monitor.line import LiveLine
    from mobile_vla.policy.weights import load_policy
    from mobile_vla.runtime import DriveConfig, DriveLoop, Ending
    from mobile_vla.runtime.config import at_rate
    from mobile_vla.safety import Supervisor

    torch.set_num_threads(1)  # so small a network is fastest so
    robot, clock = robot_of(options), MonotonicClock()
    policy = load_policy(policy_folder(options), None, options.allow_missing, options.allow_unproven)
    supervisor = Supervisor(robot.limits, at_rate(robot.safety, RATE_HZ))
    camera, base = robot.camera.build(clock), robot.base.build(clock)
    console = Console(quiet=options.json, highlight=False, soft_wrap=True, stderr=True)

    with contextlib.ExitStack() as stack:
        live = stack.enter_context(LiveLine(console))
        watchers = [live.show]

        def observe(tick: "Tick") -> None:
            for watcher in watchers:
                watcher(tick)

        config = DriveConfig(options.max_seconds, control_rate_hz=RATE_HZ)
        loop = DriveLoop(camera, base, policy, supervisor, clock, config, observe)
        if not options.no_ros:
            from mobile_vla.ros.connect import connect
            from mobile_vla.ros.preview import Preview

            transport = connect(node_config(options, "drive"))
            watchers.append(stack.enter_context(Preview(transport, supervisor.emergency_stop)).show)
        for device in (camera, base):
            stack.callback(device.close)
            device.open()
        stack.enter_context(_signals(loop))
        stack.enter_context(_keys(loop, supervisor))
        outcome = loop.run_threaded(instruction)
    done = outcome.ending is Ending.FINISHED
    if options.json:
        print_json(
            {
                "ending": outcome.ending,
                "status": outcome.status,
                "reason": outcome.reason,
                "sentence": outcome.sentence,
                "duration_s": outcome.duration_s,
                "decisions": outcome.decisions,
                "at_rest": outcome.at_rest,
            }
        )
    else:
        word = outcome.status or "the policy said nothing"
        print(f"{outcome.ending}: {word if done else outcome.sentence}, {outcome.duration_s:.1f} s")
    return 0 if done else 1


@contextlib.contextmanager
def _signals(loop: "DriveLoop") -> Iterator[None]:
    """Ctrl-C and SIGTERM ramp to rest; the second one ends at once, with the base's stop."""

    def ask(number: int, frame: object) -> None:
        loop.request_stop()
        signal.signal(number, signal.default_int_handler)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _keys(loop: "DriveLoop", supervisor: "Supervisor") -> Iterator[None]:
    """Space stops, where there is a terminal."""
    from mobile_vla.core import MonotonicClock
    from mobile_vla.teleop import Button, Keyboard

    keyboard = Keyboard(MonotonicClock())
    try:
        keyboard.open()
    except ConfigError:
        print("no terminal: the keyboard cannot stop the robot; mobile-vla stop and signals can", file=sys.stderr)
        yield
        return
    over = threading.Event()

    def watch() -> None:
        while not over.wait(KEYS_EVERY_S):
            pressed = keyboard.read().pressed
            if Button.EMERGENCY_STOP in pressed:
                supervisor.emergency_stop("the space bar was pressed")
            if pressed & {Button.STOP, Button.QUIT}:
                loop.request_stop()

    thread = threading.Thread(target=watch, name="keys", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(1.0)
        keyboard.close()
