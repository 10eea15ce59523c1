import json
from pathlib import Path

import pytest

from mobile_vla.train import run
from mobile_vla.train.config import TrainConfig


@pytest.fixture
def asked(monkeypatch):
    """What the training was asked for; it is not run."""
    calls = []

    def train(config, folder, init_from):
        print("it says how it goes")
        calls.append((config, folder, init_from))
        return folder / "final"

    monkeypatch.setattr(run, "train", train)
    return calls


def test_settings_come_from_the_file_and_the_command_line(asked, call, tmp_path):
    (tmp_path / "small.yaml").write_text("survey_scenes: 7\nsee: {steps: 5, batch: 2}\n")
    code, out, _ = call("train", tmp_path / "run", "see.steps=9", "--config", tmp_path / "small.yaml")
    assert code == 0
    assert str(tmp_path / "run" / "final") in out
    ((config, folder, init_from),) = asked
    assert (folder, init_from) == (tmp_path / "run", None)
    assert (config.survey_scenes, config.see.steps, config.see.batch) == (7, 9, 2)
    assert config.drive_rounds == TrainConfig().drive_rounds


def test_json_is_all_there_is_on_stdout(asked, call):
    _, out, err = call("train", "there", "--json")
    assert json.loads(out) == {"policy": str(Path("there") / "final")}
    assert "it says how it goes" in err


def test_a_checkpoint_to_begin_with(asked, call):
    call("train", "there", "--init-from", "old.pth")
    assert asked[0][2] == Path("old.pth")


def test_what_cannot_be_begun_with_is_refused_before_anything_is_made(call, tmp_path):
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><html><body>Sign in</body></html>")
    code, _, err = call("train", tmp_path / "run", "--init-from", tmp_path / "page.pth")
    assert code == 2
    assert "page.pth is damaged: a saved web page" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["see.stepz=9"], "did you mean see.steps?"), (["see"], "key=value"), (["--config", "none.yaml"], "none.yaml")],
)
def test_wrong_settings_are_refused(asked, refuse, arguments, said):
    assert said in refuse("train", "there", *arguments)
    assert asked == []
