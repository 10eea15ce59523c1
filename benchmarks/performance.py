"""Measures what docs/performance.md says, and writes it there: one command, on a machine that does nothing else.

    python benchmarks/performance.py --lerobot lerobot/bin/python --write docs/performance.md

Every part is measured by the command that a user has for it, in a process of its own. What was found is kept beside
the page (performance.json) with machine, date and commit; the regions of the page between ``<!-- begin NAME -->`` and
``<!-- end NAME -->`` are made of it anew, and nothing else is touched. A part that cannot be measured here, as of a GPU
where there is none, keeps what an earlier run found, and says so. ``--only`` measures some parts; ``--only none`` none.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from mobile_vla.core.provenance import git_commit, machine
from mobile_vla.engine.bench.counting import count
from mobile_vla.engine.bench.drawn import drawn
from mobile_vla.engine.bench.roofline import PREDICTED, floor_s
from mobile_vla.engine.bench.subject import Subject, choose
from mobile_vla.policy.step import step_of
from mobile_vla.policy.weights import SHIPPED
from performance_page import CLIP, EIGHT, HYBRID, NO_GPU, regions, with_regions

HERE = Path(__file__).resolve().parent
NONE = "none"
PACKAGES = ("torch", "onnxruntime", "openvino", "numpy")
PREDICTIONS = {
    "kosmos_clip": {"h200": ("bf16", "fp8"), "h200-seen": ("bf16",), "orin-agx-64gb": ("fp16", "int8"),
                    "orin-nx-16gb": ("fp16", "int8")},
    "clip_lstm": {"h200": ("bf16",), "h200-seen": ("bf16",), "orin-agx-64gb": ("fp16", "int8"),
                  "orin-nx-16gb": ("fp16", "int8")},
    "compact": {"orin-agx-64gb": ("fp16", "int8"), "orin-nx-16gb": ("fp16", "int8")},
}  # fmt: skip
"""By kind and device: in which precisions."""


class NotMeasuredError(Exception):
    """A part cannot be measured here; the message is a clause that says why."""


class Bench:
    """What the parts share: options, and a folder for what they make."""

    def __init__(self, options: argparse.Namespace, scratch: Path) -> None:
        self.options, self.scratch = options, scratch

    def run(self, *command: object) -> str:
        """A command's stdout; NotMeasuredError with its last words where it fails."""
        words = [str(each) for each in command]
        print(f"$ {shlex.join(words)}", file=sys.stderr, flush=True)
        answer = subprocess.run(words, capture_output=True, text=True, check=False)
        if answer.returncode != 0:
            last = (answer.stderr.strip().splitlines() or [f"exit code {answer.returncode}"])[-1]
            raise NotMeasuredError(last.rstrip("."))
        return answer.stdout

    def bench(self, *options: object) -> dict[str, Any]:
        """What ``mobile-vla bench`` found; its pictures are below ``scratch/out``."""
        out = self.scratch / "out"
        shutil.rmtree(out, ignore_errors=True)
        times = ("--times", self.options.times)
        self.run(sys.executable, "-m", "mobile_vla", "bench", *options, *times, "--out", out)
        found: dict[str, Any] = json.loads((out / "bench.json").read_text())
        found["about"]["policy"] = Path(found["about"]["policy"]).name  # where it lies is nobody's affair
        return found

    def exported(self) -> Path:
        """The engine that ``mobile-vla export`` takes here, made at the first call."""
        folder = self.scratch / "exported"
        if not folder.exists():
            self.export()
        return folder

    # a part each

    def compact(self) -> Any:
        names = dict.fromkeys(
            engine for engine, precision in choose(["all"], []).wanted if Subject(engine, precision).device == "cpu"
        )
        found = self.bench("--engine", *names)
        self._keep_pictures()
        return {**found, "plain": self.bench()}

    def _keep_pictures(self) -> None:
        if self.options.write is None:
            return
        images = self.options.write.parent / "images"
        images.mkdir(exist_ok=True)
        for name, kept in (("latency.png", "latency"), ("roofline_cpu.png", "roofline")):
            shutil.copyfile(self.scratch / "out" / name, images / f"performance_{kept}.png")

    def export(self) -> Any:
        folder = self.scratch / "exported"
        episodes = ("--episodes", self.options.episodes)
        said = self.run(
            sys.executable, "-m", "mobile_vla", "export", "--for", "cpu", "--out", folder, *episodes, "--json"
        )
        found: dict[str, Any] = json.loads(said)
        del found["out"]
        return found

    def preprocess(self) -> Any:
        file = self.scratch / "preprocess.json"
        self.run(sys.executable, HERE / "preprocess.py", "--json", file)
        return json.loads(file.read_text())

    def peers(self) -> Any:
        if self.options.lerobot is None:
            raise NotMeasuredError("no environment with LeRobot was named (--lerobot)")
        file = self.scratch / "peers.json"
        sides = ("--policy", SHIPPED, self.exported())
        self.run(sys.executable, HERE / "peer_speed.py", "--lerobot", self.options.lerobot, *sides, "--json", file)
        return json.loads(file.read_text())

    def jitter(self) -> Any:
        only = ("--only", "jitter", "--seconds", self.options.seconds, "--json")
        return json.loads(self.run(sys.executable, HERE / "latency.py", *only))["ms"]

    def gpu(self) -> Any:
        if not torch.cuda.is_available():
            raise NotMeasuredError(NO_GPU)
        found = choose(["all"], [])
        graphs = dict.fromkeys(engine for engine, _ in found.wanted if engine.startswith("cudagraph"))
        hybrid, clip = (("--random-weights", kind, "--engine") for kind in ("kosmos_clip", "clip_lstm"))
        return {
            HYBRID: self.bench(*hybrid, "eager-cuda", *graphs, "--precision", "fp32", "bf16", "fp8"),
            EIGHT: self.bench(*hybrid, *graphs, "--precision", "bf16", "--batch", 8),
            CLIP: self.bench(*clip, "eager-cuda", *graphs, "--precision", "fp32", "bf16"),
        }

    def predicted(self) -> Any:
        rows = []
        for kind, devices in PREDICTIONS.items():
            step = step_of(drawn(kind, device="cpu" if kind == "compact" else "meta"))
            inputs = tuple(step.example())
            for name, precisions in devices.items():
                for precision in precisions:
                    counted = count(step, inputs, precision)
                    floor = floor_s(counted, PREDICTED[name], precision)
                    rows.append(
                        {
                            "kind": kind,
                            "device": PREDICTED[name].name if name != "h200-seen" else "H200, as seen",
                            "precision": precision,
                            "flops": counted.flops,
                            "bytes": counted.weight_bytes + counted.io_bytes,
                            "floor_s": floor.seconds,
                            "bound_by": floor.bound_by,
                        }
                    )
        used = {name for devices in PREDICTIONS.values() for name in devices}
        return {"rows": rows, "sources": {name: each.source for name, each in PREDICTED.items() if name in used}}


