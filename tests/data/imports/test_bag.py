"""Bags of every writer: frames by their stamps, the command in force, episodes by what was said."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.core import NS_PER_S, ConfigError, DatasetError, Twist
from mobile_vla.data import Dataset, validate
from mobile_vla.data import schema as s
from mobile_vla.data.imports import import_data, open_source, template
from mobile_vla.data.imports.bag import on_grid
from mobile_vla.ros import messages as m

from . import bags
from .bags import CMD, COMPRESSED, HEIGHT, IMAGE, MS, ODOM, START_NS, WIDTH, WORDS, command, drive, picture

PERIOD_MS = 40


def expected(times_ms):
    return np.array([command(int(time_ms)).as_array() for time_ms in times_ms])


@pytest.mark.parametrize("write", bags.WRITERS, ids=lambda write: write.__name__)
def test_every_writers_bag_gives_the_same_episode(tmp_path, write):
    path = write(tmp_path / "drive", drive())
    out = tmp_path / "ours"
    report = import_data(path, "bag", out, bags.mapping())
    assert (report.imported, report.frames, report.left_out) == (1, 20, {})
    assert validate(out) == []
    episode = Dataset.open(out).episode(0)
    assert episode.instruction == "go to the red cup"
    times = np.arange(0, 4000, 200)
    np.testing.assert_array_equal(episode[s.CAPTURE_NS], START_NS + times * MS)
    np.testing.assert_allclose(episode[s.ACTION], expected(times), atol=1e-6)
    np.testing.assert_allclose(episode[s.STATE], expected(times) / 2, atol=1e-6)
    chunks = episode[s.ACTION_CHUNK].reshape(-1, 4, 3)
    for chunk, time_ms in zip(chunks, times, strict=True):
        rows = time_ms + np.arange(4) * 100
        known = rows <= 3960  # the last picture: of what comes after it nothing is known
        np.testing.assert_allclose(chunk[known], expected(rows[known]), atol=1e-6)
        assert np.isnan(chunk[~known]).all()
    for shown, number in zip(episode.images(), times // PERIOD_MS, strict=True):
        difference = np.abs(shown.astype(int) - picture(number))
        assert difference[:, 2:14].mean(axis=(0, 1)).max() < 3
        assert difference[:, 18:30].mean(axis=(0, 1)).max() < 3
    assert episode.record.extras["import.capture"] == f"header stamps of {IMAGE}"


def test_compressed_pictures_and_stamped_commands(tmp_path):
    made = [
        ("/stamped", received_ns + 300 * MS, m.twist_stamped(m.twist_from_message(message), received_ns))
        if topic == CMD
        else (topic, received_ns, message)
        for topic, received_ns, message in drive(compressed=True)
    ]
    path = bags.write_by_rosbags(tmp_path / "drive", sorted(made, key=lambda entry: entry[1]))
    answers = bags.mapping() | {
        "camera": {"topic": COMPRESSED, "channel_order": "rgb"},
        "action": bags.axes("/stamped"),
    }
    import_data(path, "bag", tmp_path / "ours", answers)
    episode = Dataset.open(tmp_path / "ours").episode(0)
    np.testing.assert_allclose(episode[s.ACTION], expected(np.arange(0, 4000, 200)), atol=1e-6)
    assert episode.images()[0, HEIGHT // 2, [4, -4]].argmax(axis=1).tolist() == [0, 2]
    assert episode.images().shape == (20, HEIGHT, WIDTH, 3)


def test_an_episode_ends_where_the_instruction_changes(tmp_path):
    said = ((1000, "turn left"), (1500, "turn left"), (2000, ""), (3000, "stop"))
    path = bags.write_by_rosbags(tmp_path / "drive", drive(said=said))
    report = import_data(path, "bag", tmp_path / "ours", bags.mapping())
    dataset = Dataset.open(tmp_path / "ours")
    assert [(episode.instruction, len(episode)) for episode in dataset] == [("turn left", 5), ("stop", 5)]
    assert report.left_out == {"no instruction": 10}
    first = dataset.episode(0)
    assert first[s.CAPTURE_NS][[0, -1]].tolist() == [START_NS + 1000 * MS, START_NS + 1800 * MS]
    chunk = first[s.ACTION_CHUNK][-1].reshape(4, 3)
    np.testing.assert_allclose(chunk[:2], expected([1800, 1900]), atol=1e-6)
    assert np.isnan(chunk[2:]).all()  # these would be of the next instruction


def test_one_instruction_for_all(tmp_path):
    path = bags.write_by_rosbags(tmp_path / "drive", drive(said=()))
    answers = bags.mapping() | {"instruction": {"text": "go to the blue ball"}}
    assert import_data(path, "bag", tmp_path / "ours", answers).frames == 20
    answers["instruction"] = {"file_name": {"drive": "find the cone"}}
    import_data(path, "bag", tmp_path / "other", answers)
    assert Dataset.open(tmp_path / "other").episode(0).instruction == "find the cone"


def test_a_command_that_was_not_renewed_is_no_longer_in_force(tmp_path):
    made = [entry for entry in drive() if entry[0] != CMD or entry[1] <= START_NS + 1000 * MS]
    path = bags.write_by_rosbags(tmp_path / "drive", made)
    import_data(path, "bag", tmp_path / "ours", bags.mapping())
    actions = Dataset.open(tmp_path / "ours").episode(0)[s.ACTION]
    np.testing.assert_allclose(actions[5:8], np.repeat(expected([1000]), 3, axis=0), atol=1e-6)
    assert not actions[8:].any()


def test_before_the_first_command_the_robot_stands(tmp_path):
    made = [entry for entry in drive() if entry[0] != CMD or entry[1] >= START_NS + 1000 * MS]
    path = bags.write_by_rosbags(tmp_path / "drive", made)
    import_data(path, "bag", tmp_path / "ours", bags.mapping())
    actions = Dataset.open(tmp_path / "ours").episode(0)[s.ACTION]
    assert not actions[:5].any()
    np.testing.assert_allclose(actions[5], expected([1000])[0], atol=1e-6)


def test_frames_without_a_measured_velocity_are_left_out_and_counted(tmp_path):
    made = [entry for entry in drive() if entry[0] != ODOM or entry[1] >= START_NS + 1000 * MS]
    path = bags.write_by_rosbags(tmp_path / "drive", made)
    report = import_data(path, "bag", tmp_path / "ours", bags.mapping())
    assert (report.frames, report.left_out) == (15, {"no measured velocity": 5})
    extras = Dataset.open(tmp_path / "ours").episode(0).record.extras
    assert extras["import.left_out"] == "5 frames: no measured velocity"


def test_a_state_from_the_action_is_what_was_in_force_a_frame_before(tmp_path):
    path = bags.write_by_rosbags(tmp_path / "drive", drive())
    answers = bags.mapping() | {"state": "from_action"}
    del answers["state_timeout_s"]
    import_data(path, "bag", tmp_path / "ours", answers)
    states = Dataset.open(tmp_path / "ours").episode(0)[s.STATE]
    assert not states[0].any()
    np.testing.assert_allclose(states[1:], expected(np.arange(0, 3800, 200)), atol=1e-6)


def test_units_and_signs(tmp_path):
    answers = bags.mapping() | {"contract": {**bags.mapping()["contract"], "limits": [0.6, 0.6, 1.6]}}
    made = [entry for entry in drive() if entry[0] != CMD]
    made += [(CMD, START_NS + time_ms * MS, m.twist(Twist(0.5, 0.25, 90.0))) for time_ms in range(0, 4000, 100)]
    path = bags.write_by_rosbags(tmp_path / "degrees", sorted(made, key=lambda entry: entry[1]))
    answers["action"]["angular_z"] |= {"unit": "deg/s", "positive": "clockwise"}
    answers["action"]["linear_y"] |= {"positive": "right"}
    import_data(path, "bag", tmp_path / "ours", answers)
    actions = Dataset.open(tmp_path / "ours").episode(0)[s.ACTION]
    np.testing.assert_allclose(actions, np.tile([0.5, -0.25, -1.5708], (20, 1)), atol=1e-4)


def test_stamps_that_are_missing_are_said_and_can_be_replaced(tmp_path):
    made = [
        (topic, received_ns, image_without_stamp(number) if topic == IMAGE else message)
        for number, (topic, received_ns, message) in enumerate(drive())
    ]
    path = bags.write_by_rosbags(tmp_path / "drive", made)
    with pytest.raises(DatasetError, match=f"{IMAGE} has messages without a stamp: write `stamps: received`"):
        import_data(path, "bag", tmp_path / "ours", bags.mapping())
    import_data(path, "bag", tmp_path / "ours", bags.mapping() | {"stamps": "received"})
    episode = Dataset.open(tmp_path / "ours").episode(0)
    assert episode[s.CAPTURE_NS][0] == START_NS + 15 * MS
    assert "received stamps" in episode.record.extras["import.capture"]


def image_without_stamp(number):
    return bags.image(number, 0)


def test_stamps_of_another_clock_are_refused(tmp_path):
    made = [
        (topic, received_ns, bags.image(number, 5 * NS_PER_S + number * MS) if topic == IMAGE else message)
        for number, (topic, received_ns, message) in enumerate(drive())
    ]
    path = bags.write_by_rosbags(tmp_path / "drive", made)
    with pytest.raises(DatasetError, match="s from the time at which they were recorded"):
        import_data(path, "bag", tmp_path / "ours", bags.mapping())


def test_a_camera_that_is_too_slow_is_said(tmp_path):
    path = bags.write_by_rosbags(tmp_path / "drive", drive(camera_ms=500))
    with pytest.raises(DatasetError, match=r"has 2 frames a second and contract.frame_rate_hz is 5"):
        import_data(path, "bag", tmp_path / "ours", bags.mapping())


def test_rates_of_which_no_chunk_can_be_made(tmp_path):
    path = bags.write_by_rosbags(tmp_path / "drive", drive())
    answers = bags.mapping()
    answers["contract"]["frame_rate_hz"] = 4
    with pytest.raises(ConfigError, match=r"rate_hz 10 must be contract\.frame_rate_hz 4 or a whole multiple"):
        import_data(path, "bag", tmp_path / "ours", answers)


def test_a_command_outside_the_limits_names_the_frame(tmp_path):
    answers = bags.mapping()
    answers["contract"]["limits"] = [0.04, 0.6, 1.5]
    path = bags.write_by_rosbags(tmp_path / "drive", drive())
    with pytest.raises(DatasetError, match=r"drive part 1, frame 55: linear_x is 0.044 and contract.limits allow 0.04"):
        import_data(path, "bag", tmp_path / "ours", answers)
    report = import_data(path, "bag", tmp_path / "ours", answers | {"outside": "clip"})
    assert report.clipped == 9
    assert validate(tmp_path / "ours") == []


def test_a_folder_of_bags_is_imported_once(tmp_path):
    folder = tmp_path / "bags"
    folder.mkdir()
    bags.write_by_rosbags(folder / "a", drive(seconds=1.0))
    bags.write_by_mcap(folder / "b", drive(seconds=2.0))
    assert open_source(folder, "bag").contents.episodes == 2
    assert import_data(folder, "bag", tmp_path / "ours", bags.mapping()).frames == 15
    bags.write_by_sqlite(folder / "c", drive(seconds=3.0))
    report = import_data(folder, "bag", tmp_path / "ours", bags.mapping())
    assert (report.imported, report.already_there, report.frames) == (1, 2, 15)


def test_the_contents_say_topics_types_and_rates(tmp_path):
    contents = open_source(bags.write_by_rosbags(tmp_path / "drive", drive()), "bag").contents
    assert "sensor_msgs/msg/Image, 100 messages, 25" in contents.part(IMAGE).what
    assert contents.part("/joy").role.value == "not used"
    assert contents.part(ODOM).elements[5] == "angular.z"
    text = template(contents)
    assert f"topic: {IMAGE}" in text
    assert f"{{topic: {WORDS}}}" in text


def test_a_topic_that_one_of_the_bags_lacks_is_named(tmp_path):
    folder = tmp_path / "bags"
    folder.mkdir()
    bags.write_by_mcap(folder / "a", drive())
    bags.write_by_mcap(folder / "b", [entry for entry in drive() if entry[0] != ODOM])
    with pytest.raises(DatasetError, match=rf"b\.mcap has no topic {ODOM} that can be imported; it has .*{CMD}"):
        import_data(folder, "bag", tmp_path / "ours", bags.mapping())


def test_a_bag_in_which_nothing_was_said(tmp_path):
    path = bags.write_by_rosbags(tmp_path / "drive", drive(said=((0, ""),)))
    with pytest.raises(DatasetError, match=r"no frame under an instruction.*instruction: \{text"):
        import_data(path, "bag", tmp_path / "ours", bags.mapping())


@given(
    gaps_ms=st.lists(st.integers(1, 400), min_size=1, max_size=80),
    rate_hz=st.sampled_from([1.0, 5.0, 10.0]),
    slack_ms=st.integers(0, 40),
)
def test_frames_are_taken_no_closer_than_the_rate_allows(gaps_ms, rate_hz, slack_ms):
    stamps = np.cumsum([0, *gaps_ms]) * MS
    places = on_grid(stamps, rate_hz, slack_ms * MS)
    assert places[0] == 0
    assert len(places) <= (stamps[-1] / NS_PER_S + slack_ms / 1000) * rate_hz + 1 + 1e-9
    taken = stamps[places]
    assert (np.diff(taken) > 0).all()
    between = np.diff(taken).max(initial=0)
    assert between <= 2 * NS_PER_S / rate_hz + max(gaps_ms) * MS


@given(start=st.integers(0, 5), count=st.integers(2, 60))
def test_a_steady_camera_is_thinned_evenly_in_spite_of_jitter(start, count):
    rng = np.random.default_rng([start, count])
    stamps = np.arange(count) * 40 * MS + rng.integers(-8, 8, count) * MS
    places = on_grid(stamps, 5.0, 20 * MS)
    np.testing.assert_array_equal(places, np.arange(0, count, 5)[: len(places)])
    assert len(places) == -(-count // 5)
