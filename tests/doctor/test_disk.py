import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.doctor.check import State
from mobile_vla.doctor.disk import LITTLE, TOO_LITTLE, Room, judge_disk, look_at_disk

from .lines import sound

ROOMS = st.builds(
    Room,
    st.sampled_from([Path("runs"), Path("data"), Path("my out")]),
    st.sampled_from([Path("/"), Path("/media/a disk")]),
    st.sampled_from([0, TOO_LITTLE - 1, TOO_LITTLE, LITTLE - 1, LITTLE, 1 << 40]),
    st.booleans(),
)


@given(st.lists(ROOMS, min_size=1, max_size=4))
def test_a_full_or_closed_disk_fails(seen):
    check = judge_disk(seen)
    sound(check)
    fails = any(not room.writable or room.free < TOO_LITTLE for room in seen)
    warns = any(room.free < LITTLE for room in seen)
    assert check.state is (State.FAIL if fails else State.WARN if warns else State.OK)


def test_folders_that_do_not_exist_yet_are_measured_where_they_would_be(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    runs, data = look_at_disk([Path("runs/deep"), Path("data")])
    assert runs.exists == tmp_path
    assert data.exists == tmp_path / "data"
    assert runs.free > 0
    assert runs.writable == os.access(tmp_path, os.W_OK)
    assert "free for runs/deep, data" in judge_disk([runs, Room(Path("data"), tmp_path, runs.free, True)]).found


@pytest.mark.parametrize(("free", "said"), [(1 << 30, "only 1.0 GiB"), (100 << 30, "100.0 GiB free")])
def test_the_room_is_said(free, said):
    assert said in judge_disk([Room(Path("data"), Path("/"), free, True)]).found
