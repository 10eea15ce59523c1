"""The forerunner's two layouts, written by h5py as the field notes describe them."""

import h5py
import numpy as np
import pytest

from mobile_vla.core import ConfigError, DatasetError
from mobile_vla.data import Dataset, validate
from mobile_vla.data import schema as s
from mobile_vla.data.imports import import_data, open_source, template

LENGTH, HEIGHT, WIDTH = 18, 36, 64
SPEED = 0.26
NAME = "episode_20250815_094512_1box_hori_left_core_medium.h5"


def pictures():
    """BGR, as theirs are: the upper half red, the lower blue, brighter with each frame."""
    made = np.zeros((LENGTH, HEIGHT, WIDTH, 3), np.uint8)
    level = np.arange(LENGTH, dtype=np.uint8)[:, None, None] * 10 + 60
    made[:, : HEIGHT // 2, :, 2] = level
    made[:, HEIGHT // 2 :, :, 0] = level
    return made


def actions(width=3):
    """Forward, then to the left, then turning: each axis alone, in their -1.15, 0, 1.15."""
    made = np.zeros((LENGTH, width), np.float32)
    made[:6, 0] = 1.15
    made[6:12, 1] = -1.15
    made[12:, 2] = 1.15
    return made


def write_first(path, **more):
    """``images``, ``actions``, ``action_event_types``, attributes; no time and no words."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=pictures(), compression="gzip")
        file.create_dataset("actions", data=more.pop("actions", actions()), compression="gzip")
        events = ["episode_start", *["start_action"] * (LENGTH - 2), "stop_action"]
        file.create_dataset("action_event_types", data=events, dtype=h5py.string_dtype("utf-8"))
        attributes = {
            "episode_name": path.stem,
            "total_duration": 3.0,
            "num_frames": LENGTH,
            "action_chunk_size": 8,
            "obstacle_layout_type": "hori",
            "time_period": "dawn",
            "collection_datetime": "2025-08-15T09:45:12",
        }
        file.attrs.update({**attributes, **more})
    return path


def write_later(path, words="가장 왼쪽 외곽으로 돌아 컵까지 가세요", length=LENGTH):
    """``observations/images``, ``action`` (T, 4), ``language_instruction``."""
    with h5py.File(path, "w") as file:
        file.create_dataset("observations/images", data=pictures()[:length])
        file.create_dataset("action", data=actions(4))
        file.create_dataset("language_instruction", data=words, dtype=h5py.string_dtype("utf-8"))
    return path


def axis(index, scale, positive, dataset="actions", si=None):
    unit = {"unit": "none", "scale": scale} if si is None else {"unit": si}
    return {"dataset": dataset, "index": index, **unit, "positive": positive}


@pytest.fixture
def first_answers():
    return {
        "contract": {"limits": [0.3, 0.3, 1.0], "rate_hz": 6, "horizon": 3, "frame_rate_hz": 6},
        "source_rate_hz": 6,
        "camera": {"dataset": "images", "channel_order": "bgr"},
        "action": {
            "linear_x": axis(0, SPEED, "forward"),
            "linear_y": axis(1, SPEED, "right"),
            "angular_z": axis(2, 0.6, "counter-clockwise"),
        },
        "state": "from_action",
        "instruction": {"file_name": {"hori_left": "go round the box on the left", "hori_right": "on the right"}},
    }


@pytest.fixture
def later_answers(first_answers):
    named = {
        name: {**each, "dataset": "action", "unit": unit}
        for (name, each), unit in zip(first_answers["action"].items(), ("m/s", "m/s", "deg/s"), strict=True)
    }
    for each in named.values():
        del each["scale"]
    return {
        **first_answers,
        "contract": {"limits": [1.2, 1.2, 1.0], "rate_hz": 6, "horizon": 3, "frame_rate_hz": 3},
        "every": 2,
        "camera": {"dataset": "observations/images", "channel_order": "bgr"},
        "action": named,
        "instruction": {"dataset": "language_instruction"},
    }


def test_the_first_layout(tmp_path, first_answers):
    write_first(tmp_path / "theirs" / NAME)
    out = tmp_path / "ours"
    assert import_data(tmp_path / "theirs", "hdf5", out, first_answers).frames == LENGTH
    assert validate(out) == []
    episode = Dataset.open(out).episode(0)
    assert episode.instruction == "go round the box on the left"
    expected = actions() * (SPEED, -SPEED, 0.6)
    np.testing.assert_allclose(episode[s.ACTION], expected, atol=1e-6)
    np.testing.assert_allclose(episode[s.STATE], np.vstack([np.zeros((1, 3)), expected[:-1]]), atol=1e-6)
    np.testing.assert_allclose(episode[s.ACTION_CHUNK][4].reshape(3, 3), expected[4:7], atol=1e-6)
    assert np.isnan(episode[s.ACTION_CHUNK][-1].reshape(3, 3)).tolist() == [[False] * 3, [True] * 3, [True] * 3]
    np.testing.assert_array_equal(episode[s.CAPTURE_NS], np.round(np.arange(LENGTH) * 1e9 / 6))
    difference = np.abs(episode.images().astype(int) - pictures()[..., ::-1])
    assert np.delete(difference, [HEIGHT // 2 - 1, HEIGHT // 2], axis=1).mean(axis=(1, 2)).max() < 3
    extras = episode.record.extras
    assert extras["import.capture"] == "synthetic, frame number / 6 Hz"
    assert (extras["source.obstacle_layout_type"], extras["source.num_frames"]) == ("hori", LENGTH)


def test_the_later_layout(tmp_path, later_answers):
    write_later(tmp_path / "episode.hdf5")
    import_data(tmp_path / "episode.hdf5", "hdf5", tmp_path / "ours", later_answers)
    episode = Dataset.open(tmp_path / "ours").episode(0)
    assert episode.instruction == "가장 왼쪽 외곽으로 돌아 컵까지 가세요"
    expected = actions() * (1, -1, np.pi / 180)
    np.testing.assert_allclose(episode[s.ACTION], expected[::2], atol=1e-6)
    np.testing.assert_allclose(episode[s.ACTION_CHUNK][2].reshape(3, 3), expected[4:7], atol=1e-6)
    np.testing.assert_array_equal(episode[s.SEQUENCE], np.arange(0, LENGTH, 2))
    assert episode.images()[0, 4, 4].argmax() == 0  # red above, read from BGR


def test_a_channel_order_is_asked_for_and_taken_at_its_word(tmp_path, later_answers):
    later_answers["camera"]["channel_order"] = "rgb"
    write_later(tmp_path / "episode.hdf5")
    import_data(tmp_path / "episode.hdf5", "hdf5", tmp_path / "ours", later_answers)
    assert Dataset.open(tmp_path / "ours").episode(0).images()[0, 4, 4].argmax() == 2


def test_without_a_rate_the_import_asks_for_it(tmp_path, first_answers):
    write_first(tmp_path / NAME)
    del first_answers["source_rate_hz"]
    with pytest.raises(ConfigError, match="does not say source_rate_hz; add the line `source_rate_hz: "):
        import_data(tmp_path / NAME, "hdf5", tmp_path / "ours", first_answers)


def test_the_contents_show_both_layouts(tmp_path):
    first = open_source(write_first(tmp_path / NAME), "hdf5").contents
    assert str(first.part("images")) == f"images (uint8 {LENGTH}x{HEIGHT}x{WIDTH}x3)"
    assert first.part("actions").elements == ("0", "1", "2")
    assert first.attributes["obstacle_layout_type"] == "hori"
    assert any("6 Hz" in note for note in first.notes)
    later = open_source(write_later(tmp_path / "later.h5"), "hdf5").contents
    assert [part.name for part in later.parts] == ["action", "language_instruction", "observations/images"]
    assert "{dataset: language_instruction}" in template(later)


def test_an_instruction_from_an_attribute_and_a_table(tmp_path, first_answers):
    write_first(tmp_path / NAME)
    first_answers["instruction"] = {"attribute": "obstacle_layout_type", "texts": {"hori": "go to the red cup"}}
    import_data(tmp_path / NAME, "hdf5", tmp_path / "ours", first_answers)
    assert Dataset.open(tmp_path / "ours").episode(0).instruction == "go to the red cup"
    first_answers["instruction"] = {"attribute": "words"}
    with pytest.raises(ConfigError, match=r"no attribute 'words' .* it has .*obstacle_layout_type"):
        import_data(tmp_path / NAME, "hdf5", tmp_path / "other", first_answers)


def test_a_name_that_says_both_or_neither_is_refused(tmp_path, first_answers):
    first_answers["instruction"] = {"file_name": {"left": "a", "core": "b"}}
    with pytest.raises(ConfigError, match="has left and core of the parts"):
        import_data(write_first(tmp_path / NAME), "hdf5", tmp_path / "ours", first_answers)
    first_answers["instruction"] = {"file_name": {"right": "a"}}
    with pytest.raises(ConfigError, match="has none of the parts"):
        import_data(tmp_path / NAME, "hdf5", tmp_path / "ours", first_answers)


def test_words_that_change_within_a_file_are_refused(tmp_path, later_answers):
    words = ["left"] * 9 + ["right"] * 9
    write_later(tmp_path / "episode.h5", words)
    with pytest.raises(DatasetError, match="2 instructions in language_instruction"):
        import_data(tmp_path / "episode.h5", "hdf5", tmp_path / "ours", later_answers)


def test_files_that_do_not_fit_are_named_before_anything_is_written(tmp_path, first_answers):
    folder = tmp_path / "theirs"
    write_first(folder / "a" / NAME)
    write_first(folder / "b" / NAME, actions=actions()[:-1])
    with pytest.raises(DatasetError, match=rf"b/{NAME} has {LENGTH} pictures and actions of shape \(17, 3\)"):
        import_data(folder, "hdf5", tmp_path / "ours", first_answers)
    (folder / "b" / NAME).write_bytes((folder / "a" / NAME).read_bytes()[:-4000])
    with pytest.raises(DatasetError, match=f"{NAME} cannot be read as HDF5"):
        import_data(folder, "hdf5", tmp_path / "ours", first_answers)
    with h5py.File(folder / "b" / NAME, "w") as file:
        file["images"] = pictures()
    with pytest.raises(DatasetError, match="has no data set actions; it has images"):
        import_data(folder, "hdf5", tmp_path / "ours", first_answers)
    assert not (tmp_path / "ours").exists()


def test_a_copy_of_a_file_is_brought_once(tmp_path, first_answers):
    folder = tmp_path / "theirs"
    write_first(folder / "a" / NAME)
    (folder / "b").mkdir()
    (folder / "b" / NAME).write_bytes((folder / "a" / NAME).read_bytes())
    report = import_data(folder, "hdf5", tmp_path / "ours", first_answers)
    assert (report.imported, report.already_there) == (1, 1)


def test_another_size_is_refused_with_what_to_do(tmp_path, later_answers):
    write_later(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["observations/images"] = np.zeros((LENGTH, 10, 20, 3), np.uint8)
        file["action"] = actions(4)
        file["language_instruction"] = "stop"
    with pytest.raises(DatasetError, match=r"b\.h5 has pictures of 20x10 and .* holds 64x36: import it into another"):
        import_data(tmp_path, "hdf5", tmp_path / "ours", later_answers)
    assert len(Dataset.open(tmp_path / "ours")) == 1


def test_a_camera_that_is_none_and_a_folder_without_files(tmp_path, first_answers):
    write_first(tmp_path / NAME)
    first_answers["camera"]["dataset"] = "actions"
    with pytest.raises(ConfigError, match=r"camera.dataset: actions cannot be used for that .* has images"):
        import_data(tmp_path / NAME, "hdf5", tmp_path / "ours", first_answers)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"has none of \.h5, \.hdf5 below it"):
        open_source(tmp_path / "empty", "hdf5")
