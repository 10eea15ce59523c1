"""``mobile-vla node``: one of the robot's processes, alone. ``mobile-vla up`` starts them all."""

import argparse
import json
import math
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobile_vla.cli.robot_options import add_node, add_robot, node_config, require_undriven, robot_of
from mobile_vla.cli.shared import Commands, add_json, add_policy, natural, policy_folder, positive
from mobile_vla.cli.teleop import add_stick, stick_of

if TYPE_CHECKING:
    from mobile_vla.ros.nodes.monitoring import Snapshot
    from mobile_vla.ros.transport import Transport

Run = Callable[[threading.Event], None]


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser("node", help="one process of a robot: camera, inference, control, monitoring, ...")
    nodes = parser.add_subparsers(dest="node", required=True, metavar="NODE")
    for name, make, about in NODES:
        node = nodes.add_parser(name, help=about)
        add_node(node)
        if name in ("camera", "control"):
            add_robot(node)
        if name == "inference":
            add_policy(node)
            node.add_argument(
                "--noiseless-camera",
                action="store_true",
                help="the camera is drawn, not real: the same picture twice is no sign that it hangs",
            )
        if name == "control":
            node.add_argument("--max-seconds", type=positive, default=120.0, metavar="S", help="of one instruction")
        if name == "sim":
            node.add_argument("--scene", default="distractors", metavar="SCENARIO", help="which kind of scene")
            node.add_argument("--seed", type=natural, default=1, help="which scene of that kind")
        if name == "monitoring":
            node.add_argument(
                "--heartbeat", action="store_true", help="publish the heartbeat of an operator's station, while it runs"
            )
        if name == "joy":
            add_stick(node)
        if name == "recorder":
            node.add_argument("--out", type=Path, required=True, metavar="DIR", help="the bag: a new folder")
            node.add_argument("--raw", action="store_true", help="frames as the policy sees them, not as JPEG")
        add_json(node)
        node.set_defaults(run=run, make=make)


def run(options: argparse.Namespace) -> int:
    """Run the node until SIGTERM or Ctrl-C; both end it politely."""
    from mobile_vla.ros.connect import connect
    from mobile_vla.ros.processes import die_with_parent
    from mobile_vla.runtime.realtime import show_names

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    die_with_parent()
    transport = connect(node_config(options, options.node))
    try:
        work = options.make(options, transport)
        show_names(main=options.node)
        work(stop)
    finally:
        transport.close()
    return 0


def _camera(options: argparse.Namespace, transport: "Transport") -> Run:
    from mobile_vla.core import MonotonicClock
    from mobile_vla.ros.nodes.camera import CameraNode

    return CameraNode(transport, robot_of(options, needs=("camera",)).camera.build(MonotonicClock())).run


def _inference(options: argparse.Namespace, transport: "Transport") -> Run:
    import torch

    from mobile_vla.engine.load import load_policy
    from mobile_vla.ros.nodes.inference import InferenceNode

    torch.set_num_threads(1)  # so small a network is fastest so
    folder = policy_folder(options)
    return InferenceNode(transport, load_policy(folder), folder.name, not options.noiseless_camera).run


def _control(options: argparse.Namespace, transport: "Transport") -> Run:
    from mobile_vla.core import MonotonicClock
    from mobile_vla.ros.nodes.control import RATE_HZ, ControlNode
    from mobile_vla.runtime.config import at_rate
    from mobile_vla.runtime.mission import MissionConfig
    from mobile_vla.safety import Supervisor

    robot = robot_of(options, needs=("base",))
    base = robot.base.build(MonotonicClock())
    require_undriven(options)
    node = ControlNode(
        transport,
        base,
        Supervisor(robot.limits, at_rate(robot.safety, RATE_HZ)),
        MissionConfig(time_limit_s=options.max_seconds),
        publish_odometry=robot.base_kind != "cmd_vel",
        ranges=robot.ranges,
    )
    signal.signal(signal.SIGUSR1, lambda *_: node.emergency_stop("an emergency stop came as signal SIGUSR1"))
    return node.run


