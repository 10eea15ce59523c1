import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from mobile_vla.checkpoint import load, save
from mobile_vla.checkpoint.about import EVALUATION
from mobile_vla.checkpoint.verify import State, verify
from mobile_vla.evaluate import Report, evaluate, run
from mobile_vla.evaluate.note import note_beside
from mobile_vla.evaluate.provenance import provenance
from mobile_vla.evaluate.run import JSON
from mobile_vla.language import Grammar
from mobile_vla.sim.judge import Failure
from mobile_vla.sim.world import World

from .conftest import drive_by_expert, planned


@pytest.fixture(scope="module")
def copied(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint, saved again elsewhere."""
    folder = tmp_path_factory.mktemp("copied") / "checkpoint"
    save(folder, load(checkpoint))
    return folder


@pytest.fixture(scope="module")
def report(copied: Path, grammar: Grammar, rollers: World) -> Report:
    """Two drives of the policy in the suite, one of them successful, and others that do not count."""
    made_by = provenance(copied, grammar, first_seed=0, episodes=2, suites=("routes",))
    driven = drive_by_expert(planned("stop", grammar), rollers)
    won = replace(driven, driver="policy", planned=replace(driven.planned, suite="routes"))
    lost = replace(won, verdict=replace(won.verdict, failure=Failure.TOUCHED))
    others = (replace(won, driver="expert"), replace(won, planned=replace(won.planned, suite="manoeuvres")))
    return Report(made_by, (won, lost, *others))


def test_success_is_noted_beside_the_checkpoint_with_whose_it_is(report: Report, copied: Path, tmp_path: Path) -> None:
    said = note_beside(copied, report, tmp_path / JSON)
    assert str(copied / EVALUATION) in said
    assert json.loads((copied / EVALUATION).read_text(encoding="utf-8")) == {
        "weights_sha256": report.provenance.weights_sha256,
        "name": "success",
        "value": 0.5,
        "better": "higher",
        "episodes": 2,
        "suites": ["routes"],
        "report": str(tmp_path / JSON),
    }
    assert verify(copied).state is State.WHOLE
    save(copied, load(copied))
    assert (copied / EVALUATION).exists()


def test_without_the_suite_there_is_nothing_to_note(report: Report, tmp_path: Path) -> None:
    others = replace(report, results=report.results[2:])
    assert note_beside(tmp_path, others, tmp_path / JSON) == ""
    assert not (tmp_path / EVALUATION).exists()


def test_a_folder_that_cannot_be_written_is_said(report: Report, tmp_path: Path) -> None:
    assert note_beside(tmp_path / "none", report, tmp_path / JSON).startswith("the result is not noted")


def test_an_evaluation_notes_it_but_not_beside_the_shipped_checkpoint(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (copied / EVALUATION).unlink(missing_ok=True)

    def evaluated() -> str:
        said = io.StringIO()
        evaluate(
            copied, ("routes",), 1, 1, tmp_path / "out", drivers=("policy",), console=Console(file=said, width=999)
        )
        return said.getvalue()

    with monkeypatch.context() as patch:
        patch.setattr(run, "SHIPPED", copied)
        assert "noted" not in evaluated()
        assert not (copied / EVALUATION).exists()
    assert f"noted in {copied / EVALUATION}" in evaluated()
    assert json.loads((copied / EVALUATION).read_text())["report"] == str(tmp_path / "out" / JSON)


def test_an_evaluation_knows_its_checkpoint_wherever_and_whenever_it_is_saved(
    checkpoint: Path, copied: Path, grammar: Grammar, tmp_path: Path
) -> None:
    def known(folder: Path) -> tuple[str, str]:
        made_by = provenance(folder, grammar, first_seed=0, episodes=1, suites=())
        return made_by.weights_sha256, made_by.fingerprint

    moved = tmp_path / "moved"
    shutil.copytree(copied, moved)
    assert known(moved) == known(checkpoint)
    whole = load(checkpoint)
    save(moved, replace(whole, origin={"made": "otherwise"}))
    assert known(moved)[0] == known(checkpoint)[0]
    assert known(moved)[1] != known(checkpoint)[1]
    changed = {name: value + 1 if name == "query.bias" else value for name, value in whole.tensors.items()}
    save(moved, replace(whole, tensors=changed))
    assert known(moved)[0] != known(checkpoint)[0]
