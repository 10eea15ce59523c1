import shutil

from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.record.disk import DiskGuard, Room


def test_room_is_what_is_free_beyond_what_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 1000))
    guard = DiskGuard(tmp_path, pixels=10, rate_hz=5.0, min_free_bytes=400)
    assert guard.room() == Room(600, 600 / 10 / 5 / 60)
    guard.saw(4, 80)
    assert guard.room(open_bytes=100) == Room(500, 500 / 20 / 5 / 60)
    assert guard.room(open_bytes=900).usable_bytes == 0


@given(st.integers(0, 100), st.integers(0, 10**9), st.integers(0, 10**12))
def test_there_is_never_less_than_no_room(frames, size, open_bytes):
    guard = DiskGuard("/", pixels=100, rate_hz=5.0)
    guard.saw(frames, size)
    assert guard.room(open_bytes).usable_bytes >= 0


def test_sentences():
    assert [Room(0, minutes).sentence for minutes in (0.0, 9.94, 10.4, 720.0)] == [
        "room for 0.0 min",
        "room for 9.9 min",
        "room for 10 min",
        "room for 12 h",
    ]
