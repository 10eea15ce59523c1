"""The table of all policies: driving on the same scenes, error on the same recorded data, time of a step.

    python benchmarks/policies.py --policy compact=src/mobile_vla/policy/shipped --policy mine=runs/mine/final \
        --dataset runs/first/data/drive-0 --episodes 24 --out out/policies

The first policy named is the one that the others are compared with, scene by scene. Peers are checkpoints that another
Python has to run, because what they need does not go together with what ours need (``benchmarks/peer_act.py``); they
drive fewer suites by default. DIR gets ``policies.md``, ``policies.json`` and for each policy the whole report of its
evaluation. Started again after a kill, what is there is not done again.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from machine import describe
from mobile_vla.checkpoint import is_saved
from mobile_vla.checkpoint.atomic import write_bytes
from mobile_vla.core import NS_PER_S, ConfigError, Frame, Instruction, MobileVLAError, Observation, Policy, Twist
from mobile_vla.evaluate import evaluate
from mobile_vla.evaluate.baselines import BASELINES
from mobile_vla.evaluate.plan import GROUPS
from mobile_vla.evaluate.provenance import provenance
from mobile_vla.evaluate.statistics import Paired
from mobile_vla.language import Grammar
from mobile_vla.policy.kinds import kind_of
from mobile_vla.policy.preprocess import HEIGHT, WIDTH
from mobile_vla.policy.weights import load_network
from mobile_vla.runtime import ChunkQueue
from mobile_vla.safety import Inputs, Supervisor
from mobile_vla.sim.limits import LIMITS
from mobile_vla.sim.scenarios import draw_scene
from mobile_vla.sim.world import World

ROW, JSON, TABLE, PEERS = "row.json", "policies.json", "policies.md", "peers"
START = "start"
"""A training of the full-size policies leaves here, beside its stages, the weights that it began with."""
WARM, TIMES = 20, 200

Row = dict[str, Any]
"""Plain values, as in ``policies.json``: a policy's figures."""


@dataclass(frozen=True)
class Asked:
    """What is measured of each policy."""

    suites: tuple[str, ...]
    episodes: int
    dataset: Path
    limit: int | None
    times: int
    processes: int

    @property
    def figures(self) -> dict[str, Any]:
        """All that the figures hang on."""
        return {
            "suites": list(self.suites),
            "episodes": self.episodes,
            "dataset": str(self.dataset.resolve()),
            "limit": self.limit,
            "times": self.times,
        }


def measure(name: str, folder: Path, asked: Asked, out: Path) -> Row:
    """A policy's row; the one kept in ``out`` where the same was measured before, of the same weights by this code."""
    made_by = provenance(folder, Grammar.load(), first_seed=0, episodes=asked.episodes, suites=asked.suites)
    key = asked.figures | {"fingerprint": made_by.fingerprint}
    kept = out / ROW
    if kept.is_file() and (row := json.loads(kept.read_text(encoding="utf-8")))["asked"] == key:
        return row | {"name": name}
    print(f"{name}: {folder}", file=sys.stderr)
    network = load_network(folder)
    kind = kind_of(network)
    total = sum(each.numel() for each in network.parameters())
    latency = step_times(kind.drive(network), asked.times)
    report = evaluate(
        folder,
        asked.suites,
        asked.episodes,
        asked.processes,
        out,
        drivers=("policy",),
        dataset=asked.dataset,
        limit=asked.limit,
        console=Console(quiet=True),
    ).to_dict()
    row = {
        "name": name,
        "kind": kind.name,
        "parameters": total,
        "trained": total - _unlearnt(folder),
        "latency": latency,
        "groups": {group: by["policy"]["success"] for group, by in report["groups"].items()},
        "together": report["together"].get("policy", {}).get("success"),
        "objects": report["objects"].get("policy", {}).get("both_right"),
        "offline": report["offline"],
        "outcomes": dict(_outcomes(report)),
        "made": report["provenance"] | {"checkpoint_origin": None},
        "asked": key,
    }
    text = json.dumps(row, indent=1, ensure_ascii=False)
    write_bytes(kept, text.encode() + b"\n")
    return json.loads(text)


