from pathlib import Path

import pytest

from mobile_vla.core import ConfigError
from mobile_vla.evaluate.journal import Journal
from mobile_vla.language import Grammar
from mobile_vla.sim.world import World

from .conftest import drive_by_expert, planned


def test_results_come_back_as_they_were(tmp_path: Path, grammar: Grammar, rollers: World) -> None:
    path = tmp_path / "episodes.jsonl"
    results = [drive_by_expert(planned(scenario, grammar), rollers) for scenario in ("distractors", "stop")]
    journal = Journal(path, "one")
    for result in results:
        journal.add(result)
    again = Journal(path, "one")
    for result in results:
        assert (result.planned, "expert") in again
        assert again[result.planned, "expert"] == result
    assert (results[0].planned, "policy") not in again


def test_a_line_that_was_cut_off_is_dropped(tmp_path: Path, grammar: Grammar, rollers: World) -> None:
    path = tmp_path / "episodes.jsonl"
    result = drive_by_expert(planned("stop", grammar), rollers)
    Journal(path, "one").add(result)
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines()[1][:40])
    assert Journal(path, "one")[result.planned, "expert"] == result
    assert path.read_bytes() == whole


def test_results_of_something_else_are_not_mixed_in(tmp_path: Path) -> None:
    Journal(tmp_path / "episodes.jsonl", "one")
    with pytest.raises(ConfigError, match="another checkpoint"):
        Journal(tmp_path / "episodes.jsonl", "two")
