"""``mobile-vla evaluate``: drive many scenes with a policy and report, with baselines and intervals."""

import argparse
import os
from pathlib import Path

from mobile_vla.cli.shared import Commands, add_json, add_policy, count, policy_folder, print_json


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser("evaluate", help="drive many scenes with a policy and report how it did")
    add_policy(parser)
    parser.add_argument("--suite", action="append", metavar="NAME", help="what to drive (default all); may be repeated")
    parser.add_argument(
        "--driver", action="append", metavar="NAME", help="policy, blind or expert (default: all three)"
    )
    parser.add_argument("--episodes", type=count, default=24, metavar="N", help="scenes of each suite (default 24)")
    parser.add_argument("--processes", type=count, default=os.cpu_count() or 1, metavar="N", help="default one a core")
    parser.add_argument("--dataset", type=Path, metavar="DIR", help="also compare with the expert on its test part")
    parser.add_argument("--out", type=Path, default=Path("out/evaluation"), metavar="DIR", help="where the report goes")
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Evaluate; 0 when the report is written, whatever it says."""
    from rich.console import Console

    from mobile_vla.core import ConfigError
    from mobile_vla.evaluate.fleet import DRIVERS
    from mobile_vla.evaluate.plan import PAIRED
    from mobile_vla.evaluate.run import evaluate

    drivers = options.driver or DRIVERS
    if unknown := set(drivers) - set(DRIVERS):
        raise ConfigError(f"unknown driver {', '.join(sorted(unknown))}: choose among {', '.join(DRIVERS)}")
    report = evaluate(
        policy_folder(options),
        options.suite or ("all", "words", *PAIRED),
        options.episodes,
        options.processes,
        options.out,
        drivers=drivers,
        dataset=options.dataset,
        console=Console(quiet=options.json),
    )
    if options.json:
        print_json(report.to_dict())
    else:
        print(f"the report is in {options.out}")
    return 0
