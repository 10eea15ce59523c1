import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from mobile_vla.core import ConfigError, DatasetError
from mobile_vla.evaluate import Report, evaluate
from mobile_vla.evaluate.baselines import BASELINES
from mobile_vla.evaluate.run import JOURNAL, JSON, OVERVIEW, PAGE

from .recordings import make_chunks, written


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recorded somewhere else: no split, no seeds of scenes, words of its own."""
    folder = tmp_path_factory.mktemp("lab") / "data"
    written(folder, make_chunks(episodes=12), lambda number: f"fahr zur Tür {number}", lambda number: None)
    return folder


def run(checkpoint: Path, lab: Path, out: Path, **wanted: object) -> tuple[Report, str]:
    said = io.StringIO()
    console = Console(file=said, width=160)
    report = evaluate(checkpoint, (), 1, 1, out, dataset=lab, console=console, **wanted)  # type: ignore[arg-type]
    return report, said.getvalue()


def test_recorded_data_alone_are_compared_and_nothing_is_driven(checkpoint: Path, lab: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in sorted(lab.rglob("*")) if path.is_file()}
    report, said = run(checkpoint, lab, tmp_path / "out", part="all")
    assert report.results == ()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {JSON, PAGE}
    assert "nearest instruction" in said
    assert "success" not in said
    assert {path: path.read_bytes() for path in sorted(lab.rglob("*")) if path.is_file()} == before
    offline = json.loads((tmp_path / "out" / JSON).read_text(encoding="utf-8"))["offline"]
    assert (offline["part"], offline["episodes"]) == ("all", 12)
    assert tuple(offline["baselines"]) == BASELINES
    for figures in (offline["policy"], *(offline["baselines"][name]["policy_less_this"] for name in BASELINES)):
        assert set(figures["first"]) == set(figures["chunk"]) == {"mae", "rmse", "mae_of_range", "rmse_of_range"}
        assert all(set(each) == {"value", "low", "high"} for each in figures["first"]["rmse"])


def test_the_part_and_the_number_are_as_asked(checkpoint: Path, lab: Path, tmp_path: Path) -> None:
    report, _ = run(checkpoint, lab, tmp_path / "out", part="all", limit=3)
    assert report.offline
    assert (report.offline.episodes, report.offline.of_episodes) == (3, 12)


def test_without_a_split_it_is_said_what_to_do(checkpoint: Path, lab: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="data split"):
        run(checkpoint, lab, tmp_path / "out")


def test_an_earlier_evaluation_in_the_same_folder_is_not_lost(checkpoint: Path, lab: Path, tmp_path: Path) -> None:
    """Of another checkpoint, even: nothing is driven, so nothing of it is touched."""
    journal = tmp_path / JOURNAL
    journal.write_text('{"fingerprint": "another"}\n', encoding="utf-8")
    run(checkpoint, lab, tmp_path, part="all", limit=2)
    assert journal.read_text(encoding="utf-8") == '{"fingerprint": "another"}\n'
    with pytest.raises(ConfigError, match="another checkpoint"):
        evaluate(checkpoint, ("manoeuvres",), 1, 1, tmp_path)
    assert not (tmp_path / OVERVIEW).exists()
