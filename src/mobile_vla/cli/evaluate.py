"""``mobile-vla eval``: how good a policy is, driving and on recorded data, with baselines and intervals."""

import argparse
import os
from pathlib import Path

from mobile_vla.cli.shared import Commands, add_json, add_policy, count, policy_folder, print_json

EPISODES, PART = 24, "test"
DRIVEN, COMPARED = Path("out/evaluation"), Path("out/offline")
"""Where reports go by default: of drives, and of recorded data alone."""


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "eval",
        aliases=["evaluate"],
        help="say how good a policy is: drive many scenes with it, compare it with recorded data, or both",
        description="Drive many scenes with a policy and its baselines and report how they did. With --dataset also "
        "compare its actions with recorded ones, beside predictors that do not look; with --offline that alone.",
    )
    add_policy(parser)
    driven = parser.add_argument_group("driving in the simulator")
    driven.add_argument("--suite", action="append", metavar="NAME", help="what to drive (default all); may be repeated")
    driven.add_argument(
        "--driver", action="append", metavar="NAME", help="policy, blind or expert (default: all three)"
    )
    driven.add_argument("--episodes", type=count, metavar="N", help=f"scenes of each suite (default {EPISODES})")
    driven.add_argument("--processes", type=count, default=os.cpu_count() or 1, metavar="N", help="default one a core")
    driven.add_argument(
        "--ray", metavar="ADDRESS", help="drive on this Ray cluster instead, e.g. auto or host:6379; one worker a CPU"
    )
    compared = parser.add_argument_group("recorded data")
    compared.add_argument("--dataset", type=Path, metavar="DIR", help="compare the policy's actions with these as well")
    compared.add_argument("--offline", action="store_true", help="compare alone; drive nothing")
    compared.add_argument(
        "--part", metavar="PART", help=f"test, validation, train, or all, which needs no split (default {PART})"
    )
    compared.add_argument("--limit", type=count, metavar="N", help="so many episodes of the part, drawn by lot")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help=f"where the report goes (default {DRIVEN}; with --offline {COMPARED})"
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Evaluate; 0 when the report is written, whatever it says. ConfigError for options that do not go together."""
    _require_sense(options)
    from rich.console import Console

    from mobile_vla.core import ConfigError
    from mobile_vla.evaluate.fleet import DRIVERS
    from mobile_vla.evaluate.plan import PAIRED
    from mobile_vla.evaluate.remarks import PARTS
    from mobile_vla.evaluate.run import evaluate

    drivers = options.driver or DRIVERS
    if unknown := set(drivers) - set(DRIVERS):
        raise ConfigError(f"unknown driver {', '.join(sorted(unknown))}: choose among {', '.join(DRIVERS)}")
    part = options.part or PART
    if part not in PARTS:
        raise ConfigError(f"unknown part {part}: choose among {', '.join(PARTS)}")
    out = options.out or (COMPARED if options.offline else DRIVEN)
    report = evaluate(
        policy_folder(options),
        () if options.offline else options.suite or ("all", "words", *PAIRED),
        options.episodes or EPISODES,
        options.processes,
        out,
        drivers=drivers,
        dataset=options.dataset,
        part=part,
        limit=options.limit,
        ray=options.ray,
        console=Console(quiet=options.json),
    )
    if options.json:
        print_json(report.to_dict())
    else:
        print(f"the report is in {out}")
    return 0


def _require_sense(options: argparse.Namespace) -> None:
    from mobile_vla.core import ConfigError

    if options.dataset is None:
        for name in ("offline", "part", "limit"):
            if getattr(options, name):
                raise ConfigError(f"--{name} is about recorded data: name them with --dataset DIR")
    if options.offline:
        for name in ("suite", "driver", "episodes", "ray"):
            if getattr(options, name):
                raise ConfigError(f"--{name} is about driving, and --offline drives nothing: leave one of them out")
