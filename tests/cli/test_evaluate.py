import json

import numpy as np
import pytest

from mobile_vla.core import ActionContract
from mobile_vla.data import EpisodeWriter, schema
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


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Twelve episodes recorded by hand, not divided."""
    folder, contract = tmp_path_factory.mktemp("lab") / "data", ActionContract()
    rng = np.random.default_rng(2)
    with EpisodeWriter(folder, contract, (96, 192, 3), {}) as writer:
        for _ in range(12):
            with writer.episode("go to the door", {}) as episode:
                for place in range(4):
                    chunk = rng.uniform(-0.5, 0.5, (contract.horizon, 3)).astype(np.float32)
                    episode.add(
                        {
                            schema.IMAGE_FRONT: np.full((96, 192, 3), 50 * place, np.uint8),
                            schema.STATE: np.zeros(3, np.float32),
                            schema.ACTION: chunk[0],
                            schema.ACTION_CHUNK: chunk.ravel(),
                            schema.CAPTURE_NS: place * 200_000_000,
                            schema.SEQUENCE: place,
                        }
                    )
    return folder


@pytest.mark.parametrize("name", ["eval", "evaluate"])
def test_what_is_asked_for_is_evaluated(name, asked, call, policy, tmp_path):
    code, out, _ = call(
        *(name, "--policy", policy, "--suite", "hidden", "--suite", "absent", "--episodes", 3),
        *("--processes", 1, "--out", tmp_path),
    )
    assert (code, out) == (0, f"the report is in {tmp_path}\n")
    ((arguments, settings),) = asked
    assert arguments == (policy, ["hidden", "absent"], 3, 1, tmp_path)
    assert settings["dataset"] is None


def test_by_default_it_is_all_of_the_shipped_policy(asked, call):
    assert call("eval", "--json")[0] == 0
    (policy, suites, episodes, *_), _ = asked[0]
    assert (policy, episodes) == (SHIPPED, 24)
    assert "all" in suites


def test_json_is_the_report(asked, call):
    assert json.loads(call("eval", "--json")[1]) == Report().to_dict()


def test_both_names_stand_in_the_help(capsys):
    from mobile_vla.cli.main import main

    with pytest.raises(SystemExit):
        main(["--help"])
    assert "eval (evaluate)" in capsys.readouterr().out


def test_recorded_data_are_compared_beside_the_drives(asked, call, lab):
    assert call("eval", "--dataset", lab)[0] == 0
    (_, suites, *_), settings = asked[0]
    assert "all" in suites
    assert (settings["dataset"], settings["part"], settings["limit"]) == (lab, "test", None)


def test_recorded_data_are_compared_alone(asked, call, lab):
    code, out, _ = call("eval", "--offline", "--dataset", lab, "--part", "validation", "--limit", 5)
    assert (code, out) == (0, "the report is in out/offline\n")
    (_, suites, *_), settings = asked[0]
    assert suites == ()
    assert (settings["part"], settings["limit"]) == ("validation", 5)


def test_the_figures_come_with_all_baselines(call, policy, lab, tmp_path):
    wanted = ("eval", "--policy", policy, "--offline", "--dataset", lab, "--part", "all", "--out", tmp_path)
    code, out, _ = call(*wanted, "--json")
    assert code == 0
    offline = json.loads(out)["offline"]
    assert set(offline["baselines"]) == {"constant", "majority", "hold_last", "nearest_instruction"}
    assert (offline["episodes"], offline["frames"], offline["left_out"]) == (12, 48, 0)
    code, out, _ = call(*wanted)
    assert code == 0
    for name in ("policy", "constant", "majority", "hold last", "nearest"):
        assert name in out


def test_an_unknown_suite_is_refused(refuse, policy, tmp_path):
    said = refuse("eval", "--policy", policy, "--suite", "moon", "--out", tmp_path)
    assert "unknown suite 'moon'" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--offline",), "--offline is about recorded data: name them with --dataset DIR"),
        (("--part", "all"), "--part is about recorded data"),
        (("--limit", 3), "--limit is about recorded data"),
        (("--offline", "--dataset", "x", "--suite", "all"), "--suite is about driving"),
        (("--offline", "--dataset", "x", "--driver", "policy"), "--driver is about driving"),
        (("--offline", "--dataset", "x", "--episodes", 3), "--episodes is about driving"),
        (("--offline", "--dataset", "x", "--part", "exam"), "unknown part exam: choose among test, validation"),
        (("--offline", "--dataset", "nowhere"), "there is no data set at nowhere"),
        (("--driver", "nobody"), "unknown driver nobody"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, said, refuse, policy, tmp_path):
    assert said in refuse("eval", "--policy", policy, "--out", tmp_path, *options)


def test_data_that_are_not_divided_are_refused_with_what_to_do(refuse, policy, lab, tmp_path):
    said = refuse("eval", "--policy", policy, "--offline", "--dataset", lab, "--out", tmp_path)
    assert f"mobile-vla data split {lab}" in said
    assert "--part all" in said


def test_data_of_another_robot_are_refused(refuse, policy_of_another_robot, lab, tmp_path):
    out = tmp_path / "out"
    wanted = ("eval", "--offline", "--dataset", lab, "--part", "all", "--out", out)
    said = refuse(*wanted, "--policy", policy_of_another_robot)
    assert "limits" in said
    assert str(lab) in said
    assert not out.exists()