def _monitoring(options: argparse.Namespace, transport: "Transport") -> Run:
    from mobile_vla.ros.nodes.monitoring import MonitoringNode

    show = _print_snapshot if options.json else _Table().show
    return MonitoringNode(transport, show, options.heartbeat).run


def _joy(options: argparse.Namespace, transport: "Transport") -> Run:
    from mobile_vla.core import MonotonicClock
    from mobile_vla.ros.nodes.joy import JoyNode

    return JoyNode(transport, stick_of(options, MonotonicClock())).run


def _recorder(options: argparse.Namespace, transport: "Transport") -> Run:
    from mobile_vla.ros.naming import topic_name
    from mobile_vla.ros.nodes.recorder import RecorderNode

    remap = node_config(options, options.node).remap
    return RecorderNode(
        transport, options.out, options.raw, lambda topic: topic_name(topic.name, options.namespace, remap)
    ).run


def _sim(options: argparse.Namespace, transport: "Transport") -> Run:
    from mobile_vla.ros.nodes.sim import SimNode
    from mobile_vla.sim.choose import named_scene
    from mobile_vla.sim.world import World

    world = World("rollers")
    world.load(named_scene(options.scene, options.seed))
    return SimNode(transport, world).run


NODES: tuple[tuple[str, Callable[[argparse.Namespace, Any], Run], str], ...] = (
    ("camera", _camera, "open the camera and publish its frames"),
    ("inference", _inference, "step the policy on frames, publish chunks of velocities"),
    ("control", _control, "own the base and the safety layer"),
    ("monitoring", _monitoring, "watch what all the others say"),
    ("joy", _joy, "publish a keyboard or gamepad, to take over and to stop"),
    ("recorder", _recorder, "record everything as an MCAP bag"),
    ("sim", _sim, "be the robot: simulated base, camera and room"),
)
"""Name, maker, and what it does."""


def _print_snapshot(snapshot: "Snapshot") -> None:
    """One object in one line, for programs that read line by line."""
    values = {
        "level": snapshot.level.name,
        "instruction": snapshot.instruction,
        "safety": _numbers(snapshot.safety.values) if snapshot.safety else None,
        "topics": {
            line.topic.name: {"freshness": line.freshness, "rate_hz": round(line.rate_hz, 2), "age_s": line.age_s}
            for line in snapshot.topics
        },
        "nodes": {name: {"message": node.message, **_numbers(node.values)} for name, node in snapshot.nodes.items()},
        "silent_nodes": snapshot.silent_nodes,
    }
    print(json.dumps(values, ensure_ascii=False, separators=(",", ":")), flush=True)


def _numbers(values: Mapping[str, str]) -> dict[str, str | int | float]:
    """On the wire a diagnosis has words alone; what JSON would read as a number becomes one."""
    return {key: _number(text) for key, text in values.items()}


def _number(text: str) -> str | int | float:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if is_number else text


class _Table:
    """In place on a terminal; elsewhere one line, when something changes."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(highlight=False)
        self._last = ""

    def show(self, snapshot: "Snapshot") -> None:
        from rich.table import Table

        state = snapshot.safety.values.get("state", "") if snapshot.safety else "unknown"
        sentence = snapshot.safety.message if snapshot.safety else "control says nothing"
        headline = f"{snapshot.level.name}  {state}: {sentence}  {snapshot.instruction!r}"
        if not self._console.is_terminal:
            if headline != self._last:
                self._console.print(headline, soft_wrap=True)
            self._last = headline
            return
        table = Table("topic", "state", "rate", "age", title=headline)
        for line in snapshot.topics:
            nominal = f" of {line.nominal_hz:g}" if line.nominal_hz else ""
            age = "" if line.age_s is None else f"{1e3 * line.age_s:.0f} ms"
            table.add_row(line.topic.name, line.freshness, f"{line.rate_hz:.1f}{nominal} Hz", age)
        for name, node in snapshot.nodes.items():
            table.add_row(
                name, "silent" if name in snapshot.silent_nodes else _LEVELS[min(node.level, 3)], node.message
            )
        self._console.clear()
        self._console.print(table)


_LEVELS = ("ok", "warn", "error", "stale")
