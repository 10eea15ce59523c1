"""A whole evaluation: plan, drive, compare, report."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mobile_vla.data import Dataset
from mobile_vla.engine.load import load_policy
from mobile_vla.evaluate.episode import EpisodeResult
from mobile_vla.evaluate.fleet import DRIVERS, DriverName, Job, drive_all
from mobile_vla.evaluate.journal import Journal
from mobile_vla.evaluate.note import note_beside
from mobile_vla.evaluate.offline import OfflineReport, offline_errors
from mobile_vla.evaluate.offline_words import show
from mobile_vla.evaluate.page import html
from mobile_vla.evaluate.pictures import overview
from mobile_vla.evaluate.plan import PAIRED, PlannedEpisode, plan_suites
from mobile_vla.evaluate.provenance import Provenance, provenance
from mobile_vla.evaluate.remarks import Part
from mobile_vla.evaluate.report import Report, write_json
from mobile_vla.language import Grammar, Split
from mobile_vla.policy.weights import SHIPPED
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
    part: Part = "test",
    limit: int | None = None,
    ray: str | None = None,
    console: Console | None = None,
) -> Report:
    """Drive ``episodes`` scenes of each suite by the policy and its baselines; write and return the report.

    ``out`` gets ``report.json``, ``report.html``, ``overview.png`` and, while driving, ``episodes.jsonl``: started
    again after a kill, the same checkpoint under the same code drives only what is missing. The figures are the same
    for any number of ``processes``; with ``ray`` the Ray cluster at that address drives in their place. ``dataset``:
    also compare with what its ``part`` shows, over ``limit`` of its episodes or all; without ``suites`` that alone, and
    nothing is driven. A result of the suite "routes" is noted beside the checkpoint, unless that is the shipped one.
    The tables go to ``console`` (standard output by default), progress to standard error.
    """
    grammar = Grammar.load()
    planned = plan_suites(suites, episodes, grammar, first_seed, phrasing)
    jobs = [Job(episode, driver) for episode in planned for driver in drivers if _is_of_use(driver, episode)]
    made_by = provenance(policy_folder, grammar, first_seed=first_seed, episodes=episodes, suites=suites)
    offline = _compare(made_by, dataset, part, limit) if dataset is not None else None
    out.mkdir(parents=True, exist_ok=True)
    results: tuple[EpisodeResult, ...] = ()
    if jobs:
        results = _drive(jobs, policy_folder, processes, ray, Journal(out / JOURNAL, made_by.fingerprint))
    report = Report(made_by, results, offline)
    write_report(report, out)
    console = console or Console()
    if report.results:
        console.print(report.table())
    if report.offline:
        show(report.offline, console)
    if policy_folder.resolve() != SHIPPED.resolve() and (said := note_beside(policy_folder, report, out / JSON)):
        console.print(said, highlight=False, soft_wrap=True)
    return report


def write_report(report: Report, out: Path) -> None:
    """``report.json``, ``report.html`` and, where anything was driven, ``overview.png`` in the folder ``out``."""
    write_json(report, out / JSON)
    picture = overview(report)
    if report.results:
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


def _drive(
    jobs: Sequence[Job], checkpoint: Path, processes: int, ray: str | None, journal: Journal
) -> tuple[EpisodeResult, ...]:
    missing = [job for job in jobs if (job.planned, job.driver) not in journal]
    with _progress("driving", len(missing)) as progress:
        for result in drive_all(missing, checkpoint, processes, ray):
            journal.add(result)
            progress.advance(progress.task_ids[0])
    return tuple(journal[job.planned, job.driver] for job in jobs)


def _compare(made_by: Provenance, dataset: Path, part: Part, limit: int | None) -> OfflineReport:
    with ExitStack() as stack:
        bars: list[Progress] = []

        def advance(done: int, total: int) -> None:
            if not bars:  # not before all that can be refused at once has been
                bars.append(stack.enter_context(_progress("comparing", total)))
            bars[0].update(bars[0].task_ids[0], completed=done)

        policy = load_policy(Path(made_by.checkpoint))
        return offline_errors(policy, Dataset.open(dataset), part, limit, advance, made_by.checkpoint_origin)


@contextmanager
def _progress(what: str, total: int) -> Iterator[Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        progress.add_task(what, total=total)
        yield progress
