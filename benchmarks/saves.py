"""Saves that are killed at random moments, at every step they take, and on full disks: is a checkpoint ever lost?

A kill takes the process, not the power: what the system has taken over but not yet written survives it, so whether
fsync does its part is not shown here. At the first loss each part of the drill ends; the exit code is 1 then.
"""

import argparse
import itertools
import json
import os
import random
import re
import signal
import statistics
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from machine import describe
from mobile_vla.core import CheckpointError
from saves_harm import Trap, small_disk
from saves_home import Home, losses, mend, stage


@dataclass
class Score:
    """What the drill found."""

    kills: int = 0
    boundaries: int = 0
    full: int = 0
    lost: list[str] = field(default_factory=list)
    stages: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    disk: str = "none"

    def note(self, what: str, wrong: list[str]) -> None:
        self.lost += [f"{what}: {each}" for each in wrong]


@contextmanager
def saver(home: Home, first: int, trap_at: int = 0) -> Iterator[tuple[int, int]]:
    """A process that saves one step after the other, or one up to its n-th call: its number, a pipe of its reports."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(ours)
            trap = Trap(spring=lambda: os.kill(os.getpid(), signal.SIGKILL))
            if trap_at:
                trap.install()

            def report(line: str) -> None:
                os.write(theirs, f"{line}\n".encode())
                trap.at = trap_at if line.startswith("begin") else trap.at

            for step in itertools.count(first):
                home.save(step, report)
                if trap_at:
                    break
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(theirs)
    try:
        yield child, ours
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(child, 0)
        os.close(ours)


def rest_of(pipe: int) -> list[str]:
    """Reports up to the end of the process."""
    data = b""
    while piece := os.read(pipe, 1 << 16):
        data += piece
    return data.decode().splitlines()


def seconds_of_a_save(home: Home, steps: range) -> float:
    """From begin to end, in the middle of some."""
    times: list[float] = []
    for step in steps:
        home.save(step, lambda line: None if line.startswith("saved") else times.append(time.perf_counter()))
    return statistics.median(end - begin for begin, end in zip(times[::2], times[1::2], strict=True))


def kill_at_moments(homes: list[Home], count: int, rng: random.Random, score: Score) -> None:
    """Kill ``count`` savers, each at a moment drawn over somewhat more than one save."""
    longest = {home: 1.25 * seconds_of_a_save(home, range(1, 8)) for home in homes}
    for number in range(count):
        home = homes[number % len(homes)]
        before, _ = home.whole()
        with saver(home, max(before) + 1) as (child, pipe):
            first = os.read(pipe, 1)  # the first letter of the first report
            time.sleep(rng.uniform(0, longest[home]))
            os.kill(child, signal.SIGKILL)
            reports = (first.decode() + "\n".join(rest_of(pipe))).splitlines()
        score.kills += 1
        score.stages[stage(home, reports)] += 1
        score.note(f"kill {number}", losses(home, before, reports) or mend(home))
        if score.lost:
            return


def kill_at_boundaries(homes: list[Home], score: Score) -> None:
    """Kill a saver before its first, second, third ... call of that kind, until it gets through."""
    for home in homes:
        for number in itertools.count(1):
            before, _ = home.whole()
            with saver(home, max(before) + 1, trap_at=number) as (child, pipe):
                reports = rest_of(pipe)
                _, status = os.waitpid(child, 0)
            wrong = losses(home, before, reports)
            if os.WIFEXITED(status):
                wrong += [] if os.WEXITSTATUS(status) == 0 else ["the save failed by itself"]
                score.note(f"boundary {number}", wrong)
                break
            score.boundaries += 1
            score.stages[stage(home, reports)] += 1
            score.note(f"boundary {number}", wrong or mend(home))
            if score.lost:
                return


def fill_disks(root: Path, count: int, rng: random.Random, size: int) -> Score:
    """Save ``count`` times on a disk that is too full, or becomes so at some step of the save."""
    score = Score()
    disk = small_disk(root, 6 * size + (4 << 20))
    score.disk = "a tmpfs" if disk.mounted else "files of bounded size: no disk could be mounted here"
    homes = [Home(root / "steps", False, size), Home(root / "over", True, size)]
    trap = Trap()
    trap.install()
    calls: dict[Home, int] = {}
    for home in homes:
        home.root.mkdir()
        home.save(1)
        calls[home] = calls_of_a_save(home, 2, trap)
    for number in range(5 * count):
        if score.full == count:
            break
        home = homes[number % len(homes)]
        before, _ = home.whole()
        reports: list[str] = []
        foreseen = disk.mounted and rng.random() < 0.4
        free = rng.choice((0, rng.randrange(size)))
        if foreseen:
            disk.squeeze(free)
        else:
            trap.spring = lambda free=free: disk.squeeze(free)
            trap.at = rng.randint(1, calls[home])
        wrong = []
        try:
            home.save(max(before) + 1, reports.append)
            kind = FITTED
        except CheckpointError as error:
            kind = kind_of(str(error))
            if kind == "another" or (foreseen and kind != FORESEEN):
                wrong.append(f"the error does not tell of the full disk: {error}")
        except Exception:
            kind = "another"
            wrong.append(traceback.format_exc())
        trap.at = 0
        disk.relieve()
        score.full += kind != FITTED
        score.errors[kind] += 1
        score.stages[stage(home, reports)] += 1
        score.note(f"full disk {number}", wrong + (losses(home, before, reports) or mend(home)))
        if score.lost:
            break
    return score


FITTED = "none: it was saved before the disk was full"
FORESEEN, MET = "foreseen: names what is needed and what is free", "met in the middle: names what is free"


def calls_of_a_save(home: Home, step: int, trap: Trap) -> int:
    """How often the trap could spring before it is saved."""
    counts: list[int] = []
    trap.at = most = 10**6
    home.save(step, lambda line: counts.append(most - trap.at))
    trap.at = 0
    return counts[1]


def kind_of(error: str) -> str:
    if re.search(r"needs \d\S* \w+ of free space and has \d\S* \w+", error):
        return FORESEEN
    return MET if re.search(r"is full \(\d\S* \w+ free\)", error) else "another"


def in_a_process_of_its_own(work: Callable[[], Score]) -> Score:
    """Name spaces and hooks stay there."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(ours)
            score = work()
            os.write(theirs, json.dumps(vars(score)).encode())
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(theirs)
    answer = "".join(rest_of(ours))
    os.close(ours)
    _, status = os.waitpid(child, 0)
    if status:
        raise SystemExit("the part with full disks broke off")
    values = json.loads(answer)
    return Score(**{**values, "stages": Counter(values["stages"]), "errors": Counter(values["errors"])})


