"""What several commands have in common."""

import argparse
import json
from typing import Any

Commands = Any
"""What ``add_subparsers`` returns; argparse keeps its type to itself."""


def add_json(parser: argparse.ArgumentParser) -> None:
    """The option that every command has."""
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of words")


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
