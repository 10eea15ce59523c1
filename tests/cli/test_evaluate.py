import json

import pytest

from mobile_vla.evaluate import run
from mobile_vla.policy.weights import SHIPPED


class Report:
    def to_dict(self):
        return {"policy": {"success": 0.9}}


@pytest.fixture
def asked(monkeypatch):
    """What the evaluation was asked for; it is not run."""
    calls = []

    def evaluate(*arguments, **settings):
        calls.append((arguments, settings))
        return Report()

    monkeypatch.setattr(run, "evaluate", evaluate)
    return calls


def test_what_is_asked_for_is_evaluated(asked, call, policy, tmp_path):
    code, out, _ = call(
        *("evaluate", "--policy", policy, "--suite", "hidden", "--suite", "absent", "--episodes", 3),
        *("--processes", 1, "--out", tmp_path),
    )
    assert (code, out) == (0, f"the report is in {tmp_path}\n")
    ((arguments, settings),) = asked
    assert arguments == (policy, ["hidden", "absent"], 3, 1, tmp_path)
    assert settings["dataset"] is None


def test_by_default_it_is_all_of_the_shipped_policy(asked, call):
    assert call("evaluate", "--json")[0] == 0
    (policy, suites, *_), _ = asked[0]
    assert policy == SHIPPED
    assert "all" in suites


def test_json_is_the_report(asked, call):
    assert json.loads(call("evaluate", "--json")[1]) == Report().to_dict()


def test_an_unknown_suite_is_refused(refuse, policy, tmp_path):
    said = refuse("evaluate", "--policy", policy, "--suite", "moon", "--out", tmp_path)
    assert "unknown suite 'moon'" in said
