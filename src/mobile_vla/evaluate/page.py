"""The report as one HTML file that needs nothing else: tables with intervals, and pictures of what went wrong."""

import base64
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from mobile_vla.evaluate.episode import EpisodeResult
from mobile_vla.evaluate.offline import OfflineReport
from mobile_vla.evaluate.offline_words import Sheet, heading, sheets, verdicts
from mobile_vla.evaluate.pictures import drive_picture
from mobile_vla.evaluate.report import NOTES, Report, Summary
from mobile_vla.evaluate.statistics import Paired, Spread
from mobile_vla.sim.world import World

PICTURES_A_KIND = 2
"""Drives shown of each kind of failure."""

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2em auto; padding: 0 1em; color: #1c2328; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin-top: 2.2em; border-bottom: 1px solid #d5dbe0; }
table { border-collapse: collapse; margin: .8em 0; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25em .9em .25em 0; border-bottom: 1px solid #e7ebee; vertical-align: top; }
th { font-weight: 600; } p.note, figcaption, dd { color: #55626c; font-size: .92em; }
img { max-width: 100%; } figure { display: inline-block; width: 500px; margin: 0 1.2em 1em 0; vertical-align: top; }
dt { font-weight: 600; margin-top: .4em; } pre { font-size: .8em; white-space: pre-wrap; color: #55626c; }
"""


def html(report: Report, overview_png: bytes, world: World) -> str:
    """The whole page; ``world`` draws the scenes of the drives that are shown. Where nothing was driven the overview
    stays out."""
    made_by = report.provenance
    parts = [
        f"<h1>Evaluation of {escape(made_by.checkpoint)}</h1>",
        f"<p class=note>{escape(made_by.began)} · checkpoint {made_by.checkpoint_sha256[:12]} · "
        f"commit {escape(made_by.git_commit or 'unknown')} · "
        f"{made_by.episodes_per_suite} scenes a suite · seeds from {made_by.first_seed} · {escape(made_by.renderer)} · "
        f"{escape(made_by.machine)}</p>",
        *([f'<img alt="overview" src="{_data_url(overview_png)}">'] if report.results else []),
        *_groups(report),
        *_scenarios(report),
        *_words(report),
        *_sides(report),
        *_objects(report),
        *(_offline(report.offline) if report.offline else ()),
        *(_failures(report, world) if report.results else ()),
        "<h2>How to read this</h2><dl>",
        *(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in NOTES.items()),
        "</dl><h2>Where it comes from</h2>",
        f"<pre>{escape(json.dumps(made_by.to_dict(), indent=1, ensure_ascii=False))}</pre>",
    ]
    head = f'<meta charset="utf-8"><title>Evaluation of {escape(made_by.checkpoint)}</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def _groups(report: Report) -> list[str]:
    if not report.groups:
        return []
    rows: list[list[Any]] = [
        [group, *(Summary.of(report.of(driver, group)).success for driver in report.drivers)] for group in report.groups
    ]
    rows.append(["together", *(Summary.of(report.of(driver)).success for driver in report.drivers)])
    parts = ["<h2>Success</h2>", _table(["", *report.drivers], rows)]
    others = [driver for driver in report.drivers if driver != "policy"]
    if "policy" in report.drivers and others:
        compared = [[group, *(_paired(report.compared(group, other)) for other in others)] for group in report.groups]
        parts += [
            "<p class=note>The same scenes: won by the policy alone : by the other alone (exact McNemar p).</p>",
            _table(["", *(f"against {other}" for other in others)], compared),
        ]
    columns = [
        "",
        "driver",
        "touched",
        "ended",
        "side obeyed",
        "right object",
        "target seen",
        "SPL",
        "path m",
        "time s",
    ]
    details = []
    for group in report.groups:
        for driver in report.drivers:
            s = Summary.of(report.of(driver, group))
            shares = [s.touched, s.ended, s.side_obeyed, s.right_target, s.seen]
            details.append([group, driver, *shares, _spread(s.spl), _spread(s.path_m), _spread(s.duration_s)])
    note = "<p class=note>SPL, path and time: mean (10th to 90th percentile); path and time of successful drives.</p>"
    return [*parts, "<h2>Behind it</h2>", note, _table(columns, details)]


def _scenarios(report: Report) -> list[str]:
    if not report.scenarios:
        return []
    rows = [
        [scenario, *(Summary.of(report.in_scenario(driver, scenario)).success for driver in report.drivers)]
        for scenario in report.scenarios
    ]
    return ["<h2>By scenario</h2>", _table(["", *report.drivers], rows)]


def _words(report: Report) -> list[str]:
    ways, compared = report.in_words("policy"), report.words_compared()
    if not ways:
        return []
    first = next(iter(ways))
    rows = [
        [way, Summary.of(results).success, _paired(compared[way]) if way in compared else ""]
        for way, results in ways.items()
    ]
    note = "<p class=note>The same scenes and goals, told in phrasings taught (train) and never taught (held_out).</p>"
    return ["<h2>Words</h2>", note, _table(["", "success", f"{first} alone : this alone"], rows)]


def _sides(report: Report) -> list[str]:
    responses = report.side_responses()
    if not responses:
        return []
    columns = ["", "obeyed both", "side changed", "not decided", "lateral opposed", "yaw opposed", "lateral L-R m"]
    rows = [
        [d, r.both_obeyed, r.changed, r.undecided, r.lateral_opposed, r.yaw_opposed, _spread(r.lateral_m)]
        for d, r in responses.items()
    ]
    note = (
        "<p class=note>Deaf to words: 0 throughout. The last three columns are open loop, on the same first frames.</p>"
    )
    return ["<h2>Left and right exchanged</h2>", note, _table(columns, rows)]


def _objects(report: Report) -> list[str]:
    responses = report.object_responses()
    if not responses:
        return []
    columns = ["", "right both times", "by lot", "end changed", "by lot", "colour alone", "kind alone", "both"]
    rows = []
    for driver, r in responses.items():
        by = r.both_right_by_exchange
        lots = [_percent(r.chance_both_right), _percent(r.chance_changed)]
        rows.append([driver, r.both_right, lots[0], r.changed, lots[1], by["colour"], by["kind"], by["both"]])
    note = (
        "<p class=note>Deaf to words: 0. The last three columns divide the first by what the two names differ in.</p>"
    )
    return ["<h2>One object's name exchanged for another's</h2>", note, _table(columns, rows)]


def _offline(offline: OfflineReport) -> list[str]:
    parts = ["<h2>Recorded data</h2>", f"<p class=note>{escape(heading(offline))}</p>"]
    for sheet in sheets(offline, chunks=True):
        parts += [f"<h3>{escape(sheet.title)}</h3>", _table(sheet.columns, _on_one_line(sheet))]
    verdict = "".join(f"<li>{escape(sentence)}</li>" for sentence in verdicts(offline))
    return [*parts, "<p class=note>By the intervals of the differences:</p>", f"<ul>{verdict}</ul>"]


def _on_one_line(sheet: Sheet) -> list[list[str]]:
    return [[cell.replace("\n", ", ") for cell in row] for row in sheet.rows]


def _failures(report: Report, world: World) -> list[str]:
    by_kind: dict[str, list[EpisodeResult]] = defaultdict(list)
    for result in report.results:
        if result.driver == "policy":
            by_kind["success" if result.success else result.verdict.failure.value].append(result)
    parts = ["<h2>Drives of the policy</h2>"]
    for kind, results in sorted(by_kind.items(), key=lambda item: (item[0] == "success", -len(item[1]))):
        parts.append(f"<h3>{escape(kind)}: {len(results)}</h3>")
        parts += [_figure(result, world) for result in _spread_out(results, PICTURES_A_KIND)]
    return parts


def _spread_out(results: Sequence[EpisodeResult], count: int) -> list[EpisodeResult]:
    """A few of them, evenly over the list."""
    step = max(1, len(results) // count)
    return list(results[::step][:count])


def _figure(result: EpisodeResult, world: World) -> str:
    verdict, planned = result.verdict, result.planned
    touched = f", touched {verdict.touched}" if verdict.touched else ""
    caption = (
        f"“{planned.words}” — {planned.scenario}, seed {planned.seed}: {verdict.failure.value}{touched}, "
        f"{verdict.duration_s:.1f} s, {verdict.path_m:.2f} m, last word: {result.status}"
    )
    return (
        f'<figure><img alt="{escape(caption)}" src="{_data_url(drive_picture(result, world))}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _table(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _paired(paired: Paired) -> str:
    return f"{paired.only_first} : {paired.only_second} (p = {paired.p_value:.2g})"


def _spread(spread: Spread) -> str:
    return f"{spread.mean:.2f} ({spread.p10:.2f} to {spread.p90:.2f})" if spread.total else "-"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"


def _data_url(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
