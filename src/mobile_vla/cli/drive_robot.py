"""``mobile-vla drive --robot``: a real robot, with camera, policy and control in one process."""

import argparse
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING

from mobile_vla.cli.robot_options import node_config, robot_of
from mobile_vla.cli.shared import policy_folder, print_json
from mobile_vla.core import ConfigError

if TYPE_CHECKING:
    from mobile_vla.core import Goal, Instruction
    from mobile_vla.monitor.line import LiveLine
    from mobile_vla.ros.preview import Preview
    from mobile_vla.runtime import Ending, Outcome, Tick
    from mobile_vla.runtime.config import RobotConfig
    from mobile_vla.safety import Reason, Supervisor

RATE_HZ = 50.0
KEYS_EVERY_S = 0.02
STAND_LIMIT_S = 2.0
DISPLAY_EVERY_S = 0.1
DISPLAY_LIMIT_S = 1.0


def run(options: argparse.Namespace) -> int:
    """Drive; 0 when the policy says that it is done and the robot stands, 1 for every other end.

    From the start on the space bar is the emergency stop and k comes to rest, before the first motion as well as after
    it. Ctrl-C and SIGTERM end a start, and let a robot that drives ramp to rest.
    """
    from mobile_vla.core import Instruction, Mode
    from mobile_vla.language import Grammar, encode, parse

    instruction, goal = Instruction(options.say), parse(options.say, Grammar.load())
    encode(instruction.text)

    from mobile_vla.runtime.config import at_rate
    from mobile_vla.safety import Supervisor

    robot = robot_of(options)
    if robot.safety.clearance is not None and options.no_ros:
        raise ConfigError(
            "safety.clearance needs the range sensor on the wire: leave out --no-ros, or safety.clearance"
        )
    supervisor = Supervisor(robot.limits, at_rate(robot.safety, RATE_HZ))
    person = _Person(supervisor)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_signals(person))
        _announce(options, robot, goal, stack.enter_context(_keys(person)))
        preview = None if options.no_ros else stack.enter_context(_preview(options, robot, person))
        if goal.mode is Mode.STOP:
            outcome = _stand(robot, supervisor, instruction)
        else:
            outcome = _drive(options, robot, supervisor, person, instruction, preview)
    return _tell(options, outcome)


class _Person:
    """What was asked for by key, signal or wire, from the start of the command on."""

    def __init__(self, supervisor: "Supervisor") -> None:
        self._supervisor = supervisor
        self.drives = False
        self.wants_rest = False
        self.stopped: str | None = None

    def emergency_stop(self, sentence: str) -> None:
        """From any thread."""
        self._supervisor.emergency_stop(sentence)
        self.stopped = self.stopped or sentence

    def outcome(self, instruction: "Instruction") -> "Outcome | None":
        """How a drive ended that never began, None when it may begin."""
        from mobile_vla.runtime import Ending
        from mobile_vla.safety import Reason

        if self.stopped is not None:
            return _unmoved(instruction, Ending.STOPPED, Reason.EMERGENCY_STOP, self.stopped)
        if self.wants_rest:
            return _unmoved(instruction, Ending.REQUESTED, Reason.IDLE, "stopped on request before it moved")
        return None


def _drive(
    options: argparse.Namespace,
    robot: "RobotConfig",
    supervisor: "Supervisor",
    person: _Person,
    instruction: "Instruction",
    preview: "Preview | None",
) -> "Outcome":
    import torch
    from rich.console import Console

    from mobile_vla.core import MonotonicClock, SafetyLatchedError
    from mobile_vla.engine.load import load_policy
    from mobile_vla.monitor.line import LiveLine
    from mobile_vla.runtime import DriveConfig, DriveLoop
    from mobile_vla.runtime.realtime import attainable

    torch.set_num_threads(1)  # so small a network is fastest so
    clock = MonotonicClock()
    policy = load_policy(policy_folder(options), None, options.allow_missing, options.allow_unproven)
    camera, base = robot.camera.build(clock), robot.base.build(clock)
    live = LiveLine(Console(quiet=options.json, highlight=False, soft_wrap=True, stderr=True))

    display = _Display(live)

    def observe(tick: "Tick") -> None:
        display.newest = tick
        if preview is not None:
            preview.show(tick)
        if person.wants_rest:
            loop.request_stop()

    config = DriveConfig(options.max_seconds, control_rate_hz=RATE_HZ)
    clearance = preview.clearance if preview is not None else None
    loop = DriveLoop(camera, base, policy, supervisor, clock, config, observe, clearance)
    if ended := person.outcome(instruction):
        return ended
    with contextlib.ExitStack() as stack:
        for device in (camera, base):
            stack.callback(device.close)
            device.open()
        if not options.json:
            print(f"control thread: {attainable()}", file=sys.stderr)
        stack.enter_context(live)
        stack.enter_context(display)
        person.drives = True
        if ended := person.outcome(instruction):
            return ended
        try:
            return loop.run_threaded(instruction)
        except SafetyLatchedError:  # a stop came since it was asked for last
            if ended := person.outcome(instruction):
                return ended
            raise


class _Display:
    """Shows the newest control step in a thread of its own: a terminal that is slow or held must not hold the robot."""

    def __init__(self, live: "LiveLine") -> None:
        self.newest: Tick | None = None
        self._live = live
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="display", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(DISPLAY_LIMIT_S)

    def _run(self) -> None:
        while not self._over.wait(DISPLAY_EVERY_S):
            if self.newest is not None:
                self._live.show(self.newest)


