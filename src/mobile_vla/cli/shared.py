"""What several commands have in common."""

import argparse
import json
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

Commands = Any
"""What ``add_subparsers`` returns; argparse keeps its type to itself."""

RUNS = Path("runs")
"""Below the working folder: where trainings put what they make, as the manual calls it."""


def add_json(parser: argparse.ArgumentParser) -> None:
    """The option that every command has."""
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of words")


def add_policy(parser: argparse.ArgumentParser) -> None:
    """The option of every command that drives with a checkpoint; ``policy_folder`` says which one is meant."""
    parser.add_argument(
        "--policy",
        metavar="latest|best|PATH",
        help="checkpoint folder, or the latest or best whole one below runs/; by default the one that is shipped",
    )


def policy_kinds() -> list[str]:
    """Names of the kinds of policy that are installed; found without torch."""
    return sorted({entry.name for entry in entry_points(group="mobile_vla.policies")})


def policy_folder(options: argparse.Namespace) -> Path:
    """The checkpoint that ``--policy`` means; one that was chosen is named on stderr.

    CheckpointError when the latest or the best is asked for and none is whole.
    """
    from mobile_vla.checkpoint.find import BEST, LATEST, wanted
    from mobile_vla.policy.weights import SHIPPED

    if options.policy is None:
        return SHIPPED
    folder = wanted(options.policy, [RUNS], policy_kinds())
    if options.policy in (LATEST, BEST):
        print(f"the {options.policy} whole checkpoint: {folder}", file=sys.stderr)
    return folder


def positive(text: str) -> float:
    """A number above zero, for argparse."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} needs to be above zero and finite")
    return value


def not_negative(text: str) -> float:
    """A number of at least zero, for argparse."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} needs to be at least 0 and finite")
    return value


def count(text: str) -> int:
    """A whole number of at least one, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} needs to be at least 1")
    return value


def natural(text: str) -> int:
    """A whole number of at least zero, for argparse."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} needs to be at least 0")
    return value


def print_json(values: Any) -> None:
    """One object, readable."""
    print(json.dumps(values, indent=2, ensure_ascii=False, default=str))
