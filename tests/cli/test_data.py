import json

import numpy as np
import pytest

from mobile_vla.core import ActionContract
from mobile_vla.data import EpisodeWriter
from mobile_vla.data import schema as s

SHAPE = (16, 32, 3)


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "set"
    with EpisodeWriter(root, ActionContract(), SHAPE, {}) as writer:
        for number, words in enumerate(("go to the red cup", "멈춰")):
            with writer.episode(words, {"scene_seed": number, "scenario": "hidden"}) as episode:
                for place in range(5):
                    zeros = np.zeros(3, np.float32)
                    pixels = np.full(SHAPE, place, np.uint8)
                    numbers = {s.CAPTURE_NS: place + 1, s.SEQUENCE: place, s.STATE: zeros, s.ACTION: zeros}
                    episode.add({s.IMAGE_FRONT: pixels, **numbers})
    return root


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
    code, out, _ = call("data", "stats", root, "--json")
    answer = json.loads(out)
    assert (answer["episodes"], answer["frames"], answer["seconds"], answer["instructions"]) == (2, 10, 2.0, 2)
    assert answer["scenario"] == {"hidden": 2}


def test_a_set_that_is_not_there(call, refuse, tmp_path):
    assert "there is no data set at" in refuse("data", "stats", tmp_path / "nowhere")
    assert call("data", "validate", tmp_path / "nowhere")[0] == 1
