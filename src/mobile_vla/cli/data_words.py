"""What ``mobile-vla data`` says to a person."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mobile_vla.data.inspection import Finding, Grade, Report
from mobile_vla.data.split import Split

MOST = 6
"""Values of one kind in a row of the table."""
STYLES = {Grade.ERROR: "bold red", Grade.WARNING: "yellow", Grade.NOTE: "cyan"}
ROWS = {
    "modes": "goals",
    "sides": "pass on the",
    "kinds": "targets",
    "colours": "colours",
    "languages": "languages",
    "drivers": "drivers",
    "scenarios": "scenarios",
    "outcomes": "outcomes",
    "frames_by_status": "labelled as",
    "frames_still": "the base is told to be",
    "frames_sideways": "to go sideways",
    "frames_turning": "to turn",
}


def print_report(report: Report, most: int) -> None:
    """The contents, the findings (``most`` of each kind), how sure the checks are, and the sum."""
    console = Console(highlight=False)
    rate = f", {report.frames / report.wall_s:,.0f} frames/s" if report.wall_s > 0 else ""
    console.print(
        f"{escape(str(report.root))}: {report.episodes} episodes, {report.frames} frames, "
        f"{duration(report.seconds)} (looked at in {report.wall_s:.1f} s{rate})\n"
    )
    console.print(_contents(report))
    if report.findings:
        console.print(_findings(report.findings, most))
    for name, words in report.remarks.items():
        console.print(f"[dim]{name}: {escape(words)}[/dim]")
    counts = [report.count(grade) for grade in Grade]
    named = ", ".join(_number(number, str(grade)) for number, grade in zip(counts, Grade, strict=True))
    console.print(named + ("" if report.sound else ": do not train on it as it is"))


def print_values(values: Mapping[str, Any]) -> None:
    """One line each."""
    for name, value in values.items():
        shown = ", ".join(f"{key} {_plain(each)}" for key, each in value.items()) if isinstance(value, dict) else value
        print(f"{name:12} {shown}")


def print_axes(axes: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    """A table of the figures of each axis, in its unit."""
    for name, rows in axes.items():
        columns = list(next(iter(rows.values()), {}))
        table = Table(title=name, title_justify="left", box=None, pad_edge=False)
        table.add_column("")
        for column in columns:
            table.add_column(column, justify="right")
        for axis, figures in rows.items():
            table.add_row(axis, *(f"{figures[column]:.3f}" for column in columns))
        Console(highlight=False).print("", table)


def print_split(root: Path, split: Split, counts: Mapping[str, tuple[int, int, int]]) -> None:
    """How many episodes of each scenario are in each part."""
    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False)
    for name in ("scenario", "train", "validation", "test"):
        table.add_column(name, justify="left" if name == "scenario" else "right")
    for scenario, numbers in counts.items():
        table.add_row(escape(scenario), *map(str, numbers))
    sizes = [len(part) for part in (split.train, split.validation, split.test)]
    table.add_row("all", *map(str, sizes), style="bold")
    console.print(table)
    for name, size, share in zip(("train", "validation", "test"), sizes, split.fractions, strict=True):
        if not size and share:
            console.print(f"{name} is empty: there are too few scenes for a share of {share:g}, or use another --salt")
    console.print(f"{escape(str(root))}: divided, split {split.split_hash[:16]}")


def duration(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _contents(report: Report) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("")
    for key, name in ROWS.items():
        counts = {value: number for value, number in report.balance[key].items() if number}
        if counts:
            table.add_row(name, escape(_shares(counts)))
    frames = sum(report.balance["frames_still"].values())
    used = report.balance["frames_used"]
    if frames:
        table.add_row("axes in use", ", ".join(f"{axis} {number / frames:.0%}" for axis, number in used.items()))
    table.add_row("", "")
    return table


def _shares(counts: Mapping[str, int]) -> str:
    total = sum(counts.values())
    shown = [f"{value} {number} ({number / total:.0%})" for value, number in list(counts.items())[:MOST]]
    rest = len(counts) - MOST
    return ", ".join(shown) + (f" and {rest} more" if rest > 0 else "")


def _findings(findings: Sequence[Finding], most: int) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("grade", "check", "where"):
        table.add_column(name, no_wrap=True, style="")
    table.add_column("what, and what to do", overflow="fold")
    for (grade, check), group in groupby(findings, key=lambda each: (each.grade, each.check)):
        members = list(group)
        for place, finding in enumerate(members[:most]):
            what = escape(finding.what)
            if place == 0 or finding.remedy != members[place - 1].remedy:
                what += f"\n[dim]{escape(finding.remedy)}[/dim]"
            table.add_row(f"[{STYLES[grade]}]{grade}[/]", check, _where(finding), what)
        if len(members) > most:
            table.add_row("", "", "", f"and {len(members) - most} more of this kind: --show {len(members)}, or --json")
    table.add_row("", "", "", "")
    return table


def _where(finding: Finding) -> str:
    if finding.episode is None:
        return "all"
    return f"episode {finding.episode}" + ("" if finding.frame is None else f", frame {finding.frame}")


def _number(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _plain(value: Any) -> Any:
    return f"{value:.3f}" if isinstance(value, float) else value
