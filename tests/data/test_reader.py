import json

import numpy as np
import pandas
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mobile_vla.core import ContractMismatchError, DatasetError
from mobile_vla.data import Dataset, EpisodeWriter
from mobile_vla.data import schema as s
from mobile_vla.data.store import HOUSE_PATH, INFO_PATH, JOURNAL_PATH, TASKS_PATH, data_path

from .conftest import SHAPE

FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)
FINITE = st.floats(-1, 1, width=32)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), length=st.integers(1, 4), text=st.text(min_size=1, max_size=30).filter(str.strip))
def test_what_is_written_is_read(tmp_path_factory, contract, make_frame, data, length, text):
    root = tmp_path_factory.mktemp("d")
    frames = []
    for place in range(length):
        drawn = make_frame(0, place)
        drawn[s.STATE] = data.draw(hnp.arrays(np.float32, 3, elements=FINITE))
        drawn[s.ACTION_CHUNK] = data.draw(hnp.arrays(np.float32, (contract.horizon, 3), elements=FLOATS))
        drawn[s.CAPTURE_NS] = data.draw(st.integers(0, 2**63 - 1))
        frames.append(drawn)
    text = text.encode(errors="replace").decode()
    with EpisodeWriter(root, contract, SHAPE, {}) as writer, writer.episode(text, {"note": text}) as episode:
        for drawn in frames:
            episode.add(drawn)
    read = Dataset.open(root).episode(0)
    assert read.instruction == text
    assert read.record.extras == {"note": text}
    for name in frames[0].keys() - {s.IMAGE_FRONT}:
        expected = np.stack([np.asarray(drawn[name], dtype=read[name].dtype).reshape(-1) for drawn in frames])
        assert np.array_equal(read[name].reshape(length, -1), expected, equal_nan=name != s.CAPTURE_NS)
    pixels = np.stack([drawn[s.IMAGE_FRONT] for drawn in frames])
    assert np.abs(read.images().astype(int) - pixels).max() <= 4  # one colour a frame: only rounding is lost


def test_columns_and_batches_run_in_the_same_order(record):
    dataset = Dataset.open(record("d", [3, 5, 2, 7]))
    columns = dataset.columns([s.INDEX, s.STATE, s.STATUS])
    assert columns[s.STATE].shape == (17, 3)
    assert dataset.lengths().tolist() == [3, 5, 2, 7]
    everything = np.concatenate([episode.images() for episode in dataset])
    for batch_size in (1, 4, 17, 50):
        batches = list(dataset.image_batches(batch_size, ahead=2))
        assert np.array_equal(np.concatenate([batch.images for batch in batches]), everything)
        assert np.concatenate([batch.rows for batch in batches]).tolist() == list(range(17))
        assert {len(batch.rows) for batch in batches[:-1]} <= {batch_size}
    some = dataset.columns([s.INDEX], episodes=[3, 0])[s.INDEX]
    assert some.tolist() == [10, 11, 12, 13, 14, 15, 16, 0, 1, 2]
    assert next(dataset.image_batches(10, episodes=[3, 0])).images.shape == (10, *SHAPE)


def test_a_part_of_an_episode_can_be_decoded(record):
    episode = Dataset.open(record("d", [6])).episode(0)
    assert np.array_equal(episode.images(2, 4), episode.images()[2:4])
    assert len(bytes(episode.jpegs[0])) > 100


def test_an_empty_data_set_opens(record):
    dataset = Dataset.open(record("d", []))
    assert len(dataset) == 0
    assert dataset.columns([s.STATE])[s.STATE].shape == (0, 3)
    assert list(dataset.image_batches(4)) == []


def test_lerobot_meta_files_tell_the_same(record):
    root = record("d", [3, 2])
    info = json.loads((root / INFO_PATH).read_text())
    assert (info["total_episodes"], info["total_frames"], info["fps"]) == (2, 5, 5)
    assert info["splits"] == {"train": "0:2"}
    episodes = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [(row["dataset_from_index"], row["dataset_to_index"]) for row in episodes] == [(0, 3), (3, 5)]
    assert [row["data/file_index"] for row in episodes] == [0, 1]
    tasks = pandas.read_parquet(root / TASKS_PATH)
    assert tasks.iloc[0].name == "go to the red cup"
    assert tasks.loc["go to the red cup", "task_index"] == 0


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def flip(path):
    """One byte in the middle of the first image."""
    payload = bytearray(path.read_bytes())
    start = payload.find(b"\xff\xd8\xff")
    payload[start : start + 2] = b"\0\0"
    path.write_bytes(payload)


