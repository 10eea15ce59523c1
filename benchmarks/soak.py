"""Driving episodes one after another over the robot's processes: do memory or file handles grow?

The simulated robot, four nodes and ``up``, each a process. A new scene and instruction by topic each time; the
simulation judges each outcome from the true state. The slope leaves out the warm-up; "at last" is that of the last
third of what remains.
"""

import argparse
import json
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from drill_robot import DrillError, Operator, Up, end_politely, wait_until, wire_words
from machine import describe
from mobile_vla.evaluate.plan import GROUPS, plan_episodes
from mobile_vla.language import Grammar

SAMPLE_S = 10.0
EPISODE_LIMIT_S = 60.0
SHORTEST_EPISODE_S = 3.0  # on average; by it so many scenes are drawn that they last
NODES = ("sim", "control", "camera", "inference", "monitoring")


@dataclass
class Series:
    """Of one process: seconds, resident MiB and open files at each sample."""

    at_s: list[float] = field(default_factory=list)
    rss_mib: list[float] = field(default_factory=list)
    fds: list[int] = field(default_factory=list)

    def add(self, at_s: float, pid: int) -> None:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        self.at_s.append(at_s)
        self.rss_mib.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
        self.fds.append(len(os.listdir(f"/proc/{pid}/fd")))

    def summary(self, warm_s: float) -> dict[str, float]:
        at_s, rss = np.array(self.at_s), np.array(self.rss_mib)
        warm = at_s >= warm_s
        slope = np.polyfit(at_s[warm] / 3600, rss[warm], 1)[0] if warm.sum() > 2 else float("nan")
        fds = np.array(self.fds)[warm]
        last = at_s >= at_s[-1] - (at_s[-1] - warm_s) / 3
        values = {
            "start_mib": rss[0],
            "warm_mib": rss[warm][0] if warm.any() else float("nan"),
            "end_mib": rss[-1],
            "max_mib": rss.max(),
            "slope_mib_per_h": slope,
            "last_slope_mib_per_h": np.polyfit(at_s[last] / 3600, rss[last], 1)[0] if last.sum() > 2 else float("nan"),
            "fds_min": fds.min(initial=10**6),
            "fds_max": fds.max(initial=0),
        }
        return {key: float(value) for key, value in values.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--warm-up", type=float, default=5.0, metavar="MINUTES", help="left out of the slope")
    parser.add_argument("--domain", type=int, default=81)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path, help="a file for samples and outcomes, as JSON")
    options = parser.parse_args()
    end_politely()
    describe()
    words = wire_words(options.domain)
    with Operator(options.domain) as operator:
        up = Up("--sim", *words)
        try:
            operator.wait_for(*NODES)
            result = _drive(operator, up, options.minutes * 60, options.warm_up * 60)
            restarts = [line for line in up.said if "started again" in line or "killed" in line]
        finally:
            up.close()
    if options.out is not None:
        options.out.write_text(json.dumps({**result, "restarts": restarts}, ensure_ascii=False))
    if options.json:
        print(json.dumps({key: result[key] for key in ("summary", "episodes", "successes", "failures")}))
    else:
        _print(result, options)
    for line in restarts:
        print(line)
    return 1 if restarts else 0


def _drive(operator: Operator, up: Up, seconds: float, warm_s: float) -> dict:
    series = {name: Series() for name in (*NODES, "up")}
    count = max(1, int(seconds / SHORTEST_EPISODE_S / len(GROUPS)))
    planned = plan_episodes("all", count, Grammar.load())
    episodes = [planned[group * count + turn] for turn in range(count) for group in range(len(GROUPS))]
    outcomes, began_s, due_s = [], time.monotonic(), 0.0

    def sample() -> bool:
        nonlocal due_s
        now_s = time.monotonic() - began_s
        if now_s >= due_s:
            due_s += SAMPLE_S
            for name, pid in (*up.pids.items(), ("up", up.pid)):
                series[name].add(now_s, pid)
        return now_s > seconds

    for episode in episodes:
        if sample():
            break
        try:
            operator.rest()
            operator.scene(episode.scenario, episode.seed)
            operator.say(episode.words)
            wait_until(
                lambda: sample() or "success" in operator.verdict or operator.stopped, EPISODE_LIMIT_S, "its end"
            )
        except DrillError as error:
            outcomes.append({"scenario": episode.scenario, "success": False, "failure": str(error)})
        else:
            if operator.stopped:
                why = operator.safety["sentence"]
                outcomes.append({"scenario": episode.scenario, "success": False, "failure": f"stopped: {why}"})
            elif "success" in operator.verdict:
                outcomes.append({"scenario": episode.scenario, **operator.verdict})
    return {
        "minutes": (time.monotonic() - began_s) / 60,
        "summary": {name: each.summary(warm_s) for name, each in series.items()},
        "episodes": len(outcomes),
        "successes": sum(bool(outcome["success"]) for outcome in outcomes),
        "failures": [outcome for outcome in outcomes if not outcome["success"]],
        "series": {name: vars(each) for name, each in series.items()},
    }


def _print(result: dict, options) -> None:
    episodes, successes = result["episodes"], result["successes"]
    print(
        f"{result['minutes']:.1f} minutes, {episodes} episodes, {successes} successes; warm-up {options.warm_up:g} min"
    )
    print(f"{'process':12}{'start':>9}{'warm':>9}{'end':>9}{'max':>9} MiB{'slope':>9}{'at last':>9} MiB/h   open files")
    for name, values in result["summary"].items():
        sizes = "".join(f"{values[key]:9.1f}" for key in ("start_mib", "warm_mib", "end_mib", "max_mib"))
        files = f"{values['fds_min']:.0f} to {values['fds_max']:.0f}"
        slopes = f"{values['slope_mib_per_h']:9.2f}{values['last_slope_mib_per_h']:9.2f}"
        print(f"{name:12}{sizes}    {slopes}         {files}")
    for failure, count in Counter(each["failure"].partition(":")[0] for each in result["failures"]).most_common():
        print(f"not as told: {count} {failure}")


if __name__ == "__main__":
    raise SystemExit(main())
