"""A comparison with recorded data in words: the same tables for the terminal and for the page."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from mobile_vla.evaluate.offline import WITHIN, Errors, OfflineReport
from mobile_vla.evaluate.remarks import FEW, Part
from mobile_vla.evaluate.statistics import Estimate

_CLOSE = "close on every axis"
_SPOKEN_PARTS: dict[Part, str] = {
    "test": "the test part of",
    "validation": "the validation part of",
    "train": "the training part of",
    "all": "the whole of",
}


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table: what it is, its columns, its rows; a cell may have two lines."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def heading(report: OfflineReport) -> str:
    """What was compared, and all that has to be known about it."""
    tolerance = ", ".join(f"{value:g} {unit}" for value, unit in zip(report.tolerance, report.units, strict=True))
    return " ".join(
        (
            f"{report.frames} frames of {report.episodes} episodes, {_SPOKEN_PARTS[report.part]} {report.dataset}.",
            *report.remarks,
            f"Close: within {100 * WITHIN:g} % of the range ({tolerance}).",
            "In brackets 95 % intervals of a bootstrap over episodes.",
        )
    )


def verdicts(report: OfflineReport) -> Iterator[str]:
    """For each axis, what the policy's intervals say it is better than, worse than, or not told apart from."""
    if report.episodes < FEW:
        yield f"{report.episodes} episodes are too few to say what the policy is better than: judge {FEW} or more"
        return
    for place, axis in enumerate(report.axes):
        kinds: dict[str, list[str]] = {"better than": [], "not told apart from": [], "worse than": []}
        for name, baseline in report.baselines:
            difference = baseline.policy_less_this.first.mae[place]
            kind = (
                "better than" if difference.high < 0 else "worse than" if difference.low > 0 else "not told apart from"
            )
            kinds[kind].append(_spoken(name))
        yield f"{axis}: " + "; ".join(f"{kind} {', '.join(names)}" for kind, names in kinds.items() if names)


def sheets(report: OfflineReport, chunks: bool = False) -> Iterator[Sheet]:
    """Errors of first actions and the policy's distance to each baseline; with ``chunks`` those of whole chunks too."""
    mean, root = "Mean absolute error", "Root mean square error"
    yield _errors(report, f"{mean} of the first action", lambda e: (e.first.mae, e.first.mae_of_range), close=True)
    yield _errors(report, f"{root} of the first action", lambda e: (e.first.rmse, e.first.rmse_of_range))
    if chunks:
        yield _errors(report, f"{mean} of whole chunks", lambda e: (e.chunk.mae, e.chunk.mae_of_range))
        yield _errors(report, f"{root} of whole chunks", lambda e: (e.chunk.rmse, e.chunk.rmse_of_range))
    yield _differences(report)


def show(report: OfflineReport, console: Console) -> None:
    """The main figures, for a terminal."""
    console.print(heading(report), highlight=False)
    for sheet in sheets(report):
        table = Table(title=sheet.title, title_justify="left")
        for column in sheet.columns:
            table.add_column(column)
        for row in sheet.rows:
            table.add_row(*row)
        console.print(table)
    for sentence in verdicts(report):
        console.print(sentence, highlight=False, soft_wrap=True)


def _errors(
    report: OfflineReport,
    title: str,
    figures: Callable[[Errors], tuple[tuple[Estimate, ...], tuple[Estimate, ...]]],
    close: bool = False,
) -> Sheet:
    """``figures``: in units and as shares of the range, by axis."""
    rows = []
    for name, errors in (("policy", report.policy), *((name, each.errors) for name, each in report.baselines)):
        cells = [
            f"{size.value:.3f} {unit}\n{_percent(share)}"
            for size, share, unit in zip(*figures(errors), report.units, strict=True)
        ]
        rows.append((_spoken(name), *cells, *([_percent(errors.within)] if close else [])))
    columns = ("", *report.axes, *([_CLOSE] if close else []))
    return Sheet(f"{title}, and its share of the range", columns, tuple(rows))


def _differences(report: OfflineReport) -> Sheet:
    rows = []
    for name, baseline in report.baselines:
        less = baseline.policy_less_this
        shares = [_percent(share, signed=True) for share in less.first.mae_of_range]
        rows.append((f"less {_spoken(name)}", *shares, _percent(less.within, signed=True)))
    title = "Policy less baseline, mean absolute error of the first action in points of the range: below zero is better"
    return Sheet(title, ("", *report.axes, f"{_CLOSE} (above zero is better)"), tuple(rows))


def _percent(share: Estimate, signed: bool = False) -> str:
    value, low, high = (f"{100 * each:{'+' if signed else ''}.1f}" for each in (share.value, share.low, share.high))
    return f"{value} {'' if signed else '% '}[{low}, {high}]"


def _spoken(name: str) -> str:
    return name.replace("_", " ")
