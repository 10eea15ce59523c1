"""``mobile-vla data import``: a LeRobot data set, HDF5 recordings or ROS 2 bags as a data set of ours."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mobile_vla.cli.shared import Commands, add_json, print_json

if TYPE_CHECKING:
    from mobile_vla.data.imports.contents import Contents, Counter

KINDS = ("lerobot", "hdf5", "bag")


def add_to(actions: Commands) -> None:
    """Describe the action, below ``mobile-vla data``."""
    parser = actions.add_parser("import", help="write data from elsewhere as a data set of ours")
    parser.add_argument("source", type=Path, metavar="SOURCE", help="folder or file of the data")
    parser.add_argument("--kind", required=True, choices=KINDS, help="what SOURCE is")
    parser.add_argument("--out", type=Path, metavar="DIR", help="our data set, new or to be continued")
    parser.add_argument(
        "--mapping",
        nargs="+",
        default=[],
        metavar=("FILE", "KEY=VALUE"),
        help="YAML: what the numbers and pictures mean; after it single answers, e.g. outside=clip",
    )
    parser.add_argument("--show", action="store_true", help="print what is in SOURCE and a mapping to be filled in")
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """0 when everything is in the data set, or was shown."""
    from mobile_vla.core import ConfigError
    from mobile_vla.data.imports import import_data, open_source, read_mapping

    if options.show:
        show(open_source(options.source, options.kind).contents, options.json)
        return 0
    if options.out is None:
        raise ConfigError("give --out DIR for the data set, or --show to see what is in the source")
    file = next((Path(word) for word in options.mapping[:1] if "=" not in word), None)
    values = read_mapping(file, options.mapping[file is not None :])
    with _progress() as count:
        report = import_data(options.source, options.kind, options.out, values, count)
    if options.json:
        print_json(
            {
                "root": report.root,
                "imported": report.imported,
                "already_there": report.already_there,
                "frames": report.frames,
                "clipped_frames": report.clipped,
                "left_out_frames": dict(report.left_out),
            }
        )
        return 0
    print(f"{report.root}: {report.imported} episodes of {report.frames} frames imported", end="")
    print(f", {report.already_there} were there already" if report.already_there else "")
    if report.clipped:
        print(f"clipped to the contract's limits: {report.clipped} actions")
    for reason, frames in report.left_out.items():
        print(f"left out: {frames} frames, {reason}")
    return 0


def show(contents: "Contents", as_json: bool) -> None:
    """What the source has, and the template."""
    from mobile_vla.data.imports import template

    if as_json:
        parts = [
            {"name": part.name, "role": part.role.value, "what": part.what, "elements": part.elements}
            for part in contents.parts
        ]
        print_json(
            {
                "path": contents.path,
                "kind": contents.kind,
                "episodes": contents.episodes,
                "rate_hz": contents.rate_hz,
                "parts": parts,
                "attributes": dict(contents.attributes),
                "notes": contents.notes,
                "template": template(contents),
            }
        )
        return
    unit = "bags" if contents.kind == "bag" else "episodes"
    rate = f" at {contents.rate_hz:g} Hz" if contents.rate_hz else ""
    for line in (
        f"{contents.path}: {contents.kind}, {contents.episodes} {unit}{rate}",
        *(f"{part.role.value:9} {part}" for part in contents.parts),
        *(f"attribute {key} = {value[:100]}" for key, value in contents.attributes.items()),
        *contents.notes,
    ):
        print(f"# {line}")
    print(template(contents), end="")


@contextmanager
def _progress() -> Iterator["Counter"]:
    """A bar on a terminal, gone when the work is done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)
