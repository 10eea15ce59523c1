import json

import numpy as np
import pytest

from mobile_vla.core import ActionContract
from mobile_vla.data import Dataset, EpisodeWriter
from mobile_vla.data import schema as s

SHAPE = (16, 32, 3)


def write(root, first=0, count=2, contract=None, colour=None):
    """Standing still before changing walls; ``colour`` is written over all of them."""
    with EpisodeWriter(root, contract or ActionContract(), SHAPE, {}) as writer:
        for number in range(first, first + count):
            words = "멈춰" if number % 2 else "go to the red cup"
            with writer.episode(words, {"scene_seed": number, "scenario": "hidden"}) as episode:
                for place in range(5):
                    pixels = np.random.default_rng([number, place]).integers(0, 256, SHAPE).astype(np.uint8)
                    times = {s.CAPTURE_NS: (place + 1) * 200_000_000, s.SEQUENCE: place}
                    velocity = np.array([0.3, 0.01, 0], np.float32)
                    episode.add({s.IMAGE_FRONT: pixels, s.STATE: velocity, s.ACTION: velocity, **times})
    return root


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    return write(tmp_path / "set")


def test_a_sound_set_is_said_to_be_sound(call, root):
    assert call("data", "validate", root) == (0, f"{root}: sound\n", "")


def test_a_damaged_set_is_named_with_its_episode(call, root):
    file = sorted(root.glob("data/*/*"))[1]
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    code, out, _ = call("data", "validate", root)
    assert code == 1
    assert "episode 1" in out
    code, out, _ = call("data", "validate", root, "--json")
    answer = json.loads(out)
    assert (code, answer["sound"], answer["problems"][0]["episode"]) == (1, False, 1)


def test_a_cut_set_is_refused(refuse, root):
    file = sorted(root.glob("data/*/*"))[0]
    file.write_bytes(file.read_bytes()[:-20])
    assert str(file) in refuse("data", "stats", root)


def test_stats_tell_what_is_in_it(call, root):
    code, out, _ = call("data", "stats", root)
    assert code == 0
    assert "episodes     2" in out
    assert "status       driving 0.000" in out
    assert "still        still 0.000, moving 1.000" in out
    rows = [line.split() for line in out.splitlines()]
    assert ["linear_x", *["0.300", "0.000"], *["0.300"] * 7] in rows
    code, out, _ = call("data", "stats", root, "--json")
    answer = json.loads(out)
    assert (answer["episodes"], answer["frames"], answer["seconds"], answer["instructions"]) == (2, 10, 2.0, 2)
    assert answer["scenario"] == {"hidden": 2}
    assert answer["axes"]["action"]["linear_y"]["mean"] == pytest.approx(0.01)


def test_a_set_that_is_not_there(call, refuse, tmp_path):
    assert "there is no data set at" in refuse("data", "stats", tmp_path / "nowhere")
    assert "holds no meta/mobile_vla.json" in refuse("data", "inspect", tmp_path / "nowhere")
    assert call("data", "validate", tmp_path / "nowhere")[0] == 1


def test_inspect_shows_what_is_in_a_sound_set(call, root):
    code, out, err = call("data", "inspect", root)
    assert (code, err) == (0, "")
    assert f"{root}: 2 episodes, 10 frames" in out
    assert "go 1 (50%), stop 1 (50%)" in out
    assert out.endswith("0 errors, 0 warnings, 0 notes\n")


def test_inspect_tells_findings_by_grade_and_fails_for_an_error(call, root):
    with EpisodeWriter(root, ActionContract(), SHAPE, {}) as writer:
        for number in range(7):
            with writer.episode("go to the moon" if number else "멈춰", {"scene_seed": 50 + number}) as episode:
                for place in range(3 if number else 5):
                    pixels = np.random.default_rng([number, 9, place]).integers(0, 256, SHAPE).astype(np.uint8)
                    times = {s.CAPTURE_NS: (place + 1) * 200_000_000, s.SEQUENCE: place}
                    action = [0.0, 0.0, 9.0 if not number and place == 2 else 0.0]
                    episode.add({s.IMAGE_FRONT: pixels, s.STATE: np.zeros(3), s.ACTION: action, **times})
    code, out, _ = call("data", "inspect", root)
    assert code == 1
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert any(line.startswith("error numbers episode 2, frame 2 actions exceed the limits") for line in lines)
    assert sum("warning length" in line for line in lines) == 5
    assert "and 1 more of this kind: --show 6, or --json" in lines
    assert any(line.startswith("warning words episode 3") for line in lines)
    assert lines[-1] == "1 error, 7 warnings, 0 notes: do not train on it as it is"
    assert "1 more of this kind" not in call("data", "inspect", root, "--show", 6)[1]
    code, out, _ = call("data", "inspect", root, "--json")
    answer = json.loads(out)
    assert (code, answer["sound"], len(answer["findings"])) == (1, False, 8)
    first = answer["findings"][0]
    assert (first["grade"], first["check"], first["episode"], first["frame"], first["value"]) == (
        "error",
        "numbers",
        2,
        2,
        9.0,
    )


def test_merge_copies_and_can_be_said_again(call, root, tmp_path):
    other, out = write(tmp_path / "other", first=2, count=3), tmp_path / "all"
    assert call("data", "merge", out, root, other) == (0, f"{out}: 5 episodes copied; it holds 5 now\n", "")
    assert len(Dataset.open(root)) == 2
    code, said, _ = call("data", "merge", out, root, other)
    assert (code, said) == (0, f"{out}: 0 episodes copied, 5 were there already; it holds 5 now\n")
    answer = json.loads(call("data", "merge", out, root, "--json")[1])
    assert (answer["copied"], answer["present"], answer["episodes"]) == (0, 2, 5)
    assert call("data", "validate", out)[0] == 0


def test_merge_refuses_another_contract(refuse, root, tmp_path):
    other = write(tmp_path / "other", contract=ActionContract(limits=(1.0, 1.0, 3.0)))
    said = refuse("data", "merge", tmp_path / "all", root, other)
    assert f"{root} has [0.6, 0.6, 1.5], {other} has [1.0, 1.0, 3.0]" in said


def test_split_counts_by_scenario_and_replaces_only_when_told(call, refuse, tmp_path):
    root = write(tmp_path / "set", count=12)
    code, out, _ = call("data", "split", root, "--fractions", "0.5,0.25,0.25", "--salt", "a")
    assert code == 0
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()}
    assert rows["hidden"] == rows["all"]
    assert sum(map(int, rows["all"])) == 12
    assert "--again" in refuse("data", "split", root)
    answer = json.loads(call("data", "split", root, "--again", "--fractions", "1,0,0", "--json")[1])
    assert (answer["train"], answer["validation"], answer["scenarios"]) == (12, 0, {"hidden": [12, 0, 0]})
    assert "three shares of 1" in refuse("data", "split", root, "--again", "--fractions", "1,1,1")
    few = write(tmp_path / "few", count=1)
    assert "is empty: there are too few scenes" in call("data", "split", few)[1]


def test_fractions_of_another_form_are_refused(call, root, capsys):
    with pytest.raises(SystemExit):
        call("data", "split", root, "--fractions", "0.9")
    assert "is not of the form 0.8,0.1,0.1" in capsys.readouterr().err
