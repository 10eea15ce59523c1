"""How long a decision takes here and at the peers', from one run: LeRobot's ACT, and two runtimes on our own graph.

    python3.11 -m venv lerobot
    lerobot/bin/pip install lerobot==0.4.4
    python benchmarks/peer_speed.py --lerobot lerobot/bin/python [--policy DIR ...] [--json FILE]

Every side is a process of its own, held to the same cores and the same number of threads. They take turns of half a
second, in an order drawn anew in each round, so that all meet the same noise; a ratio is made within a round, and its
spread over the rounds stands beside it. Ours is timed from the camera's frame to the command, with the chunk queue and
the supervisor. ACT is LeRobot's own code in its default sizes for one camera of 224x224; its weights are random, which
changes no time. ``select_action`` is asked for a whole forward pass each time, and gets a batch that is normalised
already: less than ours has to do. A policy is a checkpoint or the folder of an engine; the two runtimes get the graph
of the first one, and inputs that lie ready.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from machine import describe, latencies
from mobile_vla.policy.weights import SHIPPED
from peer_speed_sides import ACT, ONNXRUNTIME, OPENVINO, POLICY, SELECT

CAMERAS = ["192x96", "224x224", "640x480"]
MARK = 15.0
"""So many times as long as ours shall ``select_action`` take."""
_END_S = 20.0


class MissingError(Exception):
    """A side cannot run here."""


@dataclass
class Party:
    """A side's process. ``rounds``: by work, the milliseconds of each round's calls."""

    process: subprocess.Popen
    name: str
    about: str
    works: list[str]
    rounds: dict[str, list[list[float]]] = field(default_factory=dict)

    def measure(self, work: str, seconds: float) -> None:
        """One turn. MissingError when the side is there no more."""
        line = ""
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps({"work": work, "seconds": seconds}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        if not line:
            raise MissingError(f"{self.name} ended before {work!r} was timed: what it said stands above")
        self.rounds.setdefault(work, []).append(json.loads(line))

    def close(self) -> None:
        with suppress(BrokenPipeError):  # what a dead side was told and did not read
            self.process.stdin.close()
        try:
            self.process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def begin(python: Path, side: str, threads: int, cores: list[int], home: Path, arguments: list[str]) -> Party:
    """Start a side. MissingError where there is no such Python, or it lacks what the side needs."""
    script = Path(__file__).with_name("peer_speed_sides.py")
    among = ",".join(map(str, cores))
    command = [str(python), str(script), side, "--threads", str(threads), "--cores", among, *arguments]
    around = (
        {"HF_HOME": str(home)}
        | os.environ
        | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore"}
    )
    try:
        process = subprocess.Popen(command, env=around, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    except OSError as error:
        raise MissingError(
            f"{python} cannot be run ({error.strerror}): give --lerobot the Python of an environment with lerobot 0.4.4"
        ) from error
    party = Party(process, side, "", [])
    said = json.loads(process.stdout.readline() or "{}")
    if not said.get("works"):
        party.close()
        what = f"has no {said['missing']}" if "missing" in said else f"did not get {side} to run (it says why above)"
        remedy = "pip install lerobot==0.4.4 there" if side == ACT else "install mobile-vla with its engines"
        raise MissingError(f"{python} {what}: {remedy}")
    party.name, party.about, party.works = said["name"], said["about"], said["works"]
    return party


def ratios(theirs: list[list[float]], ours: list[list[float]]) -> np.ndarray:
    """How many times as long theirs took, by the median of each round."""
    return np.array([np.median(a) / np.median(b) for a, b in zip(theirs, ours, strict=True)])


def compare(options: argparse.Namespace, threads: int, home: Path) -> list[dict[str, Any]]:
    cores = sorted(os.sched_getaffinity(0))[:threads]
    here = Path(sys.executable)
    with ExitStack() as open_parties:

        def party(*arguments: Any) -> Party:
            begun = begin(*arguments)
            open_parties.callback(begun.close)
            return begun

        peer = party(options.lerobot, ACT, threads, cores, home, [])
        ours = [
            party(here, POLICY, threads, cores, home, ["--policy", str(each), "--camera", *options.camera])
            for each in options.policy
        ]
        graph = ["--policy", str(options.policy[-1])]
        bare = [party(here, each, threads, cores, home, graph) for each in (ONNXRUNTIME, OPENVINO)]
        turns = [(each, work) for each in (peer, *ours, *bare) for work in each.works]
        rng = np.random.default_rng(threads)
        for _ in range(options.rounds):
            for place in rng.permutation(len(turns)):
                one, work = turns[place]
                one.measure(work, options.seconds)
    return report(threads, cores, peer, ours, bare)


def report(threads: int, cores: list[int], peer: Party, ours: list[Party], bare: list[Party]) -> list[dict[str, Any]]:
    print(f"\n{threads} thread{'s' * (threads > 1)}, pinned to core {', '.join(map(str, cores))}")
    rows = []
    for party in (peer, *ours, *bare):
        print(f"{party.name} ({party.about})")
        for work in party.works:
            spent = [each for turn in party.rounds[work] for each in turn]
            latencies(f"  {work}", spent)
            p50, p90, p99 = np.percentile(spent, [50, 90, 99])
            row = {"threads": threads, "side": party.name, "about": party.about, "work": work, "times": len(spent)}
            rows.append(row | {"p50_ms": p50, "p90_ms": p90, "p99_ms": p99})
    others = [(peer, SELECT), *((party, work) for party in bare for work in party.works)]
    for party in ours:
        for work in party.works:
            print(f"times as long as {party.name}, {work}:")
            for other, against in others:
                found = ratios(other.rounds[against], party.rounds[work])
                middle, least, most = np.median(found), found.min(), found.max()
                mark = f"; the mark is {MARK:g}" if other is peer else ""
                print(f"  {f'{other.name}, {against}':58} {middle:6.2f}  ({least:.2f} to {most:.2f}{mark})")
                row = {"threads": threads, "side": party.name, "work": work, "against": f"{other.name}, {against}"}
                rows.append(row | {"ratio": middle, "ratio_least": least, "ratio_most": most, "rounds": len(found)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lerobot", type=Path, required=True, metavar="PYTHON", help="of an environment with lerobot")
    parser.add_argument("--policy", type=Path, nargs="+", default=[SHIPPED], metavar="DIR", help="default: the shipped")
    parser.add_argument("--camera", nargs="+", default=CAMERAS, metavar="WxH", help=f"default: {' '.join(CAMERAS)}")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], metavar="N", help="default: 1 2")
    parser.add_argument("--rounds", type=int, default=15, help="default 15")
    parser.add_argument("--seconds", type=float, default=0.5, help="of each turn (default 0.5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there too")
    options = parser.parse_args()
    describe()
    rows = []
    try:
        with tempfile.TemporaryDirectory() as home:
            for threads in options.threads:
                rows += compare(options, threads, Path(home))
    except MissingError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
