"""``mobile-vla record``: record episodes on a real robot, by hand or with a policy that a person corrects."""

import argparse
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text
from typing_extensions import Self

from mobile_vla.cli.robot_options import add_node, add_robot, robot_of
from mobile_vla.cli.shared import RUNS, Commands, add_json, count, policy_folder, positive, print_json
from mobile_vla.cli.teleop import add_stick, require_no_ranges, stick_of
from mobile_vla.record.aside import Aside

if TYPE_CHECKING:
    from mobile_vla.core import Clock, Frame, Policy
    from mobile_vla.record.checks import Report
    from mobile_vla.record.hands import HandStep
    from mobile_vla.record.plan import Progress
    from mobile_vla.record.session import Status
    from mobile_vla.robot import Camera
    from mobile_vla.runtime.config import RobotConfig

SHIPPED = "shipped"
KINDS = ("cup", "bottle", "ball", "basket", "box", "cone", "chair", "plant_pot")
FIRST_FRAME_S = 15.0
KEYS = (
    "g or Enter: start   k: stop, keep   x: discard   t: again   n: next scenario   p: film of the last   z: quit\n"
    "gamepad: A start, X stop and keep, Y discard, B EMERGENCY STOP, BACK re-arm, START resume; LB is held to drive"
)


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser("record", help="record episodes on a robot, by hand or correcting a policy")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="data set, new or to be continued")
    add_robot(parser)
    add_stick(parser)
    parser.add_argument("--plan", type=Path, metavar="FILE", help="YAML; by default the simulator's scenarios")
    parser.add_argument("--count", type=count, default=10, help="episodes a scenario and distance, without --plan")
    parser.add_argument(
        "--target", choices=KINDS, default="cup", help="what the robot is to go to, without --plan (default cup)"
    )
    parser.add_argument("--first", metavar="NAME", help="scenario to begin with, e.g. 1box_vertical_left_far")
    parser.add_argument(
        "--policy",
        metavar=f"{SHIPPED}|latest|best|PATH",
        help=f"let a checkpoint drive and take over by a touch: the shipped one, one below {RUNS}/, or a folder",
    )
    parser.add_argument(
        "--max-seconds", type=positive, default=120.0, metavar="S", help="longest episode (default 120)"
    )
    add_node(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Record until the person quits: 0, also when nothing was kept; an error when robot, disk or data set fail."""
    config = robot_of(options)
    require_no_ranges(config)

    from mobile_vla.core import Kind, MonotonicClock
    from mobile_vla.record.plan import default_plan, one_of, read_plan

    plan = read_plan(options.plan) if options.plan else default_plan(options.count, Kind(options.target))
    first = one_of(plan, options.first) if options.first else None
    clock = MonotonicClock()
    policy = _policy(options)
    contract = _contract(config, policy)

    from mobile_vla.data import EpisodeWriter
    from mobile_vla.record.hands import HandLoop
    from mobile_vla.record.interrupt import interruptible
    from mobile_vla.record.pilot import PolicyPilot
    from mobile_vla.record.session import RecordSession, SessionConfig
    from mobile_vla.runtime.config import at_rate
    from mobile_vla.safety import Supervisor

    stick, camera, base = stick_of(options, clock), config.camera.build(clock), config.base.build(clock)
    over = threading.Event()
    board = Board(Console(stderr=options.json), over)
    with ExitStack() as stack:
        stack.enter_context(interruptible(over))
        stack.callback(camera.close)
        camera.open()
        frame = first_frame(camera, clock, over)
        writer = stack.enter_context(
            EpisodeWriter(options.out, contract, _shape(frame), _metadata(options, config, clock.name))
        )
        stack.callback(base.close)
        base.open()
        stack.callback(stick.close)
        stick.open()
        board.say(f"{config.name}: camera {config.camera_kind}, base {config.base_kind}, {stick.name}")
        board.progress(plan.progress(records_of(options.out)))
        board.say(_help())
        stack.enter_context(board)
        loop = HandLoop(
            stick,
            base,
            Supervisor(config.limits, at_rate(config.safety, contract.rate_hz)),
            clock,
            contract,
            camera,
            lambda step: session.step(step),
            board.say,
        )
        pilot = PolicyPilot(policy, clock, loop.velocities) if policy is not None else None
        if pilot is not None:
            stack.callback(pilot.close)
            pilot.start()
        session = RecordSession(
            loop,
            writer,
            plan,
            board,
            over,
            pilot=pilot,
            config=SessionConfig(longest_s=options.max_seconds),
            first=first,
        )
        session.announce()
        try:
            loop.run(over)
        finally:
            summary = session.finish()
    progress = session.status.progress
    board.progress(progress)
    if session.failure is not None:
        raise session.failure
    if options.json:
        print_json(
            {
                "root": options.out,
                "kept": summary.kept,
                "discarded": summary.discarded,
                "episodes": summary.episodes,
                "frames": summary.frames,
                "done": progress.done,
                "wanted": progress.wanted,
            }
        )
    else:
        board.say(
            f"kept {summary.kept} and discarded {summary.discarded}; {options.out} holds {summary.episodes} episodes"
        )
    return 0


class Board:
    """What the person sees: sentences, the checks of each episode, and two lines that stay in place on a terminal.

    As a context it writes in a thread of its own, because a terminal may stall. One that goes away sets ``over`` and is
    told nothing more.
    """

    def __init__(self, console: Console, over: threading.Event) -> None:
        self._console, self._over = console, over
        in_place = console.is_terminal and not console.is_dumb_terminal
        self._live = Live(console=console, refresh_per_second=10, transient=True) if in_place else None
        self._next_ns = 0
        self._began_ns: int | None = None
        self._gone = False
        self._aside: Aside | None = None

    def __enter__(self) -> Self:
        self._aside = Aside(self._lose).__enter__()
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        aside, self._aside = self._aside, None
        if aside is None:
            return
        if self._live is not None:
            aside.do(self._live.stop)
        aside.__exit__(kind, error, trace)

    def say(self, sentence: str) -> None:
        """One line."""
        self._print(Text(sentence))

    def show(self, step: "HandStep", status: "Status") -> None:
        """The control step and where the session is."""
        from mobile_vla.core import NS_PER_S
        from mobile_vla.monitor.line import line

        if self._began_ns is None:
            self._began_ns = step.tick.stamp_ns
        tick = replace(step.tick, stamp_ns=step.tick.stamp_ns - self._began_ns)
        lines = f"{line(tick)}\n{status_line(step, status)}"
        live = self._live
        if live is not None:
            self._do(lambda: live.update(Text(lines, no_wrap=True, overflow="ellipsis")))
        elif step.tick.stamp_ns >= self._next_ns:
            self._next_ns = step.tick.stamp_ns + NS_PER_S
            self._print(Text(lines))

    def report(self, report: "Report") -> None:
        """The checks as a table, and what they propose."""
        table = Table("check", "found", "asked for", "", box=None, pad_edge=False)
        for row in report.rows:
            colour = {"good": "green", "note": "yellow", "bad": "red"}[row.verdict.value]
            table.add_row(row.name, row.found, row.limit, Text(row.verdict.value, style=colour))
        self._print(table)
        proposal = "keep" if report.keep else f"discard ({', '.join(report.bad)})"
        self.say(f"proposal: {proposal}   k: keep   x: discard   t: discard and again   g: as proposed, and the next")

    def progress(self, progress: "Progress") -> None:
        """Scenario by distance."""
        rows = progress.table()
        distances = list(dict.fromkeys(distance for row in rows.values() for distance in row))
        table = Table("scenario", *distances, box=None, pad_edge=False)
        for scenario, row in rows.items():
            table.add_row(scenario, *(row.get(distance, "") for distance in distances))
        self._print(table)
        self.say(f"{progress.done} of {progress.wanted} episodes")

    def _print(self, what: Any) -> None:
        self._do(lambda: self._console.print(what, soft_wrap=not isinstance(what, Table)))

    def _do(self, call: Callable[[], None]) -> None:
        if self._gone:
            return
        if self._aside is not None:
            self._aside.do(call)
            return
        try:
            call()
        except OSError:
            self._lose()

    def _lose(self) -> None:
        self._gone = True
        self._over.set()


def status_line(step: "HandStep", status: "Status") -> str:
    """Phase, scenario, length, who drives, progress and room."""
    cell = "plan done" if status.cell is None else f"{status.cell.scenario} {status.cell.distance}"
    parts = [status.phase.value.upper(), cell]
    if status.frames:
        parts.append(f"{status.frames} frames {status.lasted_s:.1f} s")
    parts += [step.driver.value, f"{status.progress.done}/{status.progress.wanted}", status.room.sentence]
    return "  ".join(parts)


def first_frame(camera: "Camera", clock: "Clock", over: threading.Event) -> "Frame":
    """The first picture, which tells the size; CameraError when none comes within ``FIRST_FRAME_S``."""
    from mobile_vla.core import NS_PER_S, CameraError

    until_ns = clock.now_ns() + round(FIRST_FRAME_S * NS_PER_S)
    while clock.now_ns() < until_ns and not over.is_set():
        frame = camera.read(0.2)
        if frame is not None:
            return frame
        clock.sleep_until(clock.now_ns() + NS_PER_S // 100)
    if over.is_set():
        raise KeyboardInterrupt
    raise CameraError(f"camera {camera.name} gave no frame within {FIRST_FRAME_S:g} s: look after it, then start again")


def records_of(root: Path) -> Any:
    """The episodes that are in the data set now."""
    from mobile_vla.data.store import read_journal

    return read_journal(root)[0]


def _help() -> str:
    from mobile_vla.teleop.keyboard import HELP

    return f"{HELP}\n{KEYS}"


def _policy(options: argparse.Namespace) -> "Policy | None":
    if options.policy is None:
        return None
    import torch

    from mobile_vla.engine.load import load_policy

    torch.set_num_threads(1)
    if options.policy == SHIPPED:
        options.policy = None  # which policy_folder takes for the shipped one
    policy = load_policy(policy_folder(options))
    options.policy = SHIPPED if options.policy is None else options.policy
    return policy


def _contract(config: "RobotConfig", policy: "Policy | None") -> Any:
    """Of the policy, or the default; ConfigError when the robot may go faster than the contract's numbers can say."""
    from mobile_vla.core import ActionContract, ConfigError

    contract = policy.contract if policy is not None else ActionContract()
    if any(ours > theirs for ours, theirs in zip(config.limits.speed, contract.limits, strict=True)):
        raise ConfigError(
            f"the robot's limits.speed {config.limits.speed} are above the action contract's, {contract.limits}: "
            "lower limits.speed in the robot's file, else the data set could not hold what was driven"
        )
    return contract


def _shape(frame: "Frame") -> tuple[int, int, int]:
    height, width, channels = frame.pixels.shape
    return height, width, channels


def _metadata(options: argparse.Namespace, config: "RobotConfig", clock: str) -> dict[str, Any]:
    from mobile_vla.core.provenance import git_commit, machine

    return {
        "command": "record",
        "robot": config.name,
        "camera": config.camera_kind,
        "base": config.base_kind,
        "limits": list(config.limits.speed),
        "clock": clock,
        "policy": options.policy,
        "git_commit": git_commit(),
        "machine": machine(),
    }
