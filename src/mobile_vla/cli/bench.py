"""``mobile-vla bench``: how fast a policy decides here, in which engine and precision, and what the hardware allows."""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from mobile_vla.cli.shared import RUNS, Commands, add_json, count, policy_kinds, print_json

if TYPE_CHECKING:
    from mobile_vla.engine.bench.measure import Target
    from mobile_vla.engine.bench.report import Driving
    from mobile_vla.engine.bench.subject import Subject
    from mobile_vla.policy.step import Inputs

CAMERA, TIMES = "640x480", 500
CALIBRATED, COMPARED = 100, 200
"""Decisions that int8 finds its ranges by, and over which actions are compared."""


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "bench",
        help="time a policy from camera frame to command, beside what this hardware allows",
        description="Time a policy from camera frame to command, in one engine and precision or in several by turns, "
        "with the limit of this hardware beside each figure, and say how far its actions differ from float32.",
    )
    parser.add_argument(
        "policy",
        nargs="?",
        metavar="latest|best|PATH",
        help="checkpoint or engine folder, or the latest or best whole checkpoint below runs/; by default the one that "
        "is shipped",
    )
    parser.add_argument(
        "--random-weights",
        metavar="KIND",
        help="instead of POLICY: a network of this kind, of full size, with random weights (e.g. kosmos_clip)",
    )
    parser.add_argument(
        "--engine",
        nargs="+",
        default=[],
        metavar="NAME",
        help="engines to compare, or all; by default the plain policy",
    )
    parser.add_argument(
        "--precision",
        nargs="+",
        default=[],
        metavar="P",
        help="of those engines (fp32, bf16 ...; default all they have)",
    )
    parser.add_argument("--batch", type=count, default=1, metavar="N", help="robots decided for at once (default 1)")
    parser.add_argument(
        "--camera",
        type=_size,
        default=_size(CAMERA),
        metavar="WxH",
        help=f"size of the camera's pictures (default {CAMERA})",
    )
    parser.add_argument("--threads", type=count, default=1, metavar="N", help="of the CPU (default 1)")
    parser.add_argument("--times", type=count, default=TIMES, metavar="N", help=f"decisions of each (default {TIMES})")
    parser.add_argument(
        "--episodes",
        type=count,
        metavar="N",
        help="also drive N scenes with each engine and with float32, in the simulator",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write bench.json, a histogram and a roofline plot there"
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Time and report; 0 whatever the figures are. ConfigError for options that do not go together."""
    from mobile_vla.checkpoint.atomic import write_bytes
    from mobile_vla.checkpoint.manifest import CHECKPOINT
    from mobile_vla.core import ConfigError
    from mobile_vla.engine.bench.measure import BenchConfig, bench, subjects
    from mobile_vla.engine.bench.report import draw, words
    from mobile_vla.engine.bench.subject import Choice, choose
    from mobile_vla.engine.folder import is_engine

    config = BenchConfig(options.camera, options.batch, options.threads, options.times)
    target = _target(options)
    if options.precision and not options.engine:
        raise ConfigError(f"--precision {options.precision[0]} of which engine? Name it with --engine, or say all")
    if target.folder is not None and is_engine(target.folder) and options.engine:
        raise ConfigError(
            f"{target.folder} is an engine already: leave --engine out, or time its checkpoint, "
            f"{target.folder / CHECKPOINT}"
        )
    if options.episodes and target.random:
        raise ConfigError("random weights drive nowhere: leave --episodes out")
    if options.out is not None and options.out.exists() and not options.out.is_dir():
        raise ConfigError(f"{options.out} is a file: name a folder with --out")
    choice = choose(options.engine, options.precision) if options.engine else Choice(())
    checkpoint = _checkpoint(target)
    with tempfile.TemporaryDirectory(prefix="mobile-vla-bench-") as scratch:
        wanted = subjects(target, choice, config, Path(scratch), cache(lambda: _calibration(checkpoint)), _tell)
        compared = [] if checkpoint is None or len(wanted) < 2 else _compared(checkpoint)
        report = bench(target, wanted, config, choice.left_out, compared, _tell)
        if options.episodes and checkpoint is not None:
            report = report.with_driving(_driven(checkpoint, wanted, options.episodes))
    if options.out is not None:
        files = draw(report, options.out)
        text = json.dumps(report.to_dict(), indent=1, ensure_ascii=False)
        write_bytes(options.out / "bench.json", text.encode() + b"\n")
        _tell(f"written to {options.out}: bench.json, {', '.join(file.name for file in files)}")
    if options.json:
        print_json(report.to_dict())
    else:
        print(words(report))
    return 0


def _target(options: argparse.Namespace) -> "Target":
    from mobile_vla.checkpoint.find import wanted
    from mobile_vla.core import ConfigError
    from mobile_vla.engine.bench.measure import Target
    from mobile_vla.engine.folder import is_engine
    from mobile_vla.policy.weights import SHIPPED

    if options.random_weights is not None:
        if options.policy is not None:
            raise ConfigError(f"{options.policy} or --random-weights {options.random_weights}: leave one of them out")
        return Target(random=options.random_weights)
    if options.policy is None:
        return Target(SHIPPED)
    if is_engine(Path(options.policy)):
        return Target(Path(options.policy))
    return Target(wanted(options.policy, [RUNS], policy_kinds()))


def _checkpoint(target: "Target") -> Path | None:
    from mobile_vla.checkpoint.manifest import CHECKPOINT
    from mobile_vla.engine.folder import is_engine

    if target.folder is None:
        return None
    return target.folder / CHECKPOINT if is_engine(target.folder) else target.folder


def _calibration(checkpoint: Path | None) -> "Sequence[Inputs]":
    """Real decisions in scenes of trainings, which int8 needs."""
    from mobile_vla.core import ConfigError
    from mobile_vla.engine.inputs import FIRST_TAUGHT_SEED, driven_inputs

    if checkpoint is None or find_spec("mujoco") is None:
        raise ConfigError(
            "int8 needs real decisions to find its ranges, which need a trained policy and the simulator "
            '(pip install -e ".[sim]" in the checkout): choose other precisions, or time an engine that was exported'
        )
    _tell("driving for decisions that int8 finds its ranges by")
    return driven_inputs(checkpoint, CALIBRATED, FIRST_TAUGHT_SEED)


def _compared(checkpoint: Path) -> "Sequence[Inputs]":
    """Real decisions in other scenes, to compare actions over; none without the simulator."""
    from mobile_vla.engine.inputs import driven_inputs

    if find_spec("mujoco") is None:
        _tell('actions are not compared: the simulator is not installed (pip install -e ".[sim]" in the checkout)')
        return []
    _tell("driving for decisions to compare actions over")
    return driven_inputs(checkpoint, COMPARED)


def _driven(checkpoint: Path, wanted: "Sequence[Subject]", episodes: int) -> "Mapping[str, Driving]":
    """Each engine on the same scenes as PyTorch in float32."""
    from mobile_vla.engine.bench.report import Driving
    from mobile_vla.engine.bench.subject import EAGER
    from mobile_vla.engine.folder import is_engine
    from mobile_vla.evaluate.engines import Driven, scenes, successes

    planned, processes = scenes(episodes), min(episodes, os.cpu_count() or 1)
    _tell(f"driving {episodes} scenes with {checkpoint}")
    exact = successes(checkpoint, planned, processes)
    found = {}
    for subject in wanted:
        if not is_engine(Path(subject.folder)) or (subject.engine, subject.precision) == EAGER:
            continue
        _tell(f"driving the same with {subject.name}")
        driven = Driven.of(exact, successes(Path(subject.folder), planned, processes))
        found[subject.name] = Driving(driven.to_dict(), str(driven), driven.worse() or "")
    return found


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text} is no size of a picture: give WIDTHxHEIGHT, e.g. {CAMERA}")
    return int(width), int(height)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
