"""The table of ``benchmarks/policies.py``, and the peer's wrapper in ``benchmarks/peer_act.py`` without LeRobot."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import peer_act
import policies
from evaluate.recordings import make_chunks, recorded
from mobile_vla.core import ZERO_TWIST, ActionContract, ConfigError, Frame, Instruction, Observation, Status
from mobile_vla.evaluate.statistics import Share
from mobile_vla.policy.compact import CompactConfig, CompactNetwork
from mobile_vla.policy.weights import save_network

CONTRACT = ActionContract()


def network(seed: int) -> CompactNetwork:
    torch.manual_seed(seed)
    return CompactNetwork(CompactConfig(memory=32, words=16), CONTRACT)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Two networks that have learnt nothing; the second differs from what its run began with in the text encoder."""
    folder = tmp_path_factory.mktemp("table")
    data = recorded(folder / "data", make_chunks(episodes=16)).root
    first, second = network(1), network(1)
    save_network(folder / "first" / "final", first, {})
    save_network(folder / "second" / "start", second, {})
    with torch.no_grad():
        for parameter in second.text.parameters():
            parameter += 0.001
    save_network(folder / "second" / "final", second, {})
    asked = policies.Asked(("manoeuvres",), 1, data, None, times=3, processes=1)
    rows = [
        policies.measure(name, folder / name / "final", asked, folder / "out" / name) for name in ("first", "second")
    ]
    return folder, asked, rows


def test_a_row_holds_what_was_measured(measured):
    _, _, (first, second) = measured
    total = sum(each.numel() for each in network(1).parameters())
    assert first["parameters"] == first["trained"] == second["parameters"] == total
    assert second["trained"] == sum(each.numel() for each in network(1).text.parameters())
    assert second["kind"] == "compact"
    assert list(first["groups"]) == ["manoeuvres"]
    assert first["groups"]["manoeuvres"]["total"] == len(first["outcomes"]) == 1
    assert 0 < first["latency"]["p50_ms"] <= first["latency"]["p99_ms"]
    assert first["outcomes"].keys() == second["outcomes"].keys()


def test_what_is_there_is_not_measured_again(measured, monkeypatch):
    folder, asked, (first, _) = measured

    def refuse(*_, **__):
        raise AssertionError("measured again")

    monkeypatch.setattr(policies, "evaluate", refuse)
    monkeypatch.setattr(policies, "step_times", refuse)
    again = policies.measure("renamed", folder / "first" / "final", asked, folder / "out" / "first")
    assert again == first | {"name": "renamed"}
    other = policies.Asked(asked.suites, 2, asked.dataset, None, asked.times, 1)
    with pytest.raises(AssertionError, match="again"):
        policies.measure("first", folder / "first" / "final", other, folder / "out" / "first")


def test_every_policy_stands_beside_the_four_baselines(measured):
    _, _, rows = measured
    lines = policies.markdown(rows).splitlines()
    for name in ("first", "second"):
        assert sum(line.startswith(f"| {name} |") for line in lines) == 3
    for name in policies.BASELINES:
        assert sum(line.startswith(f"| *{name.replace('_', ' ')}* |") for line in lines) == 1
    widths = [line.count("|") for line in lines if line.startswith("|")]
    tables = [widths[:4], widths[4:12], widths[12:]]
    assert all(len(set(table)) == 1 for table in tables)


def test_errors_on_other_recordings_are_not_put_side_by_side(measured):
    _, _, (first, second) = measured
    other = second | {"offline": second["offline"] | {"data_hash": "another"}}
    with pytest.raises(ConfigError, match="same recorded data"):
        policies.markdown([first, other])


