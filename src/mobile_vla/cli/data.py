"""``mobile-vla data``: check a data set, or say what is in it."""

import argparse
from collections import Counter
from pathlib import Path

from mobile_vla.cli.shared import Commands, add_json, print_json


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser("data", help="check a data set, or say what is in it")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    for name, run, words in (
        ("validate", validate, "list all that is wrong with it"),
        ("stats", stats, "what it holds"),
    ):
        action = actions.add_parser(name, help=words)
        action.add_argument("root", type=Path, metavar="DIR", help="folder of the data set")
        add_json(action)
        action.set_defaults(run=run)


def validate(options: argparse.Namespace) -> int:
    """0 for a sound data set, 1 with the list of problems for another."""
    from mobile_vla.data import validate as problems_of

    problems = problems_of(options.root)
    if options.json:
        print_json(
            {
                "root": options.root,
                "sound": not problems,
                "problems": [
                    {"path": problem.path, "episode": problem.episode_index, "what": problem.what}
                    for problem in problems
                ],
            }
        )
    else:
        for problem in problems:
            print(problem)
        print(f"{options.root}: {f'{len(problems)} problems' if problems else 'sound'}")
    return 1 if problems else 0


def stats(options: argparse.Namespace) -> int:
    """Print what the data set holds."""
    from mobile_vla.data import Dataset, data_hash

    dataset = Dataset.open(options.root)
    records = dataset.records
    seconds = dataset.total_frames / dataset.contract.frame_rate_hz
    noted = {
        name: dict(Counter(str(record.extras.get(name)) for record in records).most_common(12))
        for name in ("scenario", "driver", "outcome")
        if any(name in record.extras for record in records)
    }
    values = {
        "root": options.root,
        "episodes": len(records),
        "frames": dataset.total_frames,
        "seconds": seconds,
        "instructions": len({record.instruction for record in records}),
        "image_shape": dataset.image_shape,
        "data_hash": data_hash(dataset.all_records),
        **noted,
        "contract": dataset.contract.to_dict(),
    }
    if options.json:
        print_json(values)
        return 0
    for name, value in values.items():
        shown = ", ".join(f"{key} {each}" for key, each in value.items()) if isinstance(value, dict) else value
        print(f"{name:12} {shown}")
    return 0
