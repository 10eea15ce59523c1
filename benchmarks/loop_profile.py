"""Where the time of a decision goes, from the camera's frame to the command, in a threaded drive as a robot does it.

The camera is the test pattern, the base is the one of numbers, the policy is any that can be loaded. Two tables: how
long each stretch of the way takes, by the clock; and which part of the program the processor's time goes to, thread by
thread, by a sampler that looks on from outside (py-spy where it is installed, else perf, which can tell libraries
apart but not parts of a Python program). For the second, frames come as often as the policy can take them.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch

from machine import describe, latencies
from mobile_vla.core import ActionContract, Instruction, MonotonicClock, Observation, Policy, Step
from mobile_vla.engine.load import load_policy
from mobile_vla.policy.weights import SHIPPED
from mobile_vla.robot.bases.ideal import Ideal
from mobile_vla.robot.cameras.pattern import Pattern
from mobile_vla.runtime import DriveConfig, DriveLoop, Tick
from mobile_vla.runtime.realtime import show_names
from mobile_vla.safety import Supervisor

CONTROL_HZ = 50.0
CAMERA_HZ, OFTEN_HZ = 30.0, 120.0
WORDS = "go to the red cup"
WARM_UP = 20
SAMPLES_PER_S = 500
LEAST_SHARE = 0.5  # percent; what is less is put together
HERE = "mobile_vla/"
DRIVING = ("run_threaded", "_bootstrap (", "DriveLoop.run_threaded", "Thread._bootstrap (")
"""Functions that stand in the stacks of the drive's threads, and not in those of the start of the program."""
PARTS: tuple[tuple[str, str, str], ...] = (
    ("policy/preprocess.py", "", "fit and normalise"),
    ("policy/text.py", "", "words"),
    ("policy/encoders/", "", "eye"),
    ("policy/compact.py", "Eye", "eye"),
    ("policy/compact.py", "Residual", "eye"),
    ("policy/compact.py", "forward", "eye"),
    ("policy/compact.py", "point", "words and pointer"),
    ("policy/compact.py", "read", "words and pointer"),
    ("policy/compact.py", "pointed_box", "words and pointer"),
    ("policy/compact.py", "bearing_of", "words and pointer"),
    ("policy/compact.py", "motion_features", "memory and head"),
    ("policy/compact.py", "decide", "memory and head"),
    ("policy/memory.py", "", "memory and head"),
    ("policy/heads.py", "", "memory and head"),
    ("policy/compact.py", "command", "chunk and belief"),
    ("policy/compact.py", "grounding_of", "chunk and belief"),
    ("core/contract.py", "", "chunk and belief"),
    ("engine/backends/", "", "engine"),
    ("engine/", "", "around the engine"),
    ("policy/", "", "policy, around the network"),
    ("safety/watchdog.py", "repeats", "is the frame a new one"),
    ("safety/", "", "safety"),
    ("runtime/chunks.py", "", "chunk queue"),
    ("robot/cameras/", "", "camera"),
    ("robot/", "", "base"),
    ("runtime/decide.py", "", "hand-over between threads"),
    ("runtime/", "", "loop"),
    ("core/", "", "loop"),
)
"""Where a frame of the stack lies (file, beginning of the function's name) and how that is called; the first counts."""


