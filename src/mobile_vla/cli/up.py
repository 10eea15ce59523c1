"""``mobile-vla up``: all processes of a robot, started, watched, and started again when they end."""

import argparse
import importlib.util
import queue
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobile_vla.cli.robot_options import (
    add_node,
    add_robot,
    node_config,
    node_words,
    require_undriven,
    robot_of,
)
from mobile_vla.cli.shared import Commands, add_json, add_policy, natural, positive, print_json
from mobile_vla.core import ConfigError, MobileVLAError

if TYPE_CHECKING:
    from mobile_vla.ros.processes import Row
    from mobile_vla.ros.transport import Received

SCENARIO = "distractors"
WATCH_S = 0.1
UP_WITHIN_S = 90.0


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser("up", help="start a robot's processes and keep them running")
    add_robot(parser)
    add_policy(parser)
    add_node(parser)
    parser.add_argument(
        "--scene",
        metavar="SCENARIO",
        help=f"with --sim: what kind of scene; by default one that fits what --say says, or {SCENARIO}",
    )
    parser.add_argument("--seed", type=natural, default=1, help="with --sim: which scene of that kind")
    parser.add_argument("--max-seconds", type=positive, default=120.0, metavar="S", help="of one instruction")
    parser.add_argument(
        "--say", metavar="TEXT", help="with --sim: in a scene that fits these words, drive, judge, and end"
    )
    parser.add_argument(
        "--without-policy", action="store_true", help="start no inference here: it runs on another machine"
    )
    parser.add_argument("--record", type=Path, metavar="DIR", help="record everything as an MCAP bag in a new folder")
    parser.add_argument("--raw", action="store_true", help="with --record: frames as the policy sees them, not as JPEG")
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Until SIGTERM or Ctrl-C: 0. 1 when a process ends again and again. With ``--say``: 0 when it did as told."""
    from mobile_vla.ros.connect import connect
    from mobile_vla.ros.messages import diagnoses
    from mobile_vla.ros.processes import Processes
    from mobile_vla.ros.topics import DIAGNOSTICS

    _require_startable(options)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    processes = Processes(table(options), lambda sentence: print(sentence, file=sys.stderr, flush=True))
    transport = connect(node_config(options, "up"))
    heard: queue.SimpleQueue[str] = queue.SimpleQueue()

    def listen(received: "Received") -> None:
        for diagnosis in diagnoses(received.message):
            heard.put(diagnosis.name)

    transport.subscribe(DIAGNOSTICS, listen)
    prefix = transport.node.rpartition("/")[0]
    trial = _TrialThread(options, stop) if options.say is not None else None
    ending = None
    try:
        processes.start()
        if trial is not None:
            trial.start()
        while ending is None and not stop.wait(WATCH_S):
            while not heard.empty():
                namespace, _, name = heard.get().rpartition("/")
                if namespace == prefix:
                    processes.heard(name)
            ending = processes.watch()
    finally:
        processes.stop()
        transport.close()
    if trial is not None:
        trial.join(1.0)
        return trial.report(ending)
    if ending is not None:
        print(f"everything is stopped: {ending}", file=sys.stderr)
    return 0 if ending is None else 1


class _TrialThread(threading.Thread):
    """Tells the robot the words once it is up, and ends everything when it is judged."""

    def __init__(self, options: argparse.Namespace, stop: threading.Event) -> None:
        super().__init__(name="trial", daemon=True)
        self._options, self._over = options, stop
        self._verdict: dict[str, Any] | None = None
        self._error: MobileVLAError | None = None

    def run(self) -> None:
        from mobile_vla.ros.connect import connect
        from mobile_vla.ros.trial import Trial

        try:
            with Trial(connect(node_config(self._options, "operator"))) as trial:
                trial.wait_until_up(UP_WITHIN_S, ["recorder"] if self._options.record else [])
                end, verdict = trial.drive(self._options.say, self._options.max_seconds + 10.0)
                self._verdict = {"ending": end.ending, "status": end.status, **verdict}
        except MobileVLAError as error:
            self._error = error
        finally:
            self._over.set()

    def report(self, ending: str | None) -> int:
        """Print how it came out; the exit code."""
        if self._verdict is None:
            raise self._error or NoVerdictError(ending or "stopped before the robot had done as told")
        if self._options.json:
            print_json(self._verdict)
        else:
            print(_in_words(self._verdict))
        return 0 if self._verdict["success"] else 1


class NoVerdictError(MobileVLAError):
    """It ended before the drive was judged."""


def _in_words(verdict: dict[str, Any]) -> str:
    where = verdict["stop_distance_m"]
    distance = "" if where is None else f", {where:.2f} m from what was named"
    outcome = verdict["failure"] or "success"
    return f"{outcome}: {verdict['ending']}, {verdict['status']}{distance}, {verdict['duration_s']:.1f} s"


def _require_startable(options: argparse.Namespace) -> None:
    """What is wrong is said here, once, and not by each process again and again. Chooses the scene for ``--say``."""
    if options.raw and not options.record:
        raise ConfigError("--raw says how to record: give --record DIR too")
    if options.record and options.record.exists():
        raise ConfigError(f"{options.record} exists: choose another name, a bag is never overwritten")
    if options.say is not None and not options.sim:
        raise ConfigError("--say drives and judges in the simulation: add --sim, or use mobile-vla say beside up")
    if options.scene is not None and not options.sim:
        raise ConfigError("--scene says where the simulated robot stands: add --sim")
    robot_of(options)
    node_config(options, "up")
    if options.sim:
        _choose_scene(options)
        _require_module("mujoco")
    if not options.without_policy:
        _require_module("torch")
    require_undriven(options)


def _require_module(name: str) -> None:
    """As if it were imported here, which takes a while."""
    if importlib.util.find_spec(name) is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def _choose_scene(options: argparse.Namespace) -> None:
    from mobile_vla.language import Grammar, parse
    from mobile_vla.sim.choose import named_scene, scene_for

    goal = None if options.say is None else parse(options.say, Grammar.load())
    if goal is None or options.scene is not None:
        scene = named_scene(options.scene or SCENARIO, options.seed)
    else:
        scene = scene_for(goal, options.seed)
    options.scene, options.seed = scene.scenario, scene.seed


def table(options: argparse.Namespace) -> tuple["Row", ...]:
    """The processes: name, entry, period, and what restarts them."""
    from mobile_vla.ros.processes import Restart, Row

    node = node_words(options)
    file = ["--robot", str(options.robot)] if options.robot else []
    robot = ["--sim"] if options.sim else [*file, *options.settings]
    policy = [f"--policy={options.policy}"] if options.policy else []
    drawn = ["--noiseless-camera"] if options.sim else []
    seconds = f"--max-seconds={options.max_seconds}"
    rows = [
        Row("control", ("node", "control", *node, seconds, *robot)),
        Row("camera", ("node", "camera", *node, *robot)),
        Row("monitoring", ("node", "monitoring", *node)),
    ]
    if not options.without_policy:
        # torch takes its time to end
        rows.insert(2, Row("inference", ("node", "inference", *node, *policy, *drawn), stop_s=15.0))
    if options.record:
        raw = ["--raw"] if options.raw else []
        bag = ("node", "recorder", *node, f"--out={options.record}", *raw)
        rows.insert(0, Row("recorder", bag, restart=Restart.NEVER))
    if options.sim:
        scene = (f"--scene={options.scene or SCENARIO}", f"--seed={options.seed}")
        rows.insert(0, Row("sim", ("node", "sim", *node, *scene)))
    return tuple(rows)
