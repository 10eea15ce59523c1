import json
from pathlib import Path

import pytest

from mobile_vla.train import run
from mobile_vla.train.config import TrainConfig


@pytest.fixture
def asked(monkeypatch):
    """What the training was asked for; it is not run."""
    calls = []

    def train(config, folder, init_from, ray):
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


@pytest.fixture
def asked_of_a_large_one(monkeypatch):
    calls = []

    def train_vla(kind, config, folder, data, init_from, judge, spread, ray):
        calls.append((kind, config, data, judge, spread))
        return folder / "final"

    monkeypatch.setattr("mobile_vla.train.vla.train_vla", train_vla)
    return calls


def test_settings_may_stand_after_options(asked_of_a_large_one, call):
    code, _, _ = call(
        "train", "there", "see.steps=9", "--policy", "kosmos_clip", "--data", "a", "--data", "b", "names=3"
    )
    assert code == 0
    ((kind, config, data, judge, spread),) = asked_of_a_large_one
    assert (kind.name, config.see.steps, config.names) == ("kosmos_clip", 9, 3)
    assert data == [Path("a"), Path("b")]
    assert (judge, spread) == (None, None)


def test_a_judge_is_made_where_scenes_are_named(asked_of_a_large_one, call):
    call("train", "there", "--policy", "clip_lstm", "judge_scenes=5")
    assert callable(asked_of_a_large_one[0][3])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--policy", "kosmos_klip"], "did you mean kosmos_clip"),
        (["--data", "mine"], "makes its own data"),
        (["--policy", "clip_lstm", "network.head.knd=mlp"], "did you mean network.head.kind"),
        (["--policy", "clip_lstm", "--data", "nowhere"], "there is no data set at nowhere"),
    ],
)
def test_what_is_asked_wrongly_is_explained(call, tmp_path, arguments, words):
    code, _, err = call("train", tmp_path / "run", *arguments)
    assert code == 2
    assert words in err


def test_what_is_neither_option_nor_setting_is_refused(call):
    with pytest.raises(SystemExit) as ended:
        call("train", "there", "--policy", "compact", "--dta=mine")
    assert ended.value.code == 2
