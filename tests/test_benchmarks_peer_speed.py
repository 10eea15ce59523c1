"""How ``benchmarks/peer_speed.py`` times its sides, in real processes, without LeRobot."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import peer_speed
import peer_speed_sides as sides
from mobile_vla.core import ActionContract
from mobile_vla.policy.compact import CompactConfig, CompactNetwork
from mobile_vla.policy.step import step_of
from mobile_vla.policy.weights import load_network, save_network

CAMERA = "224x224"
COMMAND = f"camera frame {CAMERA} to command"
CORES = sorted(os.sched_getaffinity(0))[:1]
rounds = st.lists(st.lists(st.floats(0.1, 100), min_size=1, max_size=5), min_size=1, max_size=5)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policies") / "little"
    save_network(folder, CompactNetwork(CompactConfig(memory=32, words=16), ActionContract()), {})
    return folder


def test_only_the_calls_are_timed_and_each_has_its_preparation() -> None:
    done: list[str] = []
    spent = sides.spent_ms(sides.Work(lambda: done.append("call"), lambda: done.append("before")), seconds=0.0)
    assert len(spent) == sides.LEAST
    assert done == ["before", "call"] * (sides.WARM_UP + sides.LEAST)
    assert min(spent) >= 0


def test_a_turn_lasts_as_long_as_asked() -> None:
    spent = sides.spent_ms(sides.Work(lambda: sum(range(1000))), seconds=0.2)
    assert len(spent) > sides.LEAST


@given(rounds, st.floats(0.5, 50))
def test_a_ratio_is_made_within_each_round(ours: list[list[float]], times: float) -> None:
    theirs = [[times * value for value in turn] for turn in ours]
    assert peer_speed.ratios(theirs, ours) == pytest.approx([times] * len(ours))


def test_a_policy_of_ours_drives_from_frames_of_any_size(policy: Path) -> None:
    side = sides.policy(policy, 1, [CAMERA, "640x480"])
    assert list(side.works) == [COMMAND, "camera frame 640x480 to command"]
    twists = [work.call() for work in side.works.values() for _ in range(3)]
    assert len(twists) == 6
    assert side.name == "ours, little"
    assert "eager" in side.about


def test_a_side_answers_from_its_own_process_until_it_is_closed(policy: Path, tmp_path: Path) -> None:
    arguments = ["--policy", str(policy), "--camera", CAMERA]
    party = peer_speed.begin(Path(sys.executable), sides.POLICY, 1, CORES, tmp_path, arguments)
    try:
        assert party.works == [COMMAND]
        for _ in range(2):
            party.measure(COMMAND, 0.05)
        assert [len(turn) >= sides.LEAST and min(turn) > 0 for turn in party.rounds[COMMAND]] == [True, True]
    finally:
        party.close()
    assert party.process.returncode == 0


@pytest.mark.needs("onnxruntime")
@pytest.mark.needs("openvino")
def test_the_runtimes_get_the_graph_of_the_policy_itself(policy: Path) -> None:
    step = step_of(load_network(policy))
    with torch.inference_mode():
        right = [each.numpy() for each in step(*step.example())]
    for side, tolerances in (
        (sides.bare_onnxruntime(policy, 1), {"fp32": 1e-4}),
        (sides.bare_openvino(policy, 1), {"fp32": 1e-4, "bf16": 0.1}),
    ):
        assert "fp32" in side.works
        assert side.works.keys() <= tolerances.keys()
        for name, work in side.works.items():
            out = work.call()
            for place, wanted in enumerate(right):
                np.testing.assert_allclose(out[place], wanted, atol=tolerances[name], err_msg=name)


def parties(times: float) -> tuple[peer_speed.Party, peer_speed.Party, peer_speed.Party]:
    ours = [[1.0, 2.0, 3.0], [2.0, 4.0, 9.0]]
    theirs = [[times * value for value in turn] for turn in ours]
    return (
        peer_speed.Party(None, "LeRobot's ACT", "x", [sides.SELECT], {sides.SELECT: theirs}),
        peer_speed.Party(None, "ours, little", "y", [COMMAND], {COMMAND: ours}),
        peer_speed.Party(None, "OpenVINO, bare", "z", ["fp32", "bf16"], {"fp32": ours, "bf16": ours}),
    )


def test_every_figure_is_printed_and_written_with_its_spread(capsys: pytest.CaptureFixture[str]) -> None:
    peer, ours, bare = parties(20.0)
    rows = json.loads(json.dumps(peer_speed.report(1, [0], peer, [ours], [bare])))
    timed = {row["work"]: row["p50_ms"] for row in rows if "p50_ms" in row}
    assert timed == {sides.SELECT: 50.0, COMMAND: 2.5, "fp32": 2.5, "bf16": 2.5}
    compared = {row["against"]: (row["ratio_least"], row["ratio"], row["ratio_most"]) for row in rows if "ratio" in row}
    assert compared[f"LeRobot's ACT, {sides.SELECT}"] == pytest.approx((20.0, 20.0, 20.0))
    assert compared["OpenVINO, bare, bf16"] == pytest.approx((1.0, 1.0, 1.0))
    said = capsys.readouterr().out
    assert "20.00  (20.00 to 20.00; the mark is 15)" in said
    assert "1 thread, pinned to core 0" in said


@pytest.mark.parametrize(("python", "sentence"), [(sys.executable, "has no lerobot"), ("nowhere", "cannot be run")])
def test_without_lerobot_one_sentence_says_what_to_install(
    python: str, sentence: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["peer_speed.py", "--lerobot", python])
    with pytest.raises(SystemExit) as ended:
        peer_speed.main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert "lerobot==0.4.4" in said or "lerobot 0.4.4" in said
    assert said.count("\n") == 1


def test_a_side_that_dies_is_named(policy: Path, tmp_path: Path) -> None:
    arguments = ["--policy", str(policy), "--camera", CAMERA]
    party = peer_speed.begin(Path(sys.executable), sides.POLICY, 1, CORES, tmp_path, arguments)
    try:
        party.process.kill()
        party.process.wait()
        with pytest.raises(peer_speed.MissingError, match="ours, little"):
            party.measure(COMMAND, 0.05)
    finally:
        party.close()
