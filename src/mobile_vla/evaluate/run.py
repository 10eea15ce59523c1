"""A whole evaluation: plan, drive, compare, report."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mobile_vla.evaluate.episode import EpisodeResult
from mobile_vla.evaluate.fleet import DRIVERS, DriverName, Job, drive_all
from mobile_vla.evaluate.plan import plan_suites
from mobile_vla.evaluate.provenance import Provenance, provenance
from mobile_vla.evaluate.report import Report, write_json
from mobile_vla.language import Grammar, Split


def evaluate(
    policy_folder: Path,
    suites: Sequence[str] = ("all",),
    episodes: int = 20,
    processes: int = 2,
    out: Path | None = None,
    *,
    first_seed: int = 0,
    phrasing: Split = "held_out",
    drivers: Sequence[DriverName] = DRIVERS,
    console: Console | None = None,
) -> Report:
    """Drive ``episodes`` of each suite with the policy and the baselines beside it, and write the report into ``out``."""
    grammar = Grammar.load()
    planned = plan_suites(suites, episodes, grammar, first_seed, phrasing)
    jobs = [Job(episode, driver) for episode in planned for driver in drivers]
    made_by: Provenance = provenance(policy_folder, grammar, first_seed=first_seed, episodes=episodes, suites=suites)
    results: list[EpisodeResult] = []
    with _progress() as progress:
        task = progress.add_task("driving", total=len(jobs))
        for result in drive_all(jobs, policy_folder, processes):
            results.append(result)
            progress.advance(task)
    report = Report(made_by, tuple(results))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_json(report, out / "report.json")
    (console or Console()).print(report.table())
    return report


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True))
