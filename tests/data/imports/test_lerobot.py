"""Data sets that LeRobot 0.4.4 wrote: numbers, pictures from parquet and from AV1, and what is refused."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mobile_vla.core import ConfigError, DatasetError
from mobile_vla.data import Dataset, validate
from mobile_vla.data import schema as s
from mobile_vla.data.imports import import_data, open_source
from peer_lerobot_data import CAMERA, FRAMES, HEIGHT, TASKS, WIDTH, action_of, picture_of

TOLERANCE = {"image": 3, "video": 10}
"""Mean difference of a flat field: of our JPEG, and of AV1 at LeRobot's quality before it."""
EPISODES = "meta/episodes/chunk-000/file-000.parquet"


def truth(episode, frames):
    """linear_x, linear_y in m/s and angular_z in rad/s."""
    numbers = np.stack([action_of(episode, frame)[6:] for frame in frames]).astype(float)
    return numbers * (1, 1, np.pi / 180)


def change_info(root, **values):
    path = root / "meta/info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def change_column(path, name, change):
    table = pq.read_table(path)
    values = change(table.column(name).to_pylist())
    pq.write_table(table.set_column(table.column_names.index(name), name, pa.array(values)), path)


@pytest.mark.parametrize("dtype", ["image", "video"])
def test_what_lerobot_wrote_is_read_with_its_units_axes_and_colours(lerobot, tmp_path, answers, dtype):
    out = tmp_path / "ours"
    report = import_data(lerobot(dtype), "lerobot", out, answers)
    assert (report.imported, report.already_there, report.frames, report.clipped) == (2, 0, 10, 0)
    assert validate(out) == []
    dataset = Dataset.open(out)
    assert dataset.contract.frame_rate_hz == 5.0
    for number, episode in enumerate(dataset):
        frames = range(0, FRAMES[number], 2)
        assert episode.instruction == TASKS[number]
        np.testing.assert_allclose(episode[s.ACTION], truth(number, frames), atol=1e-6)
        np.testing.assert_allclose(episode[s.STATE], truth(number, frames) / 2, atol=1e-6)
        np.testing.assert_array_equal(episode[s.SEQUENCE], frames)
        np.testing.assert_array_equal(episode[s.CAPTURE_NS], np.array(frames) * 100_000_000)
        chunks = episode[s.ACTION_CHUNK].reshape(-1, 4, 3)
        for chunk, frame in zip(chunks, frames, strict=True):
            known = range(frame, min(frame + 4, FRAMES[number]))
            np.testing.assert_allclose(chunk[: len(known)], truth(number, known), atol=1e-6)
            assert np.isnan(chunk[len(known) :]).all()
        inner = (slice(None), slice(16, HEIGHT), slice(4, WIDTH // 2 - 4))
        pictures = np.stack([picture_of(number, frame) for frame in frames]).astype(float)
        difference = np.abs(episode.images()[inner] - pictures[inner]).mean(axis=(1, 2))
        assert difference.max() < TOLERANCE[dtype]
        assert "synthetic" in episode.record.extras["import.capture"]
    assert dataset.episode(0)[s.ACTION][0, 2] == pytest.approx(1.5708, abs=1e-4)


def test_channels_that_were_recorded_the_other_way_round_are_put_right(lerobot, tmp_path, answers):
    answers["camera"]["channel_order"] = "bgr"
    import_data(lerobot("image"), "lerobot", tmp_path / "ours", answers)
    first = Dataset.open(tmp_path / "ours").episode(0).images(0, 1)[0]
    assert first[HEIGHT // 2, 8].argmax() == 2
    assert first[HEIGHT // 2, -8].argmax() == 0


def test_a_state_from_the_action_is_that_of_the_frame_before(lerobot, tmp_path, answers):
    answers["state"] = "from_action"
    import_data(lerobot("image"), "lerobot", tmp_path / "ours", answers)
    states = Dataset.open(tmp_path / "ours").episode(0)[s.STATE]
    np.testing.assert_array_equal(states[0], np.zeros(3))
    np.testing.assert_allclose(states[1:], truth(0, range(1, 11, 2)), atol=1e-6)


def test_signs_and_scales_are_those_of_the_mapping(lerobot, tmp_path, answers):
    answers["action"]["linear_y"] |= {"positive": "right", "unit": "none", "scale": 0.5}
    answers["action"]["angular_z"] = "zero"
    import_data(lerobot("image"), "lerobot", tmp_path / "ours", answers)
    actions = Dataset.open(tmp_path / "ours").episode(0)[s.ACTION]
    np.testing.assert_allclose(actions, truth(0, range(0, 12, 2)) * (1, -0.5, 0), atol=1e-6)


def test_a_rate_that_does_not_fit_is_said_with_the_remedy(lerobot, tmp_path, answers):
    del answers["every"]
    with pytest.raises(ConfigError, match=r"10 frames a second and every: 1 gives 10.*write `every: 2`"):
        import_data(lerobot("image"), "lerobot", tmp_path / "ours", answers)
    assert not (tmp_path / "ours").exists()


def test_an_action_outside_the_limits_is_named_or_clipped_and_counted(lerobot, tmp_path, answers):
    answers["contract"]["limits"] = [0.6, 0.6, 1.5]
    with pytest.raises(DatasetError, match=r"episode 0, frame 0: angular_z is 1.571 and contract.limits allow 1.5"):
        import_data(lerobot("image"), "lerobot", tmp_path / "ours", answers)
    assert not (tmp_path / "ours").exists()
    answers["outside"] = "clip"
    report = import_data(lerobot("image"), "lerobot", tmp_path / "ours", answers)
    assert report.clipped == 2
    dataset = Dataset.open(tmp_path / "ours")
    assert dataset.episode(0)[s.ACTION][0, 2] == pytest.approx(1.5)
    assert dataset.episode(0).record.extras["import.clipped_frames"] == 1


def test_an_action_that_is_no_number_is_named(lerobot, tmp_path, answers):
    root = lerobot("image")

    def spoil(rows):
        rows[14][6] = float("nan")
        return rows

    change_column(root / "data/chunk-000/file-000.parquet", "action", spoil)
    with pytest.raises(DatasetError, match=r"episode 1, frame 2: action linear_x is nan"):
        import_data(root, "lerobot", tmp_path / "ours", answers)


def test_an_episode_of_two_tasks_needs_words(lerobot, tmp_path, answers):
    root = lerobot("image")
    change_column(root / EPISODES, "tasks", lambda rows: [["one", "two"], rows[1]])
    with pytest.raises(DatasetError, match=r"episode 0 has 2 tasks.*instruction: \{text"):
        import_data(root, "lerobot", tmp_path / "ours", answers)
    answers["instruction"] = {"text": "go to the blue ball"}
    import_data(root, "lerobot", tmp_path / "ours", answers)
    assert {episode.instruction for episode in Dataset.open(tmp_path / "ours")} == {"go to the blue ball"}


def test_tasks_can_be_told_in_other_words(lerobot, tmp_path, answers):
    answers["instruction"]["texts"] = {TASKS[0]: "turn left"}
    with pytest.raises(ConfigError, match=f"episode 1 has '{TASKS[1]}' for its instruction"):
        import_data(lerobot("image"), "lerobot", tmp_path / "ours", answers)
    answers["instruction"]["texts"][TASKS[1]] = "stop"
    import_data(tmp_path / "theirs_image", "lerobot", tmp_path / "ours", answers)
    assert [episode.instruction for episode in Dataset.open(tmp_path / "ours")] == ["turn left", "stop"]


def test_a_film_that_was_cut_off_is_said_and_nothing_of_its_episode_kept(lerobot, tmp_path, answers):
    root = lerobot("video")
    change_column(root / EPISODES, "length", lambda rows: [rows[0], 8])
    change_column(root / EPISODES, f"videos/{CAMERA}/from_timestamp", lambda rows: [rows[0], 1.5])
    with pytest.raises(DatasetError, match=r"mp4 lacks frame 5 of .* episode 1"):
        import_data(root, "lerobot", tmp_path / "ours", answers)
    assert len(Dataset.open(tmp_path / "ours")) == 1


@pytest.mark.parametrize("name", ["data/chunk-000/file-000.parquet", f"videos/{CAMERA}/chunk-000/file-000.mp4"])
def test_a_file_that_is_missing_or_cut_is_named(lerobot, tmp_path, answers, name):
    path = lerobot("video") / name
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(DatasetError, match=f"{path.name} (cannot be read|lacks frame 0 of)"):
        import_data(tmp_path / "theirs_video", "lerobot", tmp_path / "ours", answers)
    path.unlink()
    with pytest.raises(DatasetError, match=f"{path.name} is missing"):
        import_data(tmp_path / "theirs_video", "lerobot", tmp_path / "ours", answers)


def test_frames_that_are_missing_are_noticed(lerobot, tmp_path, answers):
    root = lerobot("image")
    path = root / "data/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(path).slice(0, 19), path)
    with pytest.raises(DatasetError, match="holds 7 frames of episode 1, not 8"):
        import_data(root, "lerobot", tmp_path / "ours", answers)


def test_an_older_version_is_refused_with_the_way_to_convert_it(lerobot):
    root = lerobot("image")
    change_info(root, codebase_version="v2.1")
    with pytest.raises(DatasetError, match=r"v2\.1, and v3\.0 is read: convert it"):
        open_source(root, "lerobot")


@pytest.mark.parametrize("template", ["../{chunk_index}/{file_index}.parquet", "/etc/passwd", "{nothing}"])
def test_a_path_that_leads_out_of_the_data_set_is_refused(lerobot, tmp_path, answers, template):
    root = lerobot("image")
    change_info(root, data_path=template)
    with pytest.raises(DatasetError, match=r"leads out of the data set|does not say where"):
        import_data(root, "lerobot", tmp_path / "ours", answers)


def test_the_contents_say_what_can_be_mapped(lerobot):
    contents = open_source(lerobot("video"), "lerobot").contents
    assert (contents.episodes, contents.rate_hz) == (2, 10.0)
    assert contents.part("action").elements[6:] == ("x.vel", "y.vel", "theta.vel")
    assert contents.part(CAMERA).what == f"video {HEIGHT}x{WIDTH}x3"
    assert contents.part("timestamp").role.value == "not used"


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="give the folder of a LeRobot data set"):
        open_source(tmp_path, "lerobot")


def test_one_of_ours_can_be_imported_as_any_other(lerobot, tmp_path, answers):
    import_data(lerobot("image"), "lerobot", tmp_path / "ours", answers)
    again = {
        "contract": answers["contract"],
        "camera": {"column": s.IMAGE_FRONT, "channel_order": "rgb"},
        "action": {
            "linear_x": {"column": "action", "name": "linear_x", "unit": "m/s", "positive": "forward"},
            "linear_y": {"column": "action", "name": "linear_y", "unit": "m/s", "positive": "left"},
            "angular_z": {"column": "action", "index": 2, "unit": "rad/s", "positive": "counter-clockwise"},
        },
        "state": "from_action",
        "chunk": "hold",
        "instruction": {"task": True},
    }
    import_data(tmp_path / "ours", "lerobot", tmp_path / "again", again)
    first, second = Dataset.open(tmp_path / "ours"), Dataset.open(tmp_path / "again")
    np.testing.assert_array_equal(first.columns([s.ACTION])[s.ACTION], second.columns([s.ACTION])[s.ACTION])
