import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from mobile_vla.core import CheckpointError
from mobile_vla.evaluate import Job, Report, drive_all, evaluate, plan_episodes
from mobile_vla.evaluate.run import JOURNAL, JSON, OVERVIEW, PAGE
from mobile_vla.language import Grammar

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def done(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path, str]:
    out, said = tmp_path_factory.mktemp("evaluation"), io.StringIO()
    console = Console(file=said, width=160)
    report = evaluate(checkpoint, ("manoeuvres",), 2, 1, out, console=console)
    return report, out, said.getvalue()


def test_everything_is_driven_by_everyone(done: tuple[Report, Path, str]) -> None:
    report, _, said = done
    assert report.drivers == ("policy", "blind", "expert")
    assert [len(report.of(driver, "manoeuvres")) for driver in report.drivers] == [2, 2, 2]
    assert all(result.success for result in report.of("expert"))
    assert "100 % [34, 100] (2/2)" in said


def test_the_json_holds_figures_intervals_and_where_they_come_from(done: tuple[Report, Path, str]) -> None:
    report, out, _ = done
    values = json.loads((out / JSON).read_text(encoding="utf-8"))
    success = values["groups"]["manoeuvres"]["expert"]["success"]
    assert (success["count"], success["total"], success["value"]) == (2, 2, 1.0)
    assert success["low"] == pytest.approx(0.342, abs=0.001)
    assert values["compared"]["manoeuvres"]["expert"]["only_first"] == 0
    made_by = values["provenance"]
    assert len(made_by["checkpoint_sha256"]) == len(made_by["source_sha256"]) == 64
    assert made_by["checkpoint_origin"] == {"untrained": True}
    assert made_by["first_seed"] == 0
    assert {"torch", "mujoco", "python"} <= set(made_by["versions"])
    assert made_by["renderer"]
    assert len(values["episodes"]) == len(report.results) == 6


def test_the_page_needs_nothing_else_and_shows_the_figures(done: tuple[Report, Path, str]) -> None:
    report, out, _ = done
    page = (out / PAGE).read_text(encoding="utf-8")
    assert "100 % [34, 100] (2/2)" in page
    assert 'src="data:image/png' in page
    assert "http" not in page.replace("http-equiv", "")
    failed = [result for result in report.of("policy") if not result.success]
    assert failed
    assert failed[0].verdict.failure.value in page
    assert failed[0].planned.words in page
    assert (out / OVERVIEW).read_bytes().startswith(PNG)


def test_started_again_it_drives_only_what_is_missing(done: tuple[Report, Path, str], checkpoint: Path) -> None:
    report, out, _ = done
    journal = (out / JOURNAL).read_text(encoding="utf-8").splitlines(keepends=True)
    (out / JOURNAL).write_text("".join(journal[:-1]), encoding="utf-8")
    again = evaluate(checkpoint, ("manoeuvres",), 2, 1, out, console=Console(file=io.StringIO()))
    assert again.results == report.results
    assert (out / JOURNAL).read_text(encoding="utf-8").splitlines(keepends=True) == journal


def test_two_processes_find_the_same(done: tuple[Report, Path, str], checkpoint: Path) -> None:
    report, _, _ = done
    alone = [*report.of("policy")[:1], *report.of("expert")[1:]]
    jobs = [Job(result.planned, driver) for result, driver in zip(alone, ("policy", "expert"), strict=True)]
    assert list(drive_all(jobs, checkpoint, 2)) == alone


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        evaluate(tmp_path / "none", ("manoeuvres",), 1, 1, tmp_path / "out")


def test_no_process_cannot_drive(checkpoint: Path, grammar: Grammar) -> None:
    jobs = [Job(episode, "expert") for episode in plan_episodes("manoeuvres", 1, grammar)]
    with pytest.raises(ValueError, match="at least 1"):
        list(drive_all(jobs, checkpoint, 0))
