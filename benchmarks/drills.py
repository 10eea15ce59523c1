"""Fault drills: processes are killed, stopped, flooded, unplugged. How soon does the robot stand, and does it stay so?

Each run drives the robot to speed, does its fault at a random moment and takes it back later. The time to stop is from
the fault until the command to the base becomes zero and stays so while the fault lasts, as heard by a recorder in a
process of its own. It must be at most the fault's documented limit and 0.5 s. For 5 s after the fault was taken back no
command may move the robot. Exit code 1 when one did, when a stop took longer, or when the state was not as documented.
"""

import argparse
import itertools
import json
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from drill_robot import DrillError, end_politely
from drill_systems import Apart, Sample, Simulated, System, Wheeled
from machine import describe
from mobile_vla.core import NS_PER_S

GRACE_S = 0.5
WATCH_S = 5.0
LASTS_S = 3.0
STANDING_MPS, STANDING_RADPS = 0.01, 0.02
PROTECTIVE = "protective_stop"
KEPT_NS = (NS_PER_S * 25 // 100, NS_PER_S * 45 // 100)
"""After a killed control node, when the base has reached the speed of its last command and still obeys it."""


@dataclass(frozen=True)
class Drill:
    """``limit_s``: documented; ``why`` says what of. ``ends``: the state afterwards.

    ``moves``: nobody is left who commands the base; the time counts until its odometry shows that it brakes.
    """

    name: str
    system: type[System]
    limit_s: float
    why: str
    ends: str
    begin: Callable[[Any], None]
    end: Callable[[Any, int], None]
    lasts_s: float = LASTS_S
    moves: bool = False


@dataclass(frozen=True)
class Run:
    """One drill, once. Times from the fault, in s; ``stop_s`` None: never."""

    drill: str
    speed_mps: float
    stop_s: float | None
    stands_s: float | None
    state: str
    reason: str
    resumed: bool
    problem: str = ""


def _child(name: str, number: signal.Signals) -> Callable[[Simulated], None]:
    return lambda system: system.signal_child(name, number)


def _restarted(name: str) -> Callable[[Simulated, int], None]:
    return lambda system, began_ns: system.wait_for_restart(name, began_ns)


def _relay(mode: str) -> Callable[[Simulated], None]:
    return lambda system: system.relay.tell(mode)


def _foreigner(mode: str) -> Callable[[Simulated], None]:
    return lambda system: system.foreigner.tell(mode)


def _quiet(system: Simulated, began_ns: int) -> None:
    system.foreigner.tell("quiet")


def _lose_base(system: Simulated) -> None:
    system.relay.tell("alive")  # the camera goes on, so that nothing but the base is gone
    system.sim.kill()


def _new_base(system: Simulated, began_ns: int) -> None:
    system.sim.start()
    system.operator.wait_for("sim", since_ns=began_ns + NS_PER_S)
    system.relay.tell("pass")


DRILLS = (
    Drill(
        "inference killed", Simulated, 0.5, "age of the observation and of the command stream", PROTECTIVE,
        _child("inference", signal.SIGKILL), _restarted("inference"), 0.5,
    ),
    Drill(
        "inference stopped", Simulated, 0.5, "age of the observation and of the command stream", PROTECTIVE,
        _child("inference", signal.SIGSTOP), lambda system, _: system.signal_child("inference", signal.SIGCONT),
    ),
    Drill(
        "camera frozen", Simulated, 0.5, "age of the observation", PROTECTIVE,
        _relay("freeze"), lambda system, _: system.relay.tell("pass"),
    ),
    Drill(
        "camera gone", Simulated, 0.5, "age of the observation", PROTECTIVE,
        lambda system: system.relay.kill(), lambda system, _: system.relay.start(),
    ),
    Drill(
        "command flood", Simulated, 1.0, "window in which commands are counted", PROTECTIVE,
        _foreigner("chunk_flood"), _quiet,
    ),
    Drill(
        "instruction flood", Simulated, 0.5, "each new instruction begins at rest: time of the ramp", PROTECTIVE,
        _foreigner("instruction_flood"), _quiet,
    ),
    Drill(
        "NaN commands", Simulated, 0.0, "judged when it comes", PROTECTIVE,
        _foreigner("nan"), lambda system, _: None, 1.0,
    ),
    Drill(
        "network gone", Apart, 0.5, "age of the observation and of the command stream", PROTECTIVE,
        lambda system: system.pull(), lambda system, _: system.plug(), 4.0,
    ),
    Drill(
        "base gone", Simulated, 0.5, "age of the base's feedback", PROTECTIVE,
        _lose_base, _new_base,
    ),
    Drill(
        "base silent", Wheeled, 0.5, "silence on the servo bus", PROTECTIVE,
        lambda system: system.bus.tell("mute"), lambda system, _: system.bus.tell("speak"),
    ),
    Drill(
        "control stopped", Simulated, 0.5, "the base's own timeout", PROTECTIVE,
        _child("control", signal.SIGSTOP), lambda system, _: system.signal_child("control", signal.SIGCONT), 2.5, True,
    ),
    Drill(
        "control killed", Simulated, 0.5, "the base's own timeout", "holding",
        _child("control", signal.SIGKILL), _restarted("control"), 1.5, moves=True,
    ),
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--only", action="append", choices=[drill.name for drill in DRILLS], metavar="NAME")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--domain", type=int, default=83, help="and the next two")
    parser.add_argument("--json", action="store_true", help="print runs instead of the table")
    parser.add_argument("--out", type=Path, help="a file for every run, as JSON")
    parser.add_argument("--read", type=Path, nargs="+", metavar="FILE", help="show the runs of these files, do none")
    options = parser.parse_args()
    end_politely()
    chosen = [drill for drill in DRILLS if options.only is None or drill.name in options.only]
    if options.read is not None:
        runs = [Run(**values) for file in options.read for values in json.loads(file.read_text())]
        chosen = [drill for drill in chosen if any(run.drill == drill.name for run in runs)]
    else:
        describe()
        runs = drill_all(chosen, options.runs, options.seed, options.domain)
    if options.out is not None:
        options.out.write_text(json.dumps([asdict(run) for run in runs]))
    if options.json:
        print(json.dumps([asdict(run) for run in runs]))
    else:
        print_table(chosen, runs)
    return 0 if all(passed(drill, run) for drill in chosen for run in runs if run.drill == drill.name) else 1


def drill_all(chosen: list[Drill], count: int, seed: int, domain: int) -> list[Run]:
    """Every chosen drill ``count`` times; drills of one robot take turns, so that it stays up."""
    runs = []
    by_system = itertools.groupby(sorted(chosen, key=_system), _system)
    for number, (_, group) in enumerate(by_system):
        drills = list(group)
        with drills[0].system(domain + number) as system:
            for turn in range(count):
                for drill in drills:
                    chance = random.Random(f"{seed} {drill.name} {turn}")
                    runs.append(run_once(drill, system, chance))
                    print(f"{turn + 1:3} {runs[-1]}", file=sys.stderr, flush=True)
    return runs


def _system(drill: Drill) -> str:
    return drill.system.__name__


def run_once(drill: Drill, system: System, chance: random.Random) -> Run:
    """Drive to speed, do the fault, take it back, watch."""
    try:
        system.drive(chance)
        speed = system.recorder.speed
        began_ns = time.monotonic_ns()
        drill.begin(system)
        time.sleep(drill.lasts_s)
        drill.end(system, began_ns)
        ended_ns = time.monotonic_ns()
        time.sleep(WATCH_S)
    except DrillError as error:
        return Run(drill.name, float("nan"), None, None, "", "", False, str(error))
    return _judge(drill, system, began_ns, ended_ns, speed)


def _judge(drill: Drill, system: System, began_ns: int, ended_ns: int, speed: float) -> Run:
    odometry, commands = system.recorder.since("o", began_ns), system.told_since(began_ns)
    stood_ns = _for_good(odometry, _stands, None)
    if drill.moves:
        stop_ns = _braked(system.recorder.since("o", began_ns - NS_PER_S), began_ns, stood_ns)
        resumed = any(not command.is_zero for command in commands if command.ns > ended_ns)
    else:
        stop_ns = _for_good(commands, _is_zero, ended_ns)
        resumed = any(not command.is_zero for command in commands if command.ns > ended_ns)
    last = system.recorder.heard["s"][-1]
    return Run(
        drill.name,
        speed,
        None if stop_ns is None else (stop_ns - began_ns) / NS_PER_S,
        None if stood_ns is None else (stood_ns - began_ns) / NS_PER_S,
        last.state,
        last.reason,
        resumed,
    )


def _braked(odometry: list[Sample], began_ns: int, stood_ns: int | None) -> int | None:
    """When a base without commands began to brake, for good: the last sample near the speed that it kept until then."""
    if stood_ns is None:
        return None
    kept = [sample.speed for sample in odometry if KEPT_NS[0] < sample.ns - began_ns < KEPT_NS[1]]
    fast = [sample.ns for sample in odometry if kept and sample.speed >= 0.9 * np.median(kept)]
    return fast[-1] if fast else stood_ns


def _is_zero(sample: Sample) -> bool:
    return sample.is_zero


def _stands(sample: Sample) -> bool:
    return sample.speed <= STANDING_MPS and abs(sample.wz) <= STANDING_RADPS


def _for_good(samples: list[Sample], holds: Callable[[Sample], bool], until_ns: int | None) -> int | None:
    """Since when it held without a break up to ``until_ns``, else to the end; None when it did not hold then."""
    since = None
    for sample in reversed(samples):
        if until_ns is not None and sample.ns > until_ns:
            continue
        if not holds(sample):
            break
        since = sample.ns
    return since


def passed(drill: Drill, run: Run) -> bool:
    """In time, in the documented state, and not resumed."""
    in_time = run.stop_s is not None and run.stop_s <= drill.limit_s + GRACE_S
    return in_time and not run.resumed and not run.problem and run.state == drill.ends


def print_table(chosen: list[Drill], runs: list[Run]) -> None:
    """One line a drill."""
    print(f"{'fault':18}{'limit':>6}{'runs':>6}{'p50':>7}{'max':>7} s to stop   by itself   state afterwards")
    for drill in chosen:
        mine = [run for run in runs if run.drill == drill.name]
        times = np.array([run.stop_s if run.stop_s is not None else np.inf for run in mine])
        ends = Counter(f"{run.state} ({run.reason})" if not run.problem else run.problem for run in mine)
        states = ", ".join(f"{count} {state}" for state, count in ends.most_common())
        resumed = sum(run.resumed for run in mine)
        p50 = np.median(times)
        print(f"{drill.name:18}{drill.limit_s:6.1f}{len(mine):6}{p50:7.2f}{times.max():7.2f}{resumed:22}   {states}")
    failed = [run for drill in chosen for run in runs if run.drill == drill.name and not passed(drill, run)]
    print(f"{len(runs) - len(failed)} of {len(runs)} runs as documented")
    for run in failed:
        print(f"  not so: {run}")


if __name__ == "__main__":
    raise SystemExit(main())
