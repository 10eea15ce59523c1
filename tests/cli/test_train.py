import json
from pathlib import Path

import pytest

from mobile_vla.train import run
from mobile_vla.train.config import TrainConfig


@pytest.fixture
def asked(monkeypatch):
    """What the training was asked for; it is not run."""
    calls = []

    def train(config, folder):
        calls.append((config, folder))
        return folder / "final"

    monkeypatch.setattr(run, "train", train)
    return calls


def test_settings_come_from_the_file_and_the_command_line(asked, call, tmp_path):
    (tmp_path / "small.yaml").write_text("survey_scenes: 7\nsee: {steps: 5, batch: 2}\n")
    code, out, _ = call("train", tmp_path / "run", "see.steps=9", "--config", tmp_path / "small.yaml")
    assert code == 0
    assert str(tmp_path / "run" / "final") in out
    ((config, folder),) = asked
    assert folder == tmp_path / "run"
    assert (config.survey_scenes, config.see.steps, config.see.batch) == (7, 9, 2)
    assert config.drive_rounds == TrainConfig().drive_rounds


def test_json(asked, call):
    assert json.loads(call("train", "there", "--json")[1]) == {"policy": str(Path("there") / "final")}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["see.stepz=9"], "did you mean see.steps?"), (["see"], "key=value"), (["--config", "none.yaml"], "none.yaml")],
)
def test_wrong_settings_are_refused(asked, refuse, arguments, said):
    assert said in refuse("train", "there", *arguments)
    assert asked == []
