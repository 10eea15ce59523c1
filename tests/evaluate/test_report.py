from dataclasses import replace
from pathlib import Path

import pytest

from mobile_vla.core import Status
from mobile_vla.evaluate import EpisodeResult, Report, Summary, plan_episodes
from mobile_vla.evaluate.page import html
from mobile_vla.evaluate.pictures import overview
from mobile_vla.evaluate.provenance import provenance
from mobile_vla.language import Grammar
from mobile_vla.runtime import Ending
from mobile_vla.sim.judge import Failure, Verdict
from mobile_vla.sim.scene import Pose
from mobile_vla.sim.world import World


def result(planned: object, driver: str, failure: Failure, **changes: object) -> EpisodeResult:
    """As if driven: half a metre in five seconds."""
    verdict = Verdict(failure, None, True, failure is Failure.NONE, 0.4, 0.1, 0.5, 5.0, Pose(0.2, 0.1, 0.3))
    made = EpisodeResult(
        planned,  # type: ignore[arg-type]
        driver,
        verdict,
        Ending.FINISHED,
        Status.ARRIVED,
        25,
        0.5,
        1.0 if failure is Failure.NONE else 0.0,
        True,
        0,
        5,
        None,
        ((0.0, 0.0, 0.0, 0.0), (5.0, 0.2, 0.1, 0.3)),
        ((0.1, 0.1), (0.1, 0.1)),
        None,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def report(checkpoint: Path, grammar: Grammar) -> Report:
    made_by = provenance(checkpoint, grammar, first_seed=0, episodes=4, suites=("all",))
    results = []
    for suite in ("routes", "absent", "words", "sides", "objects"):
        for place, planned in enumerate(plan_episodes(suite, 4, grammar)):
            failure = Failure.WRONG_OBJECT if place % 2 else Failure.NONE
            results.append(result(planned, "policy", failure))
            if suite in ("routes", "absent"):
                results.append(result(planned, "blind", Failure.TOO_FAR if place else Failure.NONE))
    return Report(made_by, tuple(results))


def test_a_summary_counts_each_share_over_what_it_applies_to(report: Report) -> None:
    summary = Summary.of(report.of("policy", "routes"))
    assert (summary.success.count, summary.success.total) == (2, 4)
    assert summary.failures == {"stopped at another object": 2}
    assert summary.spl.mean == 0.5
    assert summary.path_m.total == 2
    unknown = replace(report.of("policy", "routes")[0], target_seen=None, spl=None)
    assert Summary.of([unknown]).seen.total == 0


def test_groups_leave_out_the_suites_that_drive_scenes_again(report: Report) -> None:
    assert report.groups == ("routes", "absent")
    assert len(report.of("policy")) == 8
    assert len(report.of("policy", "words")) == 16


def test_drivers_are_compared_scene_by_scene(report: Report) -> None:
    paired = report.compared("routes", "blind")
    assert (paired.only_first, paired.only_second, paired.both, paired.neither) == (1, 0, 1, 2)


def test_ways_to_say_it_are_compared_scene_by_scene(report: Report) -> None:
    assert {way: len(results) for way, results in report.in_words("policy").items()} == {
        "train en": 4,
        "train ko": 4,
        "held_out en": 4,
        "held_out ko": 4,
    }
    assert report.words_compared()["train ko"].only_first == 4
    assert report.words_compared()["held_out en"].both == 4


def test_the_page_and_the_picture_show_every_part(report: Report, rollers: World) -> None:
    picture = overview(report)
    page = html(report, picture, rollers)
    for heading in ("Success", "By scenario", "Words", "Left and right exchanged", "name exchanged", "How to read"):
        assert heading in page
    assert "stopped at another object" in page
    assert "50 % [15, 85] (2/4)" in page
    assert page.count("<figure>") == 4


def test_an_empty_report_can_be_written(report: Report, rollers: World) -> None:
    empty = Report(report.provenance, ())
    assert empty.to_dict()["groups"] == {}
    assert "How to read" in html(empty, overview(empty), rollers)