PARTS: Mapping[str, Callable[[Bench], Any]] = {
    name: getattr(Bench, name) for name in ("predicted", "export", "compact", "preprocess", "peers", "jitter", "gpu")
}
"""In the order in which they are measured."""


def measured(bench: Bench, part: str, before: Mapping[str, Any]) -> dict[str, Any]:
    """A part's new record; where it cannot be measured, the one before it and why."""
    load = os.getloadavg()[0]
    try:
        found = PARTS[part](bench)
    except NotMeasuredError as error:
        print(f"{part} was not measured: {error}", file=sys.stderr)
        return {**before, "why_not": str(error)}
    stamp = {
        "how": "Counted" if part == "predicted" else "Measured",
        "at": datetime.now(timezone.utc).isoformat(timespec="minutes"),
        "machine": _described(part),
        "commit": git_commit(),
        "versions": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
        "load": load,
        "command": f"python benchmarks/performance.py --only {part}",
    }
    return {"stamp": stamp, "found": found}


def _described(part: str) -> str:
    return f"{machine()}, {torch.cuda.get_device_name()}" if part == "gpu" else machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lerobot", type=Path, metavar="PYTHON", help="of an environment with LeRobot (peer_speed.py)")
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="of each measurement of the control loop (default 60)"
    )
    parser.add_argument("--times", type=int, default=1000, help="decisions of each engine (default 1000)")
    parser.add_argument("--episodes", type=int, default=40, help="drives for the choice of an engine (default 40)")
    parser.add_argument(
        "--only", nargs="+", choices=[*PARTS, NONE], metavar="PART", help=f"of {', '.join(PARTS)}; {NONE}"
    )
    parser.add_argument(
        "--write", type=Path, metavar="PAGE", help="the page to be written; by default print the regions"
    )
    options = parser.parse_args()
    kept = options.write.with_suffix(".json") if options.write else None
    records = json.loads(kept.read_text()) if kept and kept.exists() else {}
    chosen = [part for part in PARTS if options.only is None or part in options.only]
    with tempfile.TemporaryDirectory(prefix="mobile-vla-performance-") as scratch:
        bench = Bench(options, Path(scratch))
        for part in chosen:
            records[part] = measured(bench, part, records.get(part, {}))
            if kept:
                kept.write_text(json.dumps(records, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    texts = regions(records)
    if options.write:
        page = options.write.read_text(encoding="utf-8")
        options.write.write_text(with_regions(page, texts), encoding="utf-8")
    else:
        print("\n\n".join(f"## {name}\n\n{text}" for name, text in texts.items()))


if __name__ == "__main__":
    main()
