import io
import random
import struct
import tarfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mobile_vla.checkpoint.formats import torch_legacy
from mobile_vla.checkpoint.layout import Format
from mobile_vla.core import CheckpointError, MobileVLAError, UnsafeCheckpointError

from .test_torch_zip import leaves, raw, same, state, tensor_of


def saved(value, protocol=2):
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=False, pickle_protocol=protocol)
    return stream.getvalue()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("legacy") / "model.pth"


@pytest.fixture(scope="module")
def whole():
    return saved(state())


@pytest.fixture(scope="module")
def truth():
    return dict(leaves(state()))


def survey(place, data):
    place.write_bytes(data)
    return torch_legacy.survey(place)


def found(layout):
    return {tensor.path: tensor_of(tensor) for tensor in layout.tensors if tensor.run is not None}


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_a_whole_file_holds_what_torch_saved_and_proves_nothing(place, truth, protocol):
    layout = survey(place, saved(state(), protocol))
    assert layout.format is Format.TORCH_LEGACY
    assert layout.problems == ()
    assert "no checksums" in layout.unknowable[0]
    assert all(run.checksum is None for run in layout.runs)
    values = found(layout)
    assert set(values) == set(truth)
    assert all(same(values[path], tensor) for path, tensor in truth.items())
    assert dict(layout.metadata) == {"epoch": 3, "rate": 0.25}


def test_runs_and_counts_make_up_the_whole_file(place, whole):
    layout = survey(place, whole)
    pickles, *storages = sorted(layout.runs, key=lambda run: run.offset)
    at = pickles.size
    for run in storages:
        assert run.offset == at + 8
        at = run.offset + run.size
    assert at == len(whole)


def test_cut_anywhere_what_is_left_is_placed_right(place, whole, truth):
    layout = survey(place, whole)
    start = min(run.offset for run in layout.runs if run.label != "pickles")
    ends = {tensor.path: tensor.run.offset + tensor.run.size for tensor in layout.tensors}
    for stop in range(start, len(whole)):
        layout = survey(place, whole[:stop])
        assert any("cut off" in problem.what for problem in layout.problems), stop
        values = found(layout)
        assert {path for path, end in ends.items() if end <= stop} <= set(values), stop
        for path, value in values.items():
            assert same(value, truth[path]), (stop, path)


def test_cut_within_the_pickles_names_are_lost(place, whole):
    for stop in range(140, 1500, 97):
        layout = survey(place, whole[:stop])
        assert layout.tensors == ()
        assert layout.problems


def test_of_a_cut_storage_views_on_what_is_left_are_there(place):
    base = torch.randn(8, 64)
    data = saved({"rows": base[:3], "all": base})
    layout = survey(place, data[:-1000])
    values = found(layout)
    assert set(values) == {("rows",)}
    assert same(values["rows",], base[:3])


def test_a_wiped_count_is_made_up_for_and_said(place, whole, truth):
    for run in survey(place, whole).runs[1:]:
        wiped = bytearray(whole)
        wiped[run.offset - 8 : run.offset] = b"\xff" * 8
        layout = survey(place, bytes(wiped))
        assert [problem.harmless for problem in layout.problems] == [True]
        assert run.label in layout.problems[0].what
        assert {path: raw(value) for path, value in found(layout).items()} == {p: raw(t) for p, t in truth.items()}


def test_a_damaged_beginning_costs_nothing(place, whole, truth):
    for at in range(2, 137, 5):
        changed = bytearray(whole)
        changed[at] ^= 0x10
        layout = survey(place, bytes(changed))
        assert all(problem.harmless for problem in layout.problems), at
        assert set(found(layout)) == set(truth), at
        # the magic number is the one thing there that has but one form
        assert layout.problems or at > 14


def test_a_lost_list_of_keys_is_made_up_for(place, whole, truth):
    start = min(run.offset for run in survey(place, whole).runs[1:]) - 8
    changed = bytearray(whole)
    changed[start - 40 : start - 20] = bytes(20)
    layout = survey(place, bytes(changed))
    assert any("list of its storages" in problem.what for problem in layout.problems)
    assert all(same(value, truth[path]) for path, value in found(layout).items())
    assert set(found(layout)) == set(truth)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), inserted=st.booleans())
def test_bytes_added_or_lost_within_one_storage_cost_that_one(place, whole, truth, seed, inserted):
    rng = random.Random(seed)
    layout = survey(place, whole)
    run = rng.choice([run for run in layout.runs[1:] if run.size >= 8])
    at = run.offset + rng.randrange(1, run.size - 4)
    data = whole[:at] + (b"\xa5" * 5 + whole[at:] if inserted else whole[at + rng.randrange(1, 4) :])
    damaged = {tensor.path for tensor in layout.tensors if tensor.run == run}
    values = found(survey(place, data))
    others = set(truth) - damaged
    behind = sum(run.size > 0 for run in layout.runs if run.offset > at)
    if behind < 2:
        # too few behind it to tell where bytes are missing
        others &= set(values)
    assert others <= set(values)
    assert all(same(values[path], truth[path]) for path in others)


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 200 OK\r\n\r\n", bytes(3000)])
def test_what_stands_before_it_is_skipped(place, whole, truth, garbage):
    layout = survey(place, garbage + whole)
    assert f"{len(garbage)} bytes" in layout.problems[0].what
    assert all(same(value, truth[path]) for path, value in found(layout).items())
    assert set(found(layout)) == set(truth)


def test_a_whole_file_behind_a_cut_one_is_taken(place, whole, truth):
    values = found(survey(place, whole[:-300] + whole))
    assert {path: raw(value) for path, value in values.items()} == {path: raw(tensor) for path, tensor in truth.items()}


def test_big_endian_tensors_are_not_handed_out(place, whole):
    layout = survey(place, whole.replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89"))
    assert any("big-endian" in problem.what for problem in layout.problems)
    assert {tensor.run for tensor in layout.tensors if tensor.size} == {None}


def test_tar_files_of_the_first_torch_are_named(place):
    with tarfile.open(place, "w") as tar:
        tar.addfile(tarfile.TarInfo("sys_info"), io.BytesIO())
    with pytest.raises(CheckpointError, match=r"tar archive, torch's format before 0\.1\.10"):
        torch_legacy.survey(place)


def test_a_hostile_object_is_not_opened(place, whole):
    start = whole.index(b"\x80\x02}", 30)
    with pytest.raises(UnsafeCheckpointError, match=r"posix\.system"):
        survey(place, whole[:start] + b"cposix\nsystem\n(S'true'\ntR." + whole[start:])


def test_other_files_are_refused(place):
    for data in (b"", b"\x80", struct.pack("<Q", 7) * 50, b"PK\x03\x04" + bytes(100)):
        with pytest.raises(CheckpointError, match="no torch file of the format before"):
            survey(place, data)


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_no_damage_makes_it_fail_otherwise_than_by_our_errors(place, whole, seed):
    rng = random.Random(seed)
    changed = bytearray(whole)
    for _ in range(rng.choice([1, 3, 30])):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    try:
        layout = survey(place, bytes(changed))
    except MobileVLAError:
        return
    for tensor in layout.tensors:
        assert tensor.run is None or tensor.run.offset + tensor.run.size <= len(changed)
