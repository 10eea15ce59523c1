"""An import as a whole: begun, interrupted, gone on with, repeated, and what it leaves in the data set."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mobile_vla.core import ConfigError, ContractMismatchError, DatasetError
from mobile_vla.data import Dataset, validate
from mobile_vla.data import schema as s
from mobile_vla.data.imports import import_data, open_source
from mobile_vla.data.writer import Recording


def change_column(path, name, change):
    table = pq.read_table(path)
    values = pa.array(change(table.column(name).to_pylist()))
    pq.write_table(table.set_column(table.column_names.index(name), name, values), path)


def test_an_import_that_is_repeated_brings_nothing_twice(lerobot, tmp_path, answers):
    root, out = lerobot("image"), tmp_path / "ours"
    import_data(root, "lerobot", out, answers)
    before = (out / "meta/mobile_vla.json").read_bytes()
    report = import_data(root, "lerobot", out, answers)
    assert (report.imported, report.already_there, report.frames) == (0, 2, 0)
    assert (out / "meta/mobile_vla.json").read_bytes() == before
    assert len(Dataset.open(out)) == 2


@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(after=st.integers(0, 9))
def test_an_import_cut_off_anywhere_goes_on(lerobot, tmp_path_factory, answers, after):
    root = Path(__file__).parent / "lerobot_image"
    out = tmp_path_factory.mktemp("cut") / "ours"
    frames = 0

    class Cut(BaseException):
        pass

    add = Recording.add

    def stumbling(self, frame):
        nonlocal frames
        frames += 1
        if frames > after:
            raise Cut
        add(self, frame)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recording, "add", stumbling)
        with pytest.raises(Cut):
            import_data(root, "lerobot", out, answers)
    report = import_data(root, "lerobot", out, answers)
    assert report.imported + report.already_there == 2
    assert report.already_there == (1 if after >= 6 else 0)
    assert validate(out) == []
    dataset = Dataset.open(out)
    assert [episode.instruction for episode in dataset] == ["go to the red cup", "빨간 컵 앞에 멈춰"]
    assert dataset.total_frames == 10


def test_an_episode_that_was_committed_but_not_listed_is_not_brought_again(lerobot, tmp_path, answers):
    root, out = lerobot("image"), tmp_path / "ours"
    import_data(root, "lerobot", out, answers)
    journal = out / "meta/journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(lines[0] + lines[1][:20])
    report = import_data(root, "lerobot", out, answers)
    assert (report.imported, report.already_there) == (0, 2)
    assert validate(out) == []


def test_another_mapping_does_not_continue_an_import(lerobot, tmp_path, answers):
    root, out = lerobot("image"), tmp_path / "ours"
    import_data(root, "lerobot", out, answers)
    answers["action"]["linear_y"]["positive"] = "right"
    with pytest.raises(DatasetError, match="under another mapping: choose another folder"):
        import_data(root, "lerobot", out, answers)


def test_another_contract_is_refused_with_both_sides_named(lerobot, tmp_path, answers):
    out = tmp_path / "ours"
    import_data(lerobot("image"), "lerobot", out, answers)
    answers["contract"]["horizon"] = 5
    with pytest.raises(ContractMismatchError, match="horizon"):
        import_data(lerobot("video"), "lerobot", out, answers)


def test_two_sources_go_into_one_data_set(lerobot, tmp_path, answers):
    out = tmp_path / "ours"
    import_data(lerobot("image"), "lerobot", out, answers)
    answers["extras"] = {"driver": "operator"}
    root = lerobot("video")
    change_column(root / "data/chunk-000/file-000.parquet", "action", lambda rows: rows[::-1])  # other drives
    import_data(root, "lerobot", out, answers)
    dataset = Dataset.open(out)
    assert len(dataset) == 4
    assert [episode.record.extras.get("driver") for episode in dataset] == [None, None, "operator", "operator"]
    assert validate(out) == []


def test_where_the_data_come_from_stands_with_them(lerobot, tmp_path, answers):
    root, out = lerobot("image"), tmp_path / "ours"
    import_data(root, "lerobot", out, answers)
    (session,) = json.loads((out / "meta/mobile_vla.json").read_text())["sessions"]
    assert (session["source"], session["kind"], session["mapping"]) == (str(root), "lerobot", answers)
    extras = Dataset.open(out).episode(1).record.extras
    assert extras["import.source"] == "theirs_image episode 1"
    assert extras["import.state"] == "measured"


def test_labels_that_nobody_gave_stay_empty(lerobot, tmp_path, answers):
    import_data(lerobot("image"), "lerobot", tmp_path / "ours", answers)
    columns = Dataset.open(tmp_path / "ours").episode(0).columns
    assert (columns[s.STATUS] == s.UNLABELLED).all()
    assert (columns[s.OBJECTS] == s.UNLABELLED).all()
    for name in (s.GROUNDING_VISIBLE, s.GROUNDING_BOX, s.GROUNDING_BEARING, s.GROUNDING_DISTANCE, s.RANGES):
        assert np.isnan(columns[name]).all()


def test_progress_is_told(lerobot, tmp_path, answers):
    told = []
    import_data(lerobot("image"), "lerobot", tmp_path / "ours", answers, lambda *words: told.append(words))
    assert told[0] == ("reading the numbers", 0, 2)
    assert told[-1] == ("writing", 2, 2)


def test_a_folder_of_somebody_else_is_not_written_to(lerobot, tmp_path, answers):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(DatasetError, match="not empty and no data set"):
        import_data(lerobot("image"), "lerobot", tmp_path, answers)


def test_a_source_that_is_not_there_or_unknown(tmp_path):
    with pytest.raises(DatasetError, match="there is nothing at"):
        open_source(tmp_path / "nowhere", "bag")
    with pytest.raises(ConfigError, match="no kind of source called 'zarr'"):
        open_source(tmp_path, "zarr")