def step_times(policy: Policy, times: int) -> dict[str, float]:
    """Milliseconds from a camera frame to a safe command on one thread: policy, chunk queue and supervisor."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    world = World("planar")
    try:
        world.load(draw_scene("1box_vertical_left_medium", 1).scene)
        pixels = world.render(HEIGHT, WIDTH)
    finally:
        world.close()
    load = os.getloadavg()[0]
    state = policy.reset(Instruction("pass the box on the left and stop at the red cup"))
    queue, supervisor, spent = ChunkQueue(), Supervisor(LIMITS), []
    period_ns = round(NS_PER_S / policy.contract.frame_rate_hz)
    for number in range(WARM + times):
        now_ns = number * period_ns
        frame = Frame(pixels, now_ns, "simulation", "front", number)
        began = time.perf_counter()
        step = policy.step(Observation(frame, Twist(0.3, 0.0, 0.1)), state)
        queue.offer(step.chunk)
        plan = queue.plan(now_ns)
        supervisor.step(now_ns, Inputs(plan.twist, plan.capture_ns))
        spent.append(1e3 * (time.perf_counter() - began))
        state = step.state
    torch.set_num_threads(threads)
    p50, p99 = np.percentile(spent[WARM:], [50, 99])
    return {"p50_ms": float(p50), "p99_ms": float(p99), "times": times, "load_before": load}


def _unlearnt(folder: Path) -> int:
    """Parameters that the run's training left as they were; none where the run did not keep what it began with."""
    start = folder.parent / START
    if not is_saved(start):
        return 0
    before, after = (dict(load_network(each).named_parameters()) for each in (start, folder))
    return sum(value.numel() for name, value in after.items() if name in before and bool((value == before[name]).all()))


