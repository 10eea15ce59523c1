"""``mobile-vla export``: make of a policy the engine that is fastest on this machine, or what a Jetson makes one of."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobile_vla.cli.shared import Commands, add_json, count, natural, policy_folder, print_json

if TYPE_CHECKING:
    from mobile_vla.engine.choose import Choice, Drive, Row
    from mobile_vla.policy.step import Inputs

EPISODES, COMPARED, CALIBRATION = 40, 200, 100
"""Drives beside float32; decisions over which engines are compared; decisions that int8 finds its ranges on."""

JETSON = "jetson"
_TOLD_EVERY = 10

_CALIBRATION_SEED = 1_000_000
"""Scenes of these seeds are such as trainings draw; engines are compared and driven on others."""


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "export",
        help="make of a policy the engine that is fastest on this machine, or prepare one for a Jetson",
        description="Make engines of a policy, compare their decisions with float32, time them from camera frame to "
        "command, drive with them in the simulator, and keep the fastest that drives as well; that takes some minutes. "
        "Wherever a policy is asked for, the folder that is made can be given. With --for jetson: make a folder that "
        "builds an engine there.",
    )
    parser.add_argument(
        "policy",
        nargs="?",
        metavar="latest|best|PATH",
        help="checkpoint folder, or the latest or best whole one below runs/; by default the one that is shipped",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the engine goes")
    parser.add_argument(
        "--for",
        dest="device",
        choices=["cpu", JETSON],
        help="cpu: try all engines of the CPU (the default); jetson: a folder to be copied there, see docs/jetson.md",
    )
    parser.add_argument("--engine", metavar="NAME", help="make this one, whatever is found: torch, openvino ...")
    parser.add_argument("--precision", metavar="P", help="of --engine or --for jetson: fp32, fp16, int8 ...")
    parser.add_argument(
        "--shorten",
        default="",
        metavar="WORDS",
        help="of a full-size policy, with --engine: leave parts out, e.g. 'decoder_layers=16 latents=0.5'",
    )
    parser.add_argument("--batch", type=count, default=1, metavar="N", help="robots decided for at once (default 1)")
    parser.add_argument("--threads", type=count, default=1, metavar="N", help="of the CPU, for timing (default 1)")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="recorded decisions to calibrate on and compare over, instead of driven ones",
    )
    parser.add_argument(
        "--episodes",
        type=natural,
        default=EPISODES,
        metavar="N",
        help=f"drives in the simulator beside float32 (default {EPISODES}; 0: none)",
    )
    parser.add_argument("--seed", type=natural, default=0, metavar="S", help="of scenes and draws (default 0)")
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """0 when the engine is made. ConfigError for options that do not go together; others as ``engine.choose``."""
    import torch

    from mobile_vla.core import ConfigError
    from mobile_vla.engine.choose import Wish, choose, require_possible
    from mobile_vla.engine.folder import require_checkpoint

    if options.device == JETSON:
        return _for_jetson(options)
    if (options.engine is None) != (options.precision is None):
        raise ConfigError("--engine and --precision go together: name both, or neither to try all engines")
    if options.engine and options.device:
        raise ConfigError("--for tries all engines and --engine names one: leave one of them out")
    if options.shorten and not options.engine:
        raise ConfigError("--shorten makes another policy, which no engine has to equal: name --engine and --precision")
    _require_decisions(options)
    wanted = [(options.engine, options.precision)] if options.engine else None
    folder = policy_folder(options)
    require_checkpoint(folder)
    require_possible(options.out, wanted)
    torch.set_num_threads(options.threads)
    calibration, compared = _inputs(folder, options)
    wish = Wish(folder, options.out, calibration, compared, options.batch, options.threads, options.shorten)
    drive = _driver(folder, options) if _has_simulator() and options.episodes else None
    choice = choose(wish, drive, wanted, _say)
    if options.json:
        print_json({"out": str(options.out), **choice.to_dict()})
    else:
        _print(choice, options)
    return 0


def _for_jetson(options: argparse.Namespace) -> int:
    """A folder that is copied to a Jetson. ConfigError for options that mean nothing there."""
    from mobile_vla.core import ConfigError
    from mobile_vla.engine.jetson.prepare import FRAMES, prepare_for_jetson, require_possible

    if options.engine:
        raise ConfigError("--for jetson makes a TensorRT engine, there: leave --engine out")
    _require_decisions(options)
    folder, precision = policy_folder(options), options.precision or "fp16"
    require_possible(folder, options.out, precision)
    options.precision = precision
    calibration, compared = _inputs(folder, options)
    prepare_for_jetson(folder, options.out, compared[:FRAMES], precision, options.batch, calibration)
    if options.json:
        print_json({"out": str(options.out), "engine": "tensorrt", "precision": precision})
    else:
        print(f"copy {options.out} to the Jetson and run there, in it: python3 -m build_engine (docs/jetson.md)")
    return 0


def _require_decisions(options: argparse.Namespace) -> None:
    from mobile_vla.core import ConfigError

    if options.data is None and not _has_simulator():
        raise ConfigError(
            "without the simulator there are no decisions to compare engines over: give recorded ones with --data DIR, "
            'or install it with pip install -e ".[sim]"'
        )


def _has_simulator() -> bool:
    from importlib.util import find_spec

    return find_spec("mujoco") is not None


def _inputs(folder: Path, options: argparse.Namespace) -> "tuple[Sequence[Inputs], Sequence[Inputs]]":
    """For calibration, and for comparison."""
    from mobile_vla.engine.inputs import driven_inputs, recorded_inputs

    if options.data is not None:
        _say(f"reading decisions from {options.data}")
        inputs = recorded_inputs(folder, options.data, CALIBRATION + COMPARED, options.seed)
        return inputs[:CALIBRATION], inputs[CALIBRATION:]
    _say("driving, to collect decisions")
    ranges = options.precision in (None, "int8")
    calibration = driven_inputs(folder, CALIBRATION, _CALIBRATION_SEED + options.seed) if ranges else []
    return calibration, driven_inputs(folder, COMPARED, options.seed)


def _driver(folder: Path, options: argparse.Namespace) -> "Drive":
    """Drives float32 once, and each engine that is asked for."""
    from functools import cache

    from mobile_vla.engine.choose import Verdict
    from mobile_vla.evaluate.engines import Driven, scenes, successes

    planned = scenes(options.episodes, options.seed)

    def driving(policy: Path) -> list[bool]:
        return successes(policy, planned, os.cpu_count() or 1, _count)

    @cache
    def exact() -> list[bool]:
        _say("driving with PyTorch in float32")
        return driving(folder)

    def drive(engine: Path) -> Verdict:
        won = driving(engine)
        driven = Driven.of(exact(), won)
        return Verdict(str(driven), driven.worse() or "", driven.to_dict())

    return drive


def _print(choice: "Choice", options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("engine", "p50 ms", "p99 ms", "actions differ (worst)", "driving", "")
    for row in choice.rows:
        table.add_row(*_cells(row, row is choice.taken or row == choice.taken))
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table, highlight=False)
    console.print(
        f"{choice.taken.name} is in {options.out}: drive with --policy {options.out}", highlight=False, soft_wrap=True
    )
    console.print(
        f"camera frame (640x480) to command; robots at once: {options.batch}, threads: {options.threads}; actions in "
        "m/s, m/s and rad/s, beside PyTorch in float32",
        highlight=False,
        soft_wrap=True,
    )


def _cells(row: "Row", taken: bool) -> list[str]:
    def ms(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    worst = "-"
    if row.agreement is not None:
        worst = " ".join(f"{value:.2g}" for value in row.agreement.chunk.worst)
    said = "; ".join(filter(None, ("taken" if taken else "", row.why_not)))
    return [row.name, ms(row.p50_ms), ms(row.p99_ms), worst, row.driven.text if row.driven else "-", said]


def _count(done: int, total: int) -> None:
    if done % _TOLD_EVERY == 0 or done == total:
        _say(f"  {done} of {total} scenes")


def _say(text: Any) -> None:
    print(text, file=sys.stderr, flush=True)
