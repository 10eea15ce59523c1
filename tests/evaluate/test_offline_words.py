import io
from pathlib import Path

import pytest
from rich.console import Console

from mobile_vla.evaluate import OfflineReport, Report, offline_errors
from mobile_vla.evaluate.offline_words import heading, sheets, show, verdicts
from mobile_vla.evaluate.page import html
from mobile_vla.evaluate.pictures import overview
from mobile_vla.evaluate.provenance import provenance
from mobile_vla.language import Grammar
from mobile_vla.sim.world import World

from .recordings import EPISODES, RecallPolicy, make_chunks, written

PREDICTORS = ["policy", "constant", "majority", "hold last", "nearest instruction"]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> OfflineReport:
    """A policy that is right but for the last axis, which it gets badly wrong, and the second, as bad as the mean."""
    chunks = make_chunks()
    wrong = chunks.copy()
    wrong[..., 1] = 0.0
    wrong[..., 2] = -1.0
    return offline_errors(RecallPolicy(wrong), written(tmp_path_factory.mktemp("compared") / "data", chunks), "all")


def test_every_table_has_the_policy_beside_all_baselines(compared: OfflineReport) -> None:
    *errors, differences = sheets(compared, chunks=True)
    assert len(errors) == 4
    for sheet in errors:
        assert [row[0] for row in sheet.rows] == PREDICTORS
        assert sheet.columns[1:4] == compared.axes
    assert [row[0] for row in differences.rows] == [f"less {name}" for name in PREDICTORS[1:]]
    first = errors[0].rows[0]
    assert first[1] == "0.000 m/s\n0.0 % [0.0, 0.0]"
    size, unit = first[3].split("\n")[0].split()
    assert (float(size), unit) == (pytest.approx(1.2, abs=0.05), "rad/s")
    assert differences.rows[0][3].startswith("+")
    assert differences.rows[0][1].startswith("-")
    assert all(len(row) == len(sheet.columns) for sheet in (*errors, differences) for row in sheet.rows)


def test_it_is_said_what_the_policy_is_better_than(compared: OfflineReport) -> None:
    said = dict(sentence.split(": ") for sentence in verdicts(compared))
    assert said["linear_x"] == "better than constant, majority, hold last, nearest instruction"
    assert said["angular_z"] == "worse than constant, majority, hold last, nearest instruction"
    assert "not told apart from" in said["linear_y"]
    assert "constant" in said["linear_y"].split("not told apart from")[1]


def test_of_few_episodes_nothing_is_said(tmp_path: Path) -> None:
    chunks = make_chunks(episodes=4)
    report = offline_errors(RecallPolicy(chunks), written(tmp_path / "data", chunks), "all")
    (sentence,) = verdicts(report)
    assert "4 episodes are too few" in sentence


def test_the_heading_says_what_was_compared_with_what(compared: OfflineReport) -> None:
    said = heading(compared)
    assert f"of {EPISODES} episodes, the whole of {compared.dataset}." in said
    assert "others of other scenes" in said
    assert "Nothing tells whether the policy was trained on these" in said
    assert "0.12 m/s, 0.12 m/s, 0.3 rad/s" in said


def test_the_terminal_and_the_page_show_the_same_figures(
    compared: OfflineReport, checkpoint: Path, grammar: Grammar, rollers: World
) -> None:
    said = io.StringIO()
    show(compared, Console(file=said, width=160))
    made_by = provenance(checkpoint, grammar, first_seed=0, episodes=0, suites=())
    report = Report(made_by, (), compared)
    page = html(report, overview(report), rollers)
    assert "<img" not in page  # nothing was driven
    for sheet in sheets(compared):
        for row in sheet.rows:
            for line in row[1].split("\n"):
                assert line in said.getvalue()
                assert line in page
    for sentence in verdicts(compared):
        assert sentence in said.getvalue()
        assert sentence in page
    assert "Root mean square error of whole chunks" in page
    assert "nearest instruction" in page
