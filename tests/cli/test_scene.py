import json

import pytest
from PIL import Image

pytestmark = pytest.mark.needs("mujoco")


def test_a_scene_is_drawn_from_the_camera_and_from_above(call, tmp_path):
    code, out, _ = call("scene", "2box_vertical_right_far", "--seed", 4, "--out", tmp_path / "new" / "scene.png")
    assert code == 0
    assert "boxes to drive round: 2" in out
    assert "passing on the right" in out
    with Image.open(tmp_path / "new" / "scene.png") as picture:
        assert picture.height == 384
        assert picture.width > 768 + 384


def test_json(call, tmp_path):
    code, out, _ = call("scene", "turn_left", "--out", tmp_path / "scene.png", "--json")
    answer = json.loads(out)
    assert (code, answer["scenario"], answer["seed"], answer["goals"]) == (0, "turn_left", 1, ["turn left"])


def test_an_unknown_scenario_is_refused(refuse, tmp_path):
    assert "did you mean hidden" in refuse("scene", "hiden", "--out", tmp_path / "scene.png")
