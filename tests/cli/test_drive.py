import json
import shutil

import av
import pytest
from PIL import Image

from mobile_vla.checkpoint.manifest import read_manifest
from mobile_vla.sim.gl import egl_problem

CUP = "go to the red cup, pass the box on the left"


def test_a_drive_leaves_a_film_and_a_map_and_tells_how_it_ended(call, policy, tmp_path):
    code, out, err = call(
        "drive",
        "--say",
        CUP,
        "--sim",
        "--policy",
        policy,
        "--pace",
        0,
        "--max-seconds",
        1.5,
        "--out",
        tmp_path / "made",
    )
    assert (code, err) == (1, "")
    lines = out.splitlines()
    assert lines[0] == "understood: go to the red cup, passing on the left"
    assert "drawn by " in lines[1]
    assert any("vx" in line and "frame" in line for line in lines)
    assert lines[-3:-1] == [str(tmp_path / "made" / name) for name in ("drive.mp4", "drive.png")]
    assert lines[-1].startswith("did not go to the red cup, passing on the left: did not end in time (")
    with av.open(str(tmp_path / "made" / "drive.mp4")) as film:
        frames = list(film.decode(video=0))
    assert float(frames[-1].pts * frames[-1].time_base) >= 1.5
    assert frames[0].width > 2 * 384
    with Image.open(tmp_path / "made" / "drive.png") as chart:
        assert min(chart.size) > 500


def test_json_is_all_that_is_said(call, policy, tmp_path):
    code, out, _ = call(
        *("drive", "--say", "빨간 컵으로 가", "--policy", policy, "--json", "--pace", 0, "--base", "planar"),
        *("--max-seconds", 0.5, "--out", tmp_path),
    )
    answer = json.loads(out)
    assert code == 1
    assert answer["success"] is False
    assert answer["understood"] == "go to the red cup"
    assert (answer["ending"], answer["scenario"]) == ("time_limit", "distractors")
    assert answer["renderer"].startswith("EGL") == (egl_problem() is None)


def test_a_scene_without_what_is_named_is_driven_all_the_same(call, policy, tmp_path):
    code, out, _ = call(
        *("drive", "--say", CUP, "--policy", policy, "--scene", "absent", "--seed", 3, "--pace", 0, "--json"),
        *("--max-seconds", 0.3, "--out", tmp_path),
    )
    assert code == 1
    answer = json.loads(out)
    assert (answer["scenario"], answer["seed"]) == ("absent", 3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the instruction is empty"),
        ("   ", "the instruction is empty"),
        ("go " * 100, "has 300 characters, more than 200"),
        ("go to the red unicorn", "'unicorn', which I do not know; I know cup"),
        ("go to the cup and the ball", "names 2 targets"),
    ],
)
def test_words_that_cannot_be_followed_are_refused(refuse, text, said, policy, tmp_path):
    assert said in refuse("drive", "--say", text, "--policy", policy, "--out", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_policy_of_another_robot_is_refused_naming_what_differs(refuse, policy_of_another_robot):
    said = refuse("drive", "--say", CUP, "--policy", policy_of_another_robot)
    assert "limits: this robot has [0.6, 0.6, 1.5]" in said
    assert str(policy_of_another_robot) in said


def test_a_damaged_policy_is_refused_with_the_way_out(call, policy_of_another_robot, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    weights = policy_of_another_robot / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    code, said, why = call("drive", "--say", CUP, "--policy", policy_of_another_robot)
    assert (code, said) == (2, "")
    assert "is damaged: weights.safetensors has" in why
    assert "mobile-vla checkpoint salvage" in why
    assert "mobile-vla train" in why


def test_a_salvaged_policy_drives_only_when_what_it_lacks_is_named(call, refuse, policy, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(policy, copy)
    manifest = read_manifest(copy)
    lost = min(manifest.files[manifest.weights].tensors.items(), key=lambda item: item[1].size)
    with (copy / "weights.safetensors").open("r+b") as file:
        file.seek(lost[1].offset)
        file.write(b"????")
    call("checkpoint", "salvage", copy, "--out", tmp_path / "rescued")
    drive = ("drive", "--say", CUP, "--policy", tmp_path / "rescued", "--pace", 0, "--max-seconds", 1)
    why = refuse(*drive)
    assert lost[0] in why
    assert "--allow-missing" in why
    assert call(*drive, "--out", tmp_path / "out", "--allow-missing", lost[0])[0] in (0, 1)


def test_a_policy_that_is_not_there_is_refused(refuse, tmp_path):
    assert "no checkpoint at" in refuse("drive", "--say", CUP, "--policy", tmp_path / "nowhere")


def test_an_unknown_scenario_is_refused(refuse, policy):
    assert "did you mean hidden" in refuse("drive", "--say", CUP, "--policy", policy, "--scene", "hiden")