def _outcomes(report: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """Success by scene and words."""
    for episode in report["episodes"]:
        planned = episode["planned"]
        key = "/".join(str(planned[part]) for part in ("suite", "scenario", "seed", "words"))
        yield key, episode["verdict"]["success"]


def compared(row: Row, first: Row) -> Paired:
    """Success of the first policy and of another, on the scenes of the groups that both drove."""
    mine, theirs = first["outcomes"], row["outcomes"]
    shared = [key for key in mine if key in theirs and key.partition("/")[0] in GROUPS]
    return Paired.of((mine[key], theirs[key]) for key in shared)


def markdown(rows: Sequence[Row]) -> str:
    """Three tables and where they come from. ConfigError where the rows are not about the same recorded data."""
    if len({(row["offline"]["data_hash"], row["offline"]["episodes"]) for row in rows}) != 1:
        raise ConfigError("the policies were not compared with the same recorded data: measure them by one command")
    return "\n\n".join(
        ["\n".join(part) for part in (_driving(rows), _recorded(rows), _latency(rows))] + ["\n".join(_made(rows))]
    )


def _driving(rows: Sequence[Row]) -> Iterator[str]:
    groups = [group for group in GROUPS if any(group in row["groups"] for row in rows)]
    has_objects = any(row["objects"] for row in rows)
    first = rows[0]
    heads = ["policy", "parameters (learnt here)", *groups, f"all {len(groups)}"]
    heads += ["names exchanged, both right"] * has_objects + [f"only {first['name']} : only this (p)"]
    yield "Success in closed loop: share [95 % interval] (count)."
    yield ""
    yield from _head(heads)
    for row in rows:
        is_whole = all(group in row["groups"] for group in groups)
        cells = [row["name"], f"{row['parameters']:,} ({row['trained']:,})"]
        cells += [_share(row["groups"].get(group)) for group in groups]
        cells += [_share(row["together"] if is_whole else None)] + [_share(row["objects"])] * has_objects
        yield _line([*cells, "" if row is first else _pair(compared(row, first))])


def _recorded(rows: Sequence[Row]) -> Iterator[str]:
    offline = rows[0]["offline"]
    yield (
        f"Recorded data, {offline['part']} part ({offline['episodes']} episodes, {offline['frames']} frames): mean "
        "absolute error of the first action in shares of the range, and actions within 0.1 of it on every axis."
    )
    yield ""
    yield from _head(["", *offline["axes"], "within 0.1"])
    named = [(row["name"], row["offline"]["policy"]) for row in rows]
    named += [(f"*{name.replace('_', ' ')}*", offline["baselines"][name]["errors"]) for name in BASELINES]
    for name, errors in named:
        yield _line([name, *map(_estimate, errors["first"]["mae_of_range"]), _estimate(errors["within"])])


def _latency(rows: Sequence[Row]) -> Iterator[str]:
    yield "From a frame to a safe command, one thread, float32, batch 1, ms."
    yield ""
    yield from _head(["policy", "p50", "p99", "times", "load of the machine before"])
    for row in rows:
        spent = row["latency"]
        figures = [f"{spent['p50_ms']:.1f}", f"{spent['p99_ms']:.1f}", str(spent["times"])]
        yield _line([row["name"], *figures, f"{spent['load_before']:.1f}"])


def _made(rows: Sequence[Row]) -> Iterator[str]:
    first = rows[0]["made"]
    yield f"{first['machine']}; {first['renderer']}."
    yield ""
    for row in rows:
        made = row["made"]
        versions = f"torch {made['versions']['torch']}, commit {_short(made['git_commit'])}, {made['began']}"
        weights = f"weights {made['weights_sha256'][:16]}"
        yield f"- {row['name']}: {row['kind']}, {weights}, {versions}. {row['offline']['remarks'][-1]}"


def _short(commit: str | None) -> str:
    """A dozen digits, and whether files differed from it."""
    digits, plus, changes = (commit or "unknown").partition("+")
    return digits[:12] + plus + changes


def _head(names: Sequence[str]) -> Iterator[str]:
    yield _line(names)
    yield "|" + "---|" * len(names)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _share(share: Mapping[str, Any] | None) -> str:
    if share is None or share["value"] is None:
        return "–"
    low, high = 100 * share["low"], 100 * share["high"]
    return f"{100 * share['value']:.0f} % [{low:.0f}, {high:.0f}] ({share['count']}/{share['total']})"


def _estimate(estimate: Mapping[str, float]) -> str:
    return f"{100 * estimate['value']:.1f} % [{100 * estimate['low']:.1f}, {100 * estimate['high']:.1f}]"


def _pair(paired: Paired) -> str:
    return f"{paired.only_first} : {paired.only_second} ({paired.p_value:.2g})"


def peers(python: Path, named: Mapping[str, Path], asked: Asked, out: Path) -> list[Row]:
    """The rows of checkpoints that ``python`` has to run: this very program under it, in the folder ``out``."""
    from peer_act import surroundings

    command = [str(python), __file__, "--dataset", str(asked.dataset), "--out", str(out)]
    command += [f"--episodes={asked.episodes}", f"--times={asked.times}", f"--processes={asked.processes}"]
    command += [] if asked.limit is None else [f"--limit={asked.limit}"]
    command += [part for suite in asked.suites for part in ("--suite", suite)]
    command += [part for name, folder in named.items() for part in ("--policy", f"{name}={folder}")]
    done = subprocess.run(command, env=surroundings(out / "plugin"), stdout=subprocess.DEVNULL)
    if done.returncode:
        raise ConfigError(f"{python} could not measure the peers: it says why above; see benchmarks/peer_act.py")
    return json.loads((out / JSON).read_text(encoding="utf-8"))["policies"]


def _named(text: str) -> tuple[str, Path]:
    name, is_named, folder = text.partition("=")
    if not is_named or not re.fullmatch(r"\w[\w ,.()-]*", name) or not folder:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FOLDER, with letters, digits and spaces in the name")
    return name, Path(folder)


def _folder(out: Path, name: str) -> Path:
    return out / re.sub(r"[ ,()]+", "-", name).strip("-")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", type=_named, action="append", metavar="NAME=FOLDER", required=True)
    parser.add_argument("--peer", type=_named, action="append", metavar="NAME=FOLDER", default=[])
    parser.add_argument("--lerobot", type=Path, metavar="PYTHON", help="what runs the peers, see peer_act.py")
    parser.add_argument("--dataset", type=Path, required=True, metavar="DIR", help="recorded drives, divided")
    parser.add_argument("--episodes", type=int, default=24, metavar="N", help="scenes of each suite (default 24)")
    parser.add_argument("--suite", action="append", metavar="NAME", help=f"default {', '.join(GROUPS)}")
    parser.add_argument("--objects", action="store_true", help="also pairs of scenes under exchanged names")
    parser.add_argument("--peer-suite", action="append", metavar="NAME", help="of the peers; default routes")
    parser.add_argument("--limit", type=int, metavar="N", help="so many recorded episodes, drawn by lot (default all)")
    parser.add_argument("--times", type=int, default=TIMES, metavar="N", help=f"steps to time (default {TIMES})")
    parser.add_argument("--processes", type=int, default=2, metavar="N")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args()
    if options.peer and not options.lerobot:
        parser.error("--peer needs the Python that runs it: --lerobot PYTHON")
    suites = (*(options.suite or GROUPS), *(["objects"] if options.objects else []))
    counts = (options.limit, options.times, options.processes)
    asked = Asked(suites, options.episodes, options.dataset, *counts)
    if not options.json:
        describe()
    try:
        rows = [measure(name, folder, asked, _folder(options.out, name)) for name, folder in options.policy]
        if options.peer:
            theirs = Asked(tuple(options.peer_suite or ("routes",)), options.episodes, options.dataset, *counts)
            rows += peers(options.lerobot, dict(options.peer), theirs, options.out / PEERS)
        table = markdown(rows)
    except MobileVLAError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    text = json.dumps({"policies": rows}, indent=1, ensure_ascii=False)
    write_bytes(options.out / JSON, text.encode() + b"\n")
    write_bytes(options.out / TABLE, table.encode() + b"\n")
    print(text if options.json else table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
