import json
from pathlib import Path

import pytest
import yaml

from data.imports import bags
from mobile_vla.data import Dataset
from peer_lerobot_data import MAPPING

LEROBOT = Path(__file__).parents[1] / "data/imports/lerobot_image"


@pytest.fixture
def mapping(tmp_path):
    path = tmp_path / "mapping.yaml"
    path.write_text(yaml.safe_dump(MAPPING))
    return path


def test_a_data_set_is_imported_and_the_second_time_nothing(call, tmp_path, mapping):
    command = ("data", "import", LEROBOT, "--kind", "lerobot", "--out", tmp_path / "ours", "--mapping", mapping)
    code, out, _ = call(*command)
    assert (code, out) == (0, f"{tmp_path / 'ours'}: 2 episodes of 10 frames imported\n")
    code, out, _ = call(*command)
    assert (code, out) == (0, f"{tmp_path / 'ours'}: 0 episodes of 0 frames imported, 2 were there already\n")
    code, out, _ = call("data", "validate", tmp_path / "ours")
    assert code == 0


def test_answers_on_the_command_line_go_before_the_file(call, tmp_path, mapping):
    command = ("data", "import", LEROBOT, "--kind", "lerobot", "--out", tmp_path / "ours", "--mapping", mapping)
    code, out, _ = call(*command, "contract.limits=[0.6, 0.6, 1.0]", "outside=clip", "--json")
    assert code == 0
    assert json.loads(out)["clipped_frames"] == 14
    assert Dataset.open(tmp_path / "ours").contract.limits == (0.6, 0.6, 1.0)


def test_what_is_in_a_source_is_shown_with_a_template(call, tmp_path):
    code, out, _ = call("data", "import", LEROBOT, "--kind", "lerobot", "--show")
    assert code == 0
    assert "2 episodes at 10 Hz" in out
    assert "theta.vel" in out
    assert set(yaml.safe_load(out)) >= {"contract", "camera", "action", "state", "instruction"}
    code, out, _ = call("data", "import", LEROBOT, "--kind", "lerobot", "--show", "--json")
    answer = json.loads(out)
    assert (answer["episodes"], answer["rate_hz"]) == (2, 10.0)


def test_a_bag_is_imported_with_what_was_left_out(call, tmp_path):
    bag = bags.write_by_mcap(tmp_path / "drive", bags.drive(said=((1000, "turn left"),)))
    answers = tmp_path / "mapping.yaml"
    answers.write_text(yaml.safe_dump(bags.mapping()))
    code, out, _ = call(
        "data", "import", bag, "--kind", "bag", "--out", tmp_path / "ours", "--mapping", answers, "outside=clip"
    )
    assert code == 0
    assert "1 episodes of 15 frames imported" in out
    assert "left out: 5 frames, no instruction" in out


def test_without_a_mapping_the_first_question_is_asked(refuse, tmp_path):
    said = refuse("data", "import", LEROBOT, "--kind", "lerobot", "--out", tmp_path / "ours")
    assert "does not say contract" in said
    assert "--show" in said
    assert not (tmp_path / "ours").exists()


def test_what_is_wrong_is_one_sentence(refuse, tmp_path, mapping):
    assert "give --out DIR" in refuse("data", "import", LEROBOT, "--kind", "lerobot", "--mapping", mapping)
    assert "there is nothing at" in refuse("data", "import", tmp_path / "no", "--kind", "bag", "--show")
    said = refuse(
        "data", "import", LEROBOT, "--kind", "lerobot", "--out", tmp_path / "o", "--mapping", mapping, "every=1"
    )
    assert "write `every: 2`" in said
