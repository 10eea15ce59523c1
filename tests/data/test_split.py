import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.core import DatasetError
from mobile_vla.data import Dataset, EpisodeWriter, data_hash, load_split, make_split
from mobile_vla.data import schema as s
from mobile_vla.data.split import _place
from mobile_vla.data.store import SPLIT_PATH

from .conftest import SHAPE, frame


@pytest.fixture
def dataset(tmp_path, contract):
    """Thirty scenes with two instructions each."""
    with EpisodeWriter(tmp_path / "d", contract, SHAPE, {}) as writer:
        for number in range(60):
            with writer.episode("stop", {s.EXTRA_SCENE_SEED: number // 2}) as episode:
                episode.add(frame(number, 0, contract))
    return Dataset.open(tmp_path / "d")


def test_no_scene_straddles_and_all_episodes_have_a_place(dataset):
    split = make_split(dataset, (0.6, 0.2, 0.2))
    parts = [split.train, split.validation, split.test]
    assert sorted(sum(parts, ())) == list(range(60))
    scenes = [{dataset.all_records[index].extras["scene_seed"] for index in part} for part in parts]
    assert not scenes[0] & scenes[1] | scenes[0] & scenes[2] | scenes[1] & scenes[2]
    assert all(scenes)
    assert load_split(dataset) == split


def test_recording_more_moves_nobody(dataset, record):
    before = make_split(dataset)
    record("d", [1] * 5, first_seed=1000)
    grown = Dataset.open(dataset.root)
    with pytest.raises(DatasetError, match="made for other data"):
        load_split(grown)
    after = make_split(grown)
    assert set(before.train) <= set(after.train)
    assert set(before.test) <= set(after.test)
    assert before.split_hash != after.split_hash


def test_an_altered_or_missing_split_is_refused(dataset):
    with pytest.raises(DatasetError, match="not divided"):
        load_split(dataset)
    split = make_split(dataset)
    values = split.to_dict()
    values["train"], values["test"] = [*values["train"], *values["test"]], []
    (dataset.root / SPLIT_PATH).write_text(json.dumps(values))
    with pytest.raises(DatasetError, match="changed after it was made"):
        load_split(dataset)
    (dataset.root / SPLIT_PATH).write_text("{}")
    with pytest.raises(DatasetError, match="no split"):
        load_split(dataset)
    with pytest.raises(DatasetError, match="three shares"):
        make_split(dataset, (0.8, 0.1, 0.2))


def test_the_data_hash_follows_the_data(record):
    one, same, other = record("a", [2, 3]), record("b", [2, 3]), record("c", [2, 3], first_seed=1)
    hashes = [data_hash(Dataset.open(root).all_records) for root in (one, same, other)]
    assert hashes[0] == hashes[1] != hashes[2]


@given(st.integers(), st.text(max_size=8))
def test_places_lie_in_0_to_1(seed, salt):
    assert 0 <= _place(f"scene {seed}", salt) < 1


def test_places_are_even():
    places = [_place(f"scene {seed}", "mobile-vla") for seed in range(4000)]
    assert abs(sum(place < 0.8 for place in places) / 4000 - 0.8) < 0.02
