"""``mobile-vla up``: all processes of a robot, started, watched, and started again when they end."""

import argparse
import signal
import threading
from typing import TYPE_CHECKING

from mobile_vla.cli.robot_options import add_node, add_robot, node_config, node_words, robot_of
from mobile_vla.cli.shared import Commands, add_json, add_policy, natural

if TYPE_CHECKING:
    from mobile_vla.ros.processes import Row

WATCH_S = 0.1


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser("up", help="start a robot's processes and keep them running")
    add_robot(parser)
    add_policy(parser)
    add_node(parser)
    parser.add_argument("--scene", default="distractors", metavar="SCENARIO", help="with --sim: which kind of scene")
    parser.add_argument("--seed", type=natural, default=1, help="with --sim: which scene of that kind")
    parser.add_argument("--max-seconds", type=float, default=120.0, metavar="S", help="of one instruction")
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Until SIGTERM or Ctrl-C: 0. 1 when a process that must not end has ended, or one that ends again and again."""
    from mobile_vla.ros.connect import connect
    from mobile_vla.ros.messages import diagnoses
    from mobile_vla.ros.processes import Processes
    from mobile_vla.ros.topics import DIAGNOSTICS

    robot_of(options)  # what is wrong with it is said here, once, and not by each process
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    processes = Processes(table(options), lambda sentence: print(sentence, flush=True))
    transport = connect(node_config(options, "up"))
    heard: set[str] = set()
    transport.subscribe(DIAGNOSTICS, lambda received: heard.update(each.name for each in diagnoses(received.message)))
    prefix = transport.node.rpartition("/")[0]
    ending = None
    try:
        processes.start()
        while ending is None and not stop.wait(WATCH_S):
            while heard:
                name = heard.pop()
                if name.rpartition("/")[0] == prefix:
                    processes.heard(name.rpartition("/")[2])
            ending = processes.watch()
    finally:
        processes.stop()
        transport.close()
    if ending is not None:
        print(f"everything is stopped: {ending}", flush=True)
    return 0 if ending is None else 1


def table(options: argparse.Namespace) -> tuple["Row", ...]:
    """The processes: name, entry, period, and what restarts them."""
    from mobile_vla.ros.processes import Row

    node = node_words(options)
    file = ["--robot", str(options.robot)] if options.robot else []
    robot = ["--sim"] if options.sim else [*file, *options.settings]
    policy = [f"--policy={options.policy}"] if options.policy else []
    drawn = ["--noiseless-camera"] if options.sim else []
    seconds = f"--max-seconds={options.max_seconds}"
    rows = [
        Row("control", ("node", "control", *node, seconds, *robot)),
        Row("camera", ("node", "camera", *node, *robot)),
        Row("inference", ("node", "inference", *node, *policy, *drawn)),
        Row("monitoring", ("node", "monitoring", *node)),
    ]
    if options.sim:
        scene = (f"--scene={options.scene}", f"--seed={options.seed}")
        rows.insert(0, Row("sim", ("node", "sim", *node, *scene)))
    return tuple(rows)