def _stand(robot: "RobotConfig", supervisor: "Supervisor", instruction: "Instruction") -> "Outcome":
    """Tell the base to stop, and look whether it stands."""
    from mobile_vla.core import NS_PER_S, MonotonicClock
    from mobile_vla.runtime import Ending
    from mobile_vla.safety import Reason

    clock = MonotonicClock()
    base = robot.base.build(clock)
    with contextlib.ExitStack() as stack:
        stack.callback(base.close)
        base.open()
        base.stop()
        until_ns = clock.now_ns() + round(STAND_LIMIT_S * NS_PER_S)
        while not (stands := supervisor.config.standstill.holds(base.velocity())) and clock.now_ns() < until_ns:
            clock.sleep_until(clock.now_ns() + NS_PER_S // 50)
    if stands:
        return _unmoved(instruction, Ending.FINISHED, Reason.IDLE, "nothing to do: the robot stands")
    sentence = "the base was told to stop and still moves: use its switch"
    return _unmoved(instruction, Ending.STOPPED, Reason.IDLE, sentence, at_rest=False)


def _unmoved(
    instruction: "Instruction", ending: "Ending", reason: "Reason", sentence: str, at_rest: bool = True
) -> "Outcome":
    from mobile_vla.runtime import Outcome

    return Outcome(ending, None, reason, sentence, instruction, 0.0, 0, 0, at_rest, None)


def _announce(options: argparse.Namespace, robot: "RobotConfig", goal: "Goal", has_keys: bool) -> None:
    from mobile_vla.monitor.words import goal_in_words

    if not options.json:
        print(f"{robot.name}: camera {robot.camera_kind}, base {robot.base_kind}", file=sys.stderr)
        print(f"understood: {goal_in_words(goal)}", file=sys.stderr)
    if not has_keys:
        print("no terminal: the keyboard cannot stop the robot; mobile-vla stop and signals can", file=sys.stderr)
    elif not options.json:
        print("space: emergency stop; k or Ctrl-C: come to rest", file=sys.stderr)


def _tell(options: argparse.Namespace, outcome: "Outcome") -> int:
    from mobile_vla.runtime import Ending

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
        print(_in_words(outcome, options.max_seconds))
    return 0 if outcome.ending is Ending.FINISHED else 1


def _in_words(outcome: "Outcome", limit_s: float) -> str:
    """One sentence: how the drive ended, and why."""
    from mobile_vla.runtime import Ending
    from mobile_vla.safety import Reason

    moves = "" if outcome.at_rest else "; it was not seen to stand: use its switch"
    if outcome.ending is Ending.FINISHED:
        said = f"done: the policy says {outcome.status}, {outcome.duration_s:.1f} s"
        return (said if outcome.status else outcome.sentence) + moves
    if outcome.ending is Ending.REQUESTED:
        return f"stopped on request{moves}"
    if outcome.ending is not Ending.TIME_LIMIT:
        return f"stopped: {outcome.sentence}{moves}"
    policy = f"the policy was {outcome.status}" if outcome.status else "the policy said nothing"
    held = "" if outcome.reason is Reason.DRIVING else f", the robot held: {outcome.sentence}"
    return f"not done: time limit of {limit_s:g} s, {policy}{held}{moves}"


@contextlib.contextmanager
def _preview(options: argparse.Namespace, robot: "RobotConfig", person: _Person) -> Iterator["Preview"]:
    """What others see, and their stop; NotAloneError where somebody drives this robot already."""
    from mobile_vla.ros.alone import require_alone
    from mobile_vla.ros.connect import connect
    from mobile_vla.ros.preview import Preview

    transport = connect(node_config(options, "drive"))
    ranges = robot.ranges if robot.safety.clearance is not None else None
    with Preview(transport, person.emergency_stop, ranges, robot.base_kind != "cmd_vel") as preview:
        require_alone(transport)
        yield preview


@contextlib.contextmanager
def _signals(person: _Person) -> Iterator[None]:
    """Ctrl-C and SIGTERM ramp to rest; a second one, or one before the drive, ends at once, with the base's stop."""

    def ask(number: int, frame: FrameType | None) -> None:
        if not person.drives or person.wants_rest:
            signal.default_int_handler(number, frame)
        person.wants_rest = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _keys(person: _Person) -> Iterator[bool]:
    """Read keys where there is a terminal; tells whether there is one."""
    from mobile_vla.core import MonotonicClock
    from mobile_vla.teleop import Button, Keyboard

    keyboard = Keyboard(MonotonicClock())
    try:
        keyboard.open()
    except ConfigError:
        yield False
        return
    over = threading.Event()

    def watch() -> None:
        while person.stopped is None and not over.wait(KEYS_EVERY_S):
            pressed = keyboard.read().pressed
            if Button.EMERGENCY_STOP in pressed:
                person.emergency_stop("the space bar was pressed")
            if pressed & {Button.STOP, Button.QUIT}:
                person.wants_rest = True

    thread = threading.Thread(target=watch, name="keys", daemon=True)
    thread.start()
    try:
        yield True
    finally:
        over.set()
        thread.join(1.0)
        keyboard.close()