@pytest.mark.parametrize(
    ("damage", "words"), [(cut, "bytes where the journal says"), (lambda path: path.unlink(), "the file is missing")]
)
def test_damage_seen_on_opening_names_file_and_episode(record, damage, words):
    root = record("d", [2, 2, 2])
    damage(root / data_path(1))
    with pytest.raises(DatasetError, match=words) as caught:
        Dataset.open(root)
    assert "episode 1" in str(caught.value)
    assert "file-001.parquet" in str(caught.value)
    assert "skip_damaged" in str(caught.value)
    dataset = Dataset.open(root, skip_damaged=True)
    assert dataset.episode_indices == (0, 2)
    assert len(dataset.damaged) == 1
    assert len(dataset.columns([s.STATE])[s.STATE]) == 4
    with pytest.raises(DatasetError, match="left out"):
        dataset.episode(1)
    with pytest.raises(DatasetError, match="does not exist"):
        dataset.episode(3)


def test_a_bad_image_names_its_frame(record, caplog):
    root = record("d", [2, 2])
    flip(root / data_path(1))
    dataset = Dataset.open(root)
    assert len(dataset.columns([s.STATE])[s.STATE]) == 4
    with pytest.raises(DatasetError, match=r"episode 1 .*file-001.*image of frame 0 is damaged"):
        dataset.episode(1).images()
    with pytest.raises(DatasetError, match="episode 1"):
        list(dataset.image_batches(2))
    assert len(Dataset.open(root, skip_damaged=True)) == 1
    assert "left out: episode 1" in caplog.text


def rewrite_journal(root, place, **changes):
    path = root / JOURNAL_PATH
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[place] |= changes
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_file_of_another_length_or_kind_is_noticed(record):
    root = record("d", [2, 3])
    other = (root / data_path(0)).read_bytes()
    (root / data_path(1)).write_bytes(other)
    rewrite_journal(root, 1, size_bytes=len(other))
    with pytest.raises(DatasetError, match="holds 2 frames where the journal says 3"):
        Dataset.open(root).episode(1).columns  # noqa: B018
    (root / data_path(1)).write_bytes(b"x" * len(other))
    with pytest.raises(DatasetError, match="not a whole parquet file"):
        Dataset.open(root).columns([s.STATE])
    pq.write_table(pq.read_table(root / data_path(0)).drop_columns([s.STATE]), root / data_path(1))
    rewrite_journal(root, 1, size_bytes=(root / data_path(1)).stat().st_size, length=2)
    with pytest.raises(DatasetError, match="lacks the columns"):
        Dataset.open(root).columns([s.STATE])


def test_a_damaged_line_within_the_journal_says_what_to_do(record):
    root = record("d", [2, 3, 2])
    lines = (root / JOURNAL_PATH).read_bytes().splitlines(keepends=True)
    (root / JOURNAL_PATH).write_bytes(lines[0] + b"{}\n" + lines[2])
    with pytest.raises(DatasetError, match=r"line 2 of .* is damaged .* delete that file"):
        Dataset.open(root)
    (root / JOURNAL_PATH).unlink()
    assert len(Dataset.open(root)) == 3


def test_what_is_no_data_set_of_ours_is_refused(record, tmp_path):
    with pytest.raises(DatasetError, match="there is no data set"):
        Dataset.open(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"holds no meta/mobile_vla\.json"):
        Dataset.open(tmp_path / "empty")
    root = record("d", [1])
    with pytest.raises(DatasetError, match="has no column"):
        Dataset.open(root).columns(["speed"])
    house = json.loads((root / HOUSE_PATH).read_text())
    (root / HOUSE_PATH).write_text(json.dumps(house | {"format": 99}))
    with pytest.raises(DatasetError, match="format 99"):
        Dataset.open(root)
    del house["contract"]["rate_hz"]
    (root / HOUSE_PATH).write_text(json.dumps(house))
    with pytest.raises(ContractMismatchError, match="rate_hz"):
        Dataset.open(root)
    (root / HOUSE_PATH).write_text("{")
    with pytest.raises(DatasetError, match="cannot be read"):
        Dataset.open(root)


def test_another_layout_version_is_refused(record):
    root = record("d", [1])
    info = json.loads((root / INFO_PATH).read_text())
    (root / INFO_PATH).write_text(json.dumps(info | {"codebase_version": "v2.1"}))
    with pytest.raises(DatasetError, match=r"v2\.1"):
        Dataset.open(root)
    del info["features"][s.STATUS]
    (root / INFO_PATH).write_text(json.dumps(info))
    with pytest.raises(DatasetError, match="status"):
        Dataset.open(root)
