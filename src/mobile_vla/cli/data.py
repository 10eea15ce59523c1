"""``mobile-vla data``: look at a data set, check it, bring several together, divide one, import one."""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mobile_vla.cli import data_import
from mobile_vla.cli.shared import Commands, add_json, count, print_json


def add_to(commands: Commands) -> None:
    """Describe the command and its actions."""
    parser = commands.add_parser("data", help="look at a data set, check, merge, divide or import one")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    looking = actions.add_parser(
        "inspect",
        help="is it good to train on? what is in it and what looks wrong, picture by picture",
        description="Looks at every frame and says what is in a data set and what looks wrong with it: frozen "
        "pictures, gaps in time, exchanged colours or sides, what is out of balance, duplicates, words that cannot be "
        "followed. Exit code 1 when a finding is an error. Whether each file is as it was written is asked with "
        "validate.",
    )
    _root(looking)
    looking.add_argument("--show", type=count, default=5, metavar="N", help="findings of one kind to print (5)")
    looking.set_defaults(run=inspect)
    checking = actions.add_parser(
        "validate",
        help="is it whole? every breach of the layout and the action contract",
        description="Checks that a data set is what was written: files against their hashes, meta files against the "
        "journal, numbers against the action contract and the clock, pictures that can be decoded. Yes or no, without "
        "judgement: exit code 1 for any breach. Whether sound data are worth training on is asked with inspect.",
    )
    _root(checking)
    checking.set_defaults(run=validate)
    counting = actions.add_parser("stats", help="its figures: axes, statuses, left and right; reads no picture")
    _root(counting)
    counting.set_defaults(run=stats)
    merging = actions.add_parser(
        "merge",
        help="copy the episodes of several data sets into one",
        description="Copies episodes into OUT, a new data set or one to be continued; the sources stay as they are. "
        "Said again, it goes on where it was, and takes nothing twice.",
    )
    merging.add_argument("out", type=Path, metavar="OUT", help="folder of the data set to write")
    merging.add_argument("sources", type=Path, nargs="+", metavar="SOURCE", help="data sets of the same contract")
    add_json(merging)
    merging.set_defaults(run=merge)
    dividing = actions.add_parser(
        "split",
        help="divide it into train, validation and test, by scene",
        description="Divides by scene: which part a scene falls into follows from its seed and the salt alone.",
    )
    _root(dividing)
    dividing.add_argument(
        "--fractions",
        type=_fractions,
        default=(0.8, 0.1, 0.1),
        metavar="A,B,C",
        help="of the scenes, for train, validation and test (0.8,0.1,0.1)",
    )
    dividing.add_argument("--salt", default="mobile-vla", metavar="S", help="another word gives another division")
    dividing.add_argument("--again", action="store_true", help="replace a split that is there")
    dividing.set_defaults(run=split)
    data_import.add_to(actions)


def inspect(options: argparse.Namespace) -> int:
    """0 without errors, 1 with; warnings and notes are for a person to judge."""
    from mobile_vla.data.inspection import inspect as look

    with _progress(options.json) as progress:
        report = look(options.root, progress=progress)
    if options.json:
        print_json(report.to_dict())
    else:
        from mobile_vla.cli.data_words import print_report

        print_report(report, options.show)
    return 0 if report.sound else 1


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
    from mobile_vla.data.inspection.summary import summary

    dataset = Dataset.open(options.root)
    records = dataset.records
    noted = {
        name: dict(Counter(str(record.extras.get(name)) for record in records).most_common(12))
        for name in ("scenario", "driver", "outcome")
        if any(name in record.extras for record in records)
    }
    figures = summary(dataset)
    values = {
        "root": options.root,
        "episodes": len(records),
        "frames": dataset.total_frames,
        "seconds": dataset.total_frames / dataset.contract.frame_rate_hz,
        "instructions": len({record.instruction for record in records}),
        "image_shape": dataset.image_shape,
        "data_hash": data_hash(dataset.all_records),
        **noted,
        **figures.shares,
        "contract": dataset.contract.to_dict(),
    }
    if options.json:
        print_json({**values, "axes": figures.axes})
    else:
        from mobile_vla.cli.data_words import print_axes, print_values

        print_values(values)
        print_axes(figures.axes)
    return 0


def merge(options: argparse.Namespace) -> int:
    """Copy the episodes of the sources; what cannot be merged is refused before anything is written."""
    from mobile_vla.data import merge_shards

    report = merge_shards(options.out, options.sources, keep=True)
    if options.json:
        values = {"out": options.out, "copied": report.renumbered, "present": report.present}
        print_json({**values, "episodes": report.total_episodes})
    else:
        present = f", {report.present} were there already" if report.present else ""
        print(f"{options.out}: {report.renumbered} episodes copied{present}; it holds {report.total_episodes} now")
    return 0


def split(options: argparse.Namespace) -> int:
    """Divide, and say how many episodes of each scenario fall on each side."""
    from mobile_vla.data import Dataset, make_split
    from mobile_vla.data.schema import EXTRA_SCENARIO
    from mobile_vla.data.split import require_undivided, tally

    dataset = Dataset.open(options.root)
    if not options.again:
        require_undivided(dataset)
    made = make_split(dataset, options.fractions, options.salt)
    counts = tally(dataset, made, EXTRA_SCENARIO)
    if options.json:
        parts = {"train": made.train, "validation": made.validation, "test": made.test}
        sizes = {name: len(members) for name, members in parts.items()}
        print_json({"root": options.root, **sizes, "split_hash": made.split_hash, "scenarios": counts})
    else:
        from mobile_vla.cli.data_words import print_split

        print_split(options.root, made, counts)
    return 0


def _root(action: argparse.ArgumentParser) -> None:
    action.add_argument("root", type=Path, metavar="DIR", help="folder of the data set")
    add_json(action)


def _fractions(text: str) -> tuple[float, float, float]:
    try:
        train, validation, test = (float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form 0.8,0.1,0.1") from error
    return train, validation, test


@contextmanager
def _progress(quiet: bool) -> Iterator[Any]:
    """Takes how many episodes are done, of how many; shown to a person who watches."""
    if quiet or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("looking at the episodes", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