class Marked:
    """The policy, noting when each step began and ended; ``rate_hz``: frames a second that it asks for."""

    def __init__(self, policy: Policy, rate_hz: float) -> None:
        self._policy = policy
        self._contract = replace(policy.contract, frame_rate_hz=rate_hz)
        self._inner = policy.contract
        self.steps: dict[int, tuple[int, int]] = {}

    @property
    def contract(self) -> ActionContract:
        return self._contract

    def reset(self, instruction: Instruction):
        return self._policy.reset(instruction)

    def step(self, observation: Observation, state) -> Step:
        began_ns = MonotonicClock().now_ns()
        step = self._policy.step(observation, state)
        self.steps[observation.frame.capture_ns] = (began_ns, MonotonicClock().now_ns())
        return step


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", type=Path, default=SHIPPED, help="a checkpoint or an engine folder")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each table")
    parser.add_argument("--camera", default="640x480", help="size of the camera's picture")
    parser.add_argument("--sampler", choices=("py-spy", "perf", "none"), help="default: the first that is installed")
    parser.add_argument(
        "--drive-only", action="store_true", help="drive with frames as often as can be, and say nothing"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    policy = load_policy(options.policy)
    width, height = map(int, options.camera.split("x"))
    if options.drive_only:
        drive(policy, width, height, OFTEN_HZ, OFTEN_HZ, options.seconds)
        show_names(main="ending")  # what the interpreter does at its end is not of the drive either
        return 0
    describe()
    print(f"{options.policy}; frames of {options.camera} at {CAMERA_HZ:g} Hz, control at {CONTROL_HZ:g} Hz")
    way = drive(policy, width, height, CAMERA_HZ, policy.contract.frame_rate_hz, options.seconds)
    for name, values in way.items():
        latencies(name, values[WARM_UP:])
    sampler = options.sampler or next((name for name in ("py-spy", "perf") if shutil.which(name)), "none")
    if sampler == "none":
        print("no sampler: pip install py-spy, or install perf")
        return 0
    words = [sys.executable, __file__, "--drive-only", f"--policy={options.policy}", f"--camera={options.camera}"]
    sample = by_py_spy if sampler == "py-spy" else by_perf
    print(f"\n{sampler}: shares of the processor's time, frames at {OFTEN_HZ:g} Hz")
    show(sample([*words, f"--seconds={options.seconds}"]))
    return 0


def drive(
    policy: Policy, width: int, height: int, camera_hz: float, decide_hz: float, seconds: float
) -> dict[str, list[float]]:
    """Drive for so long; how long each stretch took for each frame that was decided on, in ms."""
    clock = MonotonicClock()
    camera = Pattern(width=width, height=height, rate_hz=camera_hz).build(clock)
    base, marked = Ideal().build(clock), Marked(policy, decide_hz)
    way: dict[str, list[float]] = {
        name: []
        for name in (
            "captured, until the policy begins",
            "the policy's step",
            "until the next control step",
            "control step: queue, safety, base",
            "from the capture to the command",
        )
    }
    seen = [0]

    def note(tick: Tick) -> None:
        sent_ns = clock.now_ns()
        if tick.frame is None or tick.frame.capture_ns == seen[0]:
            return
        seen[0] = captured_ns = tick.frame.capture_ns
        began_ns, ended_ns = marked.steps.pop(captured_ns)
        stamps = (captured_ns, began_ns, ended_ns, tick.stamp_ns, sent_ns)
        stretches = [later - earlier for earlier, later in pairwise(stamps)]
        for values, spent_ns in zip(way.values(), [*stretches, sent_ns - captured_ns], strict=True):
            values.append(spent_ns / 1e6)

    camera.open()
    base.open()
    try:
        # settled as late as that, the policy may find the cup, or that there is none, and drive on
        config = DriveConfig(time_limit_s=seconds, settle_s=2 * seconds, control_rate_hz=CONTROL_HZ)
        outcome = DriveLoop(camera, base, marked, Supervisor(), clock, config, note).run_threaded(Instruction(WORDS))
        if outcome.error is not None:
            raise outcome.error
    finally:
        camera.close()
        base.close()
    return way


def by_py_spy(words: list[str]) -> Counter[tuple[str, str]]:
    """Samples by thread and part."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "stacks"
        command = ["py-spy", "record", "--format", "raw", "--threads", "--full-filenames", "--nonblocking"]
        command += ["--rate", str(SAMPLES_PER_S), "--output", str(out), "--", *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return count_stacks(out.read_text(encoding="utf-8").splitlines())


def count_stacks(lines: list[str]) -> Counter[tuple[str, str]]:
    """Of py-spy's raw format: frames from the outermost on, joined by semicolons, then the number of samples."""
    found: Counter[tuple[str, str]] = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        thread, *frames = stack.split(";")
        if any(frame.startswith(DRIVING) for frame in frames):
            found[thread_name(thread), part_of(frames)] += int(count)
    return found


def thread_name(text: str) -> str:
    """``thread (0x7F): drive-camera`` and the like; the main thread is the one with the control step."""
    name = text.rpartition(": ")[2].strip('"')
    return "drive-control" if name in ("MainThread", text) else name


def part_of(frames: list[str]) -> str:
    """By the innermost frame that is ours."""
    for frame in reversed(frames):
        function, _, place = frame.partition(" (")
        _, ours, path = place.rpartition(HERE)
        if not ours:
            continue
        for file, begins, name in PARTS:
            if path.startswith(file) and function.rpartition(".")[2].startswith(begins):
                return name
    return "Python's own threads and what is not ours"


def by_perf(words: list[str]) -> Counter[tuple[str, str]]:
    """Samples by thread and shared library."""
    with tempfile.TemporaryDirectory() as folder:
        data = str(Path(folder) / "perf.data")
        record = ["perf", "record", "-q", "-F", str(SAMPLES_PER_S), "-e", "cpu-clock", "-o", data, "--", *words]
        subprocess.run(record, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        report = ["perf", "report", "-i", data, "--stdio", "-q", "-F", "sample,comm,dso", "-t", ","]
        lines = subprocess.run(report, check=True, capture_output=True, text=True).stdout.splitlines()
    found: Counter[tuple[str, str]] = Counter()
    for line in lines:
        count, _, rest = line.strip().partition(",")
        thread, _, library = rest.partition(",")
        if count.strip().isdigit() and thread.strip().startswith("drive-"):
            found[thread.strip(), library.strip()] += int(count)
    return found


def show(found: Counter[tuple[str, str]]) -> None:
    """Threads by their time, and in each its parts, as percent of all samples."""
    total = sum(found.values())
    if not total:
        print("no samples: the sampler could not look into the process")
        return
    threads: Counter[str] = Counter()
    for (thread, _), count in found.items():
        threads[thread] += count
    for thread, whole in threads.most_common():
        print(f"{thread:44} {100 * whole / total:6.1f} %  ({whole} samples)")
        small = 0
        for part, count in Counter({part: n for (name, part), n in found.items() if name == thread}).most_common():
            if 100 * count / total < LEAST_SHARE:
                small += count
            else:
                print(f"  {part:42} {100 * count / total:6.1f} %")
        if small:
            print(f"  {'less than that each':42} {100 * small / total:6.1f} %")


if __name__ == "__main__":
    raise SystemExit(main())
