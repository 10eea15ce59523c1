"""``mobile-vla evaluate``: drive many scenes with a policy and report, with baselines and intervals."""

import argparse
import os
from pathlib import Path

from mobile_vla.cli.shared import Commands, add_json, count, print_json


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser("evaluate", help="drive many scenes with a policy and report how it did")
    parser.add_argument("--policy", type=Path, metavar="DIR", help="checkpoint folder; by default the shipped one")
    parser.add_argument("--suite", action="append", metavar="NAME", help="what to drive (default all); may be repeated")
    parser.add_argument("--episodes", type=count, default=20, metavar="N", help="episodes a suite (default 20)")
    parser.add_argument("--processes", type=count, default=os.cpu_count() or 1, metavar="N", help="default one a core")
    parser.add_argument("--out", type=Path, default=Path("out/evaluation"), metavar="DIR", help="where the report goes")
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Evaluate; 0 when the report is written, whatever it says."""
    from rich.console import Console

    from mobile_vla.evaluate.run import evaluate
    from mobile_vla.policy.weights import SHIPPED

    console = Console(quiet=options.json)
    suites = options.suite or ["all"]
    policy = options.policy or SHIPPED
    report = evaluate(policy, suites, options.episodes, options.processes, options.out, console=console)
    if options.json:
        print_json(report.to_dict())
    return 0
