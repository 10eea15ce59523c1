import json
from pathlib import Path

import pytest

from mobile_vla.engine.folder import is_engine, read_engine
from mobile_vla.engine.load import load_policy

pytestmark = [pytest.mark.timeout(1800), pytest.mark.needs("mujoco")]


@pytest.fixture(scope="module")
def quick(monkeypatch_module):
    """Few decisions, as these tests are of the command."""
    from mobile_vla.cli import export

    monkeypatch_module.setattr(export, "COMPARED", 2)
    monkeypatch_module.setattr(export, "CALIBRATION", 2)


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def test_an_engine_is_made_compared_timed_driven_and_told_of(quick, call, policy, tmp_path):
    out = tmp_path / "fast"
    code, said, err = call(
        "export", policy, "--out", out, "--engine", "torch", "--precision", "bf16", "--episodes", 1, "--json"
    )
    assert code == 0
    told = json.loads(said)
    assert (told["out"], told["engine"], told["precision"]) == (str(out), "torch", "bf16")
    (row,) = told["candidates"]
    assert row["p50_ms"] > 0
    assert row["agreement"]["decisions"] == 2
    assert row["driven"]["figures"]["exact"]["total"] == 1
    assert "making torch bf16" in err
    assert "driving with PyTorch in float32\n  1 of 1 scenes" in err
    assert is_engine(out)
    assert read_engine(out).notes["export"]["candidates"] == told["candidates"]
    assert load_policy(out).contract.horizon == 8


def test_recorded_decisions_will_do_and_nothing_need_be_driven(quick, call, policy, tmp_path):
    from evaluate.recordings import make_chunks, written

    written(tmp_path / "data", make_chunks(episodes=4), lambda number: "go to the red cup")
    code, said, err = call(
        *("export", policy, "--out", tmp_path / "fast", "--data", tmp_path / "data", "--episodes", 0),
        *("--engine", "torch", "--precision", "fp32", "--batch", 2),
    )
    assert code == 0
    assert "torch fp32" in said
    assert "taken" in said
    assert f"drive with --policy {tmp_path / 'fast'}" in " ".join(said.split())
    assert "reading decisions from" in err
    assert "driving" not in err
    assert read_engine(tmp_path / "fast").sessions == 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--engine", "torch"], "--engine and --precision go together"),
        (["--precision", "bf16"], "--engine and --precision go together"),
        (["--engine", "torch", "--precision", "fp32", "--for", "cpu"], "leave one of them out"),
        (["--engine", "tensorrt", "--precision", "fp16", "--for", "jetson"], "leave --engine out"),
        (["--shorten", "latents=0.5"], "name --engine and --precision"),
    ],
)
def test_options_that_do_not_go_together_are_refused(refuse, tmp_path, given, said):
    assert said in refuse("export", "--out", tmp_path / "fast", *given)


def test_what_is_not_to_be_had_is_refused(quick, refuse, policy, tmp_path):
    made = ["export", policy, "--out", tmp_path / "fast", "--episodes", 0, "--precision", "int3", "--engine"]
    assert "there is no engine called 'tork'" in refuse(*made, "tork")
    assert "has no precision 'int3'" in refuse(*made, "torch")
    assert not (tmp_path / "fast").exists()


def test_a_folder_of_something_else_is_left_alone(quick, refuse, policy, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("1")
    made = ["export", policy, "--out", tmp_path / "thesis", "--engine", "torch", "--precision", "fp32"]
    assert "choose another folder with --out" in refuse(*made)
    assert [each.name for each in Path(tmp_path / "thesis").iterdir()] == ["chapter.txt"]


def test_without_the_simulator_data_are_asked_for(monkeypatch, refuse, policy, tmp_path):
    from mobile_vla.cli import export

    monkeypatch.setattr(export, "_has_simulator", lambda: False)
    assert "give recorded ones with --data DIR" in refuse("export", policy, "--out", tmp_path / "fast")