def test_a_figure_over_all_suites_needs_all_of_them(measured):
    _, _, (first, second) = measured
    share = Share(1, 4).to_dict()
    wide = first | {"groups": {"routes": share, "manoeuvres": share}, "together": Share(2, 8).to_dict()}
    table = policies.markdown([wide, second]).splitlines()
    assert "25 % [5, 70] (1/4) | 25 % [5, 70] (1/4) | 25 % [7, 59] (2/8)" in table[4]
    cells = [cell.strip() for cell in table[5].split("|")]
    assert (cells[3], cells[5]) == ("–", "–")


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.sampled_from(["routes", "objects"])), max_size=30))
def test_policies_are_compared_on_scenes_of_the_suites_alone(drives):
    def row(which):
        return {"outcomes": {f"{drive[2]}/x/{place}/go": drive[which] for place, drive in enumerate(drives)}}

    paired = policies.compared(row(1) | {"name": "other"}, row(0))
    counted = [drive[:2] for drive in drives if drive[2] == "routes"]
    assert paired.only_first == counted.count((True, False))
    assert paired.only_second == counted.count((False, True))
    assert paired.both + paired.neither == len(counted) - paired.only_first - paired.only_second


@pytest.mark.parametrize("text", ["folder", "=folder", "name=", "../up=folder", "a/b=folder"])
def test_a_name_that_is_no_name_is_refused(text):
    with pytest.raises(policies.argparse.ArgumentTypeError, match="NAME=FOLDER"):
        policies._named(text)


class Asking:
    """In the place of LeRobot's network: asks for one speed, in shares of the limits, for the whole chunk."""

    def __init__(self, ends: str) -> None:
        self.sizes, self.contract, self.act, self.share = peer_act.ActSizes(ends=ends), CONTRACT, self, 0.0
        self.before = self.after = lambda batch: batch

    def eval(self):
        return self

    def batch(self, pixels, velocities):
        assert pixels.shape == (1, 3, 96, 192)
        assert float(pixels.max()) <= 1.0
        return SimpleNamespace(pixels=pixels, velocities=velocities)

    def predict_action_chunk(self, batch):
        chunk = torch.zeros(1, CONTRACT.horizon, 3)
        chunk[..., 0] = self.share * CONTRACT.limits[0]
        return chunk


SLOW = peer_act.STILL_SHARE - 1e-3


@given(st.lists(st.one_of(st.floats(-SLOW, SLOW), st.sampled_from([-3.0, SLOW + 2e-3, 0.7])), max_size=40))
@example([0.0] * 4 + [0.7] + [0.05] * 7)
@pytest.mark.parametrize("ends", [peer_act.NEVER, peer_act.STANDING])
def test_the_peer_has_arrived_after_a_second_of_asking_to_stand(ends, shares):
    asking = Asking(ends)
    policy = peer_act.ActPolicy(asking)
    state, still = policy.reset(Instruction("go to the red cup")), 0
    for place, share in enumerate(shares):
        asking.share = share
        still = still + 1 if abs(share) < peer_act.STILL_SHARE else 0
        frame = Frame(np.full((96, 192, 3), 255, np.uint8), place, "simulation", "front", place)
        step = policy.step(Observation(frame, ZERO_TWIST), state)
        has_ended = ends == peer_act.STANDING and still >= peer_act.STILL_FRAMES
        assert (step.grounding.status is Status.ARRIVED) == has_ended
        wanted = 0.0 if has_ended else np.clip(share, -1, 1) * CONTRACT.limits[0]
        np.testing.assert_allclose(step.chunk.velocities[:, 0], wanted, atol=1e-6)
        state = step.state


def test_the_peer_is_a_kind_of_policy_by_an_entry_point(tmp_path):
    code = (
        "import json; from importlib.metadata import entry_points;"
        "print(json.dumps([e.value for e in entry_points(group='mobile_vla.policies') if e.name == 'lerobot_act']))"
    )
    surroundings = peer_act.surroundings(tmp_path / "plugin")
    answer = subprocess.run(
        [sys.executable, "-c", code], env=surroundings, check=True, capture_output=True, text=True, timeout=120
    )
    assert json.loads(answer.stdout) == ["peer_act:KIND"]
    paths = [Path(each) for each in surroundings["PYTHONPATH"].split(":")]
    assert any((path / "peer_act.py").is_file() for path in paths)
    assert any((path / "mobile_vla" / "policy").is_dir() for path in paths)
