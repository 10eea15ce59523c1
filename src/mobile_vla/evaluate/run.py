"""A whole evaluation: plan, drive, compare, report."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mobile_vla.data import Dataset
from mobile_vla.evaluate.episode import EpisodeResult
from mobile_vla.evaluate.fleet import DRIVERS, DriverName, Job, drive_all
from mobile_vla.evaluate.journal import Journal
from mobile_vla.evaluate.note import note_beside
from mobile_vla.evaluate.offline import offline_errors
from mobile_vla.evaluate.page import html
from mobile_vla.evaluate.pictures import overview
from mobile_vla.evaluate.plan import PAIRED, PlannedEpisode, plan_suites
from mobile_vla.evaluate.provenance import provenance
from mobile_vla.evaluate.report import Report, write_json
from mobile_vla.language import Grammar, Split
from mobile_vla.policy.weights import SHIPPED, load_policy
from mobile_vla.sim.world import World

JOURNAL, JSON, PAGE, OVERVIEW = "episodes.jsonl", "report.json", "report.html", "overview.png"


def evaluate(
    policy_folder: Path,
    suites: Sequence[str] = ("all", "words", *PAIRED),
    episodes: int = 24,
    processes: int = 2,
    out: Path = Path("evaluation"),
    *,
    first_seed: int = 0,
    phrasing: Split = "held_out",
    drivers: Sequence[DriverName] = DRIVERS,
    dataset: Path | None = None,
    console: Console | None = None,
) -> Report:
    """Drive ``episodes`` scenes of each suite by the policy and its baselines; write and return the report.

    ``out`` gets ``report.json``, ``report.html``, ``overview.png`` and, while driving, ``episodes.jsonl``: started
    again after a kill, the same checkpoint under the same code drives only what is missing. The figures are the same
    for any number of ``processes``. ``dataset``: also compare with the expert on its test part. A result of the suite
    "routes" is noted beside the checkpoint, unless that is the shipped one. The table goes to ``console`` (standard
    output by default), progress to standard error.
    """
    grammar = Grammar.load()
    planned = plan_suites(suites, episodes, grammar, first_seed, phrasing)
    jobs = [Job(episode, driver) for episode in planned for driver in drivers if _is_of_use(driver, episode)]
    made_by = provenance(policy_folder, grammar, first_seed=first_seed, episodes=episodes, suites=suites)
    out.mkdir(parents=True, exist_ok=True)
    journal = Journal(out / JOURNAL, made_by.fingerprint)
    results = _drive(jobs, policy_folder, processes, journal)
    offline = None
    if dataset is not None:
        offline = offline_errors(load_policy(policy_folder), Dataset.open(dataset))
    report = Report(made_by, results, offline)
    write_report(report, out)
    console = console or Console()
    console.print(report.table())
    if policy_folder.resolve() != SHIPPED.resolve() and (said := note_beside(policy_folder, report, out / JSON)):
        console.print(said, highlight=False, soft_wrap=True)
    return report


def write_report(report: Report, out: Path) -> None:
    """``report.json``, ``report.html`` and ``overview.png`` in the folder ``out``."""
    write_json(report, out / JSON)
    picture = overview(report)
    (out / OVERVIEW).write_bytes(picture)
    world = World(base="rollers")
    try:
        (out / PAGE).write_text(html(report, picture, world), encoding="utf-8")
    finally:
        world.close()


def _is_of_use(driver: DriverName, planned: PlannedEpisode) -> bool:
    """Other words for one goal are nothing to the expert; nor is the exchange of words to the blind."""
    match driver:
        case "policy":
            return True
        case "expert":
            return planned.suite != "words"
        case "blind":
            return planned.suite not in ("words", *PAIRED)


def _drive(jobs: Sequence[Job], checkpoint: Path, processes: int, journal: Journal) -> tuple[EpisodeResult, ...]:
    missing = [job for job in jobs if (job.planned, job.driver) not in journal]
    with _progress(len(missing)) as progress:
        for result in drive_all(missing, checkpoint, processes):
            journal.add(result)
            progress.advance(progress.task_ids[0])
    return tuple(journal[job.planned, job.driver] for job in jobs)


@contextmanager
def _progress(total: int) -> Iterator[Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        progress.add_task("driving", total=total)
        yield progress