def drill(folder: Path, kills: int, full_disks: int, size: int, seed: int) -> Score:
    """All of it, below ``folder``."""
    rng = random.Random(seed)
    score = Score()
    homes = [Home(folder / "steps", False, size), Home(folder / "over", True, size)]
    for home in homes:
        home.root.mkdir()
    kill_at_moments(homes, kills, rng, score)
    kill_at_boundaries(homes, score)
    (folder / "disk").mkdir()
    full = in_a_process_of_its_own(lambda: fill_disks(folder / "disk", full_disks, rng, min(size, 1 << 20)))
    score.full, score.errors, score.disk = full.full, full.errors, full.disk
    score.stages += full.stages
    score.lost += full.lost
    return score


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300, help="at random moments (default 300)")
    parser.add_argument("--full-disks", type=int, default=50, help="(default 50)")
    parser.add_argument("--bytes", type=int, default=2_000_000, help="of one checkpoint (default 2,000,000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where to save (default: the folder for temporary files)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not options.json:
        describe()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        score = drill(Path(folder), options.kills, options.full_disks, options.bytes, options.seed)
    seconds = time.perf_counter() - began
    if options.json:
        print(json.dumps({**vars(score), "seconds": seconds}))
    else:
        show(score, options.bytes, seconds)
    sys.exit(bool(score.lost))


def show(score: Score, size: int, seconds: float) -> None:
    print(f"{score.kills} saves of {size:,} bytes killed at random moments")
    print(f"{score.boundaries} killed before each call that makes, renames, removes or syncs a file or folder")
    print(f"{score.full} on a full disk ({score.disk})")
    print("how far they had come:")
    for name, count in score.stages.most_common():
        print(f"  {name:52} {count:5}")
    print("errors of a full disk:")
    for name, count in score.errors.most_common():
        print(f"  {name:52} {count:5}")
    print(f"checkpoints lost, or next saves that went wrong: {len(score.lost)}; {seconds:.0f} s")
    for each in score.lost[:20]:
        print(f"  {each}")


if __name__ == "__main__":
    main()
