import shlex
import shutil

import pytest

from mobile_vla.checkpoint import advice as module
from mobile_vla.checkpoint.advice import advice
from mobile_vla.cli.main import parser

from . import folders


def damage(folder):
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    return folder


def commands(text):
    """The commands in the advice, as a shell would take them apart; each is one that the program has."""
    lines = [shlex.split(line.partition(": ")[2]) for line in text.splitlines() if "mobile-vla" in line]
    for line in lines:
        assert line[0] == "mobile-vla"
        parser().parse_args(line[1:])
    return [line[1:] for line in lines]


@pytest.fixture
def run(tmp_path):
    run = tmp_path / "my runs" / "it's"
    folders.save_ours(run / "drive-3", metric=("a loss", 0.5, "lower"))
    folders.save_ours(run / "drive-2", metric=("a loss", 0.7, "lower"))
    damage(folders.save_ours(run / "final"))
    (run / "settle.parts").mkdir()
    return run


def test_it_names_the_next_best_the_rescue_and_the_training(run):
    said = advice(run / "final", [])
    assert str(run / "drive-3") in said
    assert "whole" in said
    salvage, train = commands(said)
    assert salvage == ["checkpoint", "salvage", str(run / "final"), "--out", str(run / "final-salvaged")]
    assert train == ["train", str(run)]
    assert len(said.splitlines()) == 3


def test_damaged_ones_are_not_recommended(run):
    damage(run / "drive-3")
    assert str(run / "drive-2") in advice(run / "final", [])
    damage(run / "drive-2")
    assert "next best" not in advice(run / "final", [])


def test_it_looks_beside_then_in_the_run_then_below_the_roots(run, tmp_path):
    part = damage(folders.save_ours(run / "settle.parts" / "step-00000500"))
    assert str(run / "drive-3") in advice(part, [])
    beside = folders.save_ours(run / "settle.parts" / "step-00000400")
    assert str(beside) in advice(part, [])
    alone = damage(folders.save_ours(tmp_path / "alone" / "here"))
    assert "next best" not in advice(alone, [tmp_path / "none"])
    assert str(run / "drive-3") in advice(alone, [tmp_path / "my runs"])


def test_another_policy_is_no_replacement(run):
    shutil.rmtree(run / "drive-2")
    shutil.rmtree(run / "drive-3")
    folders.save_ours(run / "other", policy="other")
    assert "next best" not in advice(run / "final", [])
    for name in ("manifest.json", "config.json"):
        (run / "final" / name).write_text("{")
    assert str(run / "other") in advice(run / "final", [])


def test_one_of_ours_outside_a_run_is_trained_in_a_new_one(tmp_path):
    folder = damage(folders.save_ours(tmp_path / "shipped"))
    assert commands(advice(folder, []))[-1] == ["train", "runs/again"]


def test_a_foreign_file_is_replaced_by_one_of_the_same_model(tmp_path):
    bad = folders.lightning(tmp_path / "epoch=9.ckpt")
    bad.write_bytes(bad.read_bytes()[:-30])
    folders.weights(tmp_path / "other.safetensors")
    assert "next best" not in advice(bad, [])
    good = folders.lightning(tmp_path / "epoch=8.ckpt")
    said = advice(bad, [])
    assert f"{good} (RoboVLMs policy, " in said
    assert commands(said) == [["checkpoint", "salvage", str(bad), "--out", str(bad.with_name("epoch=9.ckpt-salvaged"))]]


def test_an_unproven_replacement_is_said_to_be_that(tmp_path):
    for name in ("a", "b"):
        folders.weights(tmp_path / name / "model.safetensors")
        folders.write_json(tmp_path / name / "config.json", {"type": "act"})
    bad = tmp_path / "a" / "model.safetensors"
    bad.write_bytes(bad.read_bytes()[:-3])
    said = advice(bad, [tmp_path])
    assert str(tmp_path / "b" / "model.safetensors") in said
    assert "nothing proves it" in said


def test_what_never_arrived_is_to_be_fetched_not_salvaged(tmp_path):
    path = tmp_path / "model.pth"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    assert advice(path, []) == "  fetch the file itself: git lfs pull"


def test_a_rescue_never_goes_where_something_is(run):
    (run / "final-salvaged").mkdir()
    assert commands(advice(run / "final", []))[0][-1] == str(run / "final-salvaged2")


def test_what_is_missing_cannot_be_salvaged(run):
    said = advice(run / "gone", [run])
    assert "salvage" not in said
    assert str(run / "drive-3") in said


def test_it_looks_no_further_than_is_fit_for_an_error_message(run, monkeypatch):
    monkeypatch.setattr(module, "_MOST_FOLDERS", 1)
    assert "next best" not in advice(run / "final", [])


def test_it_never_raises(run, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "no")

    monkeypatch.setattr(module, "places", refuse)
    assert "could not be looked for" in advice(run / "final", [])
