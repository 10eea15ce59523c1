from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mobile_vla.core import NS_PER_S, ActionContract
from mobile_vla.record.checks import Facts, Verdict, check
from mobile_vla.robot.cameras.health import HealthSummary

PERIOD_NS = NS_PER_S // 5


def good(frames=30):
    actions = np.zeros((frames, 3), dtype=np.float32)
    actions[:, 0] = 0.3
    actions[::3, 2] = 0.5
    return Facts(
        contract=ActionContract(),
        capture_ns=np.arange(frames, dtype=np.int64) * PERIOD_NS,
        actions=actions,
        measured=actions.copy(),
        health=HealthSummary(frames=frames),
    )


def with_gap(facts, seconds):
    stamps = facts.capture_ns.copy()
    stamps[10:] += round(seconds * NS_PER_S)
    return replace(facts, capture_ns=stamps)


def test_a_good_episode_is_to_be_kept():
    report = check(good())
    assert report.keep
    assert {row.verdict for row in report.rows} == {Verdict.GOOD}


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (lambda facts: good(9), "length"),
        (lambda facts: with_gap(facts, 0.5), "longest gap"),
        (lambda facts: replace(facts, capture_ns=facts.capture_ns * 2), "capture rate"),
        (lambda facts: replace(facts, health=HealthSummary(frames=30, frozen=2)), "frozen frames"),
        (lambda facts: replace(facts, health=HealthSummary(frames=30, black=30)), "black frames"),
        (lambda facts: replace(facts, health=HealthSummary(frames=30, torn=3)), "torn frames"),
        (lambda facts: replace(facts, actions=facts.actions * (np.arange(30) < 11)[:, None]), "zero actions"),
        (lambda facts: replace(facts, measured=np.zeros((30, 3), np.float32)), "the base moved"),
        (lambda facts: replace(facts, held_share=0.3), "held by safety"),
        (lambda facts: replace(facts, stop="the emergency stop is pressed"), "stops"),
    ],
)
def test_each_fault_is_found_by_its_name(spoil, name):
    report = check(spoil(good()))
    assert not report.keep
    assert name in report.bad


def test_the_same_action_all_along_is_noted_but_kept():
    facts = good()
    facts.actions[:] = (0.3, 0.0, 0.0)
    row = next(row for row in check(facts).rows if row.name == "commonest action")
    assert (row.found, row.verdict) == ("forward, 100% of moving", Verdict.NOTE)
    facts.actions[:] = (-0.3, -0.2, -1.0)
    row = next(row for row in check(facts).rows if row.name == "commonest action")
    assert row.found == "back + right + turn right, 100% of moving"
    assert check(facts).keep


velocities = st.floats(-0.5, 0.5, width=32)


@given(st.data(), st.integers(0, 12))
def test_every_episode_can_be_judged(data, frames):
    actions, measured = (data.draw(arrays(np.float32, (frames, 3), elements=velocities)) for _ in range(2))
    gaps = data.draw(arrays(np.int64, frames, elements=st.integers(1, NS_PER_S)))
    report = check(replace(good(frames), actions=actions, measured=measured, capture_ns=np.cumsum(gaps)))
    assert report.rows[0].name == "length"
    assert report.keep == (not report.bad)


def test_an_empty_episode_is_not_to_be_kept():
    report = check(replace(good(0)))
    assert report.bad == ("length",)
