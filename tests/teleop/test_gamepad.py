import os
import struct
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.core import NS_PER_S, ConfigError, ManualClock
from mobile_vla.teleop import LINUX_PAD, NO_SHARES, Button, Gamepad, PadMap, gamepad, gamepads
from mobile_vla.teleop.gamepad import map_of_codes

BUTTON, AXIS, INIT = 1, 2, 0x80
STICK = PadMap(LINUX_PAD.x, LINUX_PAD.y, LINUX_PAD.yaw, LINUX_PAD.buttons)
XBOX_AXES = [0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x10, 0x11]
XBOX_BUTTONS = [0x130, 0x131, 0x133, 0x134, 0x136, 0x137, 0x13A, 0x13B, 0x13C]


def event(value, kind, number):
    return struct.pack("IhBB", 0, value, kind, number)


@contextmanager
def plugged(folder, **settings):
    """A pad at a named pipe: the writer is the device."""
    device = folder / "js0"
    os.mkfifo(device)
    clock = ManualClock()
    writer = os.open(device, os.O_RDWR)
    pad = Gamepad(clock, device, **settings)
    try:
        pad.open()
        yield pad, clock, writer
    finally:
        pad.close()
        os.close(writer)


def test_the_sticks_drive_while_the_dead_man_button_is_held(tmp_path):
    with plugged(tmp_path) as (pad, _, writer):
        os.write(writer, event(0, AXIS | INIT, 0) + event(0, BUTTON | INIT, 4))
        assert pad.read().connected
        os.write(writer, event(-32767, AXIS, 1) + event(32767, AXIS, 3))
        assert pad.read().twist_share == NO_SHARES
        os.write(writer, event(1, BUTTON, 4))
        state = pad.read()
        assert (state.twist_share, state.touched) == ((1.0, 0.0, -1.0), True)
        os.write(writer, event(0, BUTTON, 4))
        state = pad.read()
        assert (state.twist_share, state.touched) == (NO_SHARES, False)


def test_a_press_between_two_reads_is_not_lost(tmp_path):
    with plugged(tmp_path) as (pad, _, writer):
        pad.read()
        os.write(writer, event(1, BUTTON, 1) + event(0, BUTTON, 1))
        assert pad.read().pressed == {Button.EMERGENCY_STOP}
        assert pad.read().pressed == frozenset()


def test_what_is_held_while_it_is_plugged_in_does_not_drive(tmp_path):
    with plugged(tmp_path, mapping=STICK) as (pad, _, writer):
        os.write(writer, event(-32767, AXIS | INIT, 1) + event(1, BUTTON | INIT, 1))
        assert (pad.read().touched, pad.read().pressed) == (False, frozenset())
        os.write(writer, event(0, AXIS, 1))
        pad.read()
        os.write(writer, event(-20000, AXIS, 1))
        assert pad.read().touched


def test_pulled_out_it_is_let_go_and_plugged_in_again_it_drives_again(tmp_path):
    device = tmp_path / "js0"
    os.mkfifo(device)
    clock = ManualClock()
    writer = os.open(device, os.O_RDWR)
    pad = Gamepad(clock, device, mapping=STICK)
    pad.open()
    pad.read()
    os.write(writer, event(-32767, AXIS, 1))
    assert pad.read().touched
    os.close(writer)
    state = pad.read()
    assert (state.connected, state.touched) == (False, False)
    device.unlink()
    clock.advance(2 * NS_PER_S)
    assert not pad.read().connected
    os.mkfifo(device)
    writer = os.open(device, os.O_RDWR)
    clock.advance(NS_PER_S // 2)
    assert not pad.read().connected  # looked for once a second only
    clock.advance(NS_PER_S)
    assert pad.read().connected
    os.write(writer, event(-32767, AXIS, 1))
    assert pad.read().touched
    pad.close()
    os.close(writer)


@given(st.binary(max_size=64), st.lists(st.integers(1, 7), max_size=20))
def test_events_may_come_in_pieces_and_nonsense_is_harmless(tmp_path_factory, payload, cuts):
    with plugged(tmp_path_factory.mktemp("pad")) as (pad, _, writer):
        pad.read()
        whole = payload + bytes(-len(payload) % 8) + event(0, BUTTON, 4) + event(0, BUTTON, 0) + event(1, BUTTON, 0)
        pressed = set()
        at = 0
        for cut in [*cuts, len(whole)]:
            if whole[at : at + cut]:
                os.write(writer, whole[at : at + cut])
            at += cut
            state = pad.read()
            pressed |= state.pressed
            assert all(-1 <= share <= 1 for share in state.twist_share)
        assert Button.START in pressed


def test_the_mapping_follows_from_what_the_kernel_tells():
    mapping = map_of_codes(XBOX_AXES, XBOX_BUTTONS, dead_man=True, dead_zone=0.1)
    assert mapping == PadMap(
        (1, -1.0),
        (0, -1.0),
        (3, -1.0),
        {**LINUX_PAD.buttons, 3: Button.STOP, 2: Button.DISCARD, 8: Button.QUIT},
        4,
        0.1,
    )
    old_pad = map_of_codes([0, 1, 2, 5], [0x130, 0x136], dead_man=False, dead_zone=0.1)
    assert (old_pad.yaw, old_pad.dead_man) == ((2, -1.0), None)
    assert map_of_codes([0, 1], XBOX_BUTTONS, True, 0.1) is None
    assert map_of_codes(XBOX_AXES, [0x130], True, 0.1) is None


def test_a_missing_pad_is_refused_with_what_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(gamepad, "DEVICES", tmp_path)
    with pytest.raises(ConfigError, match="no gamepad"):
        Gamepad(ManualClock()).open()
    with pytest.raises(ConfigError, match=r"cannot open the gamepad .*js9: No such file"):
        Gamepad(ManualClock(), tmp_path / "js9").open()
    (tmp_path / "js0").touch()
    assert gamepads(tmp_path) == [tmp_path / "js0"]


def test_it_names_its_device(tmp_path):
    with plugged(tmp_path) as (pad, _, _):
        assert pad.name == f"gamepad at {tmp_path / 'js0'}"
    assert Gamepad(ManualClock(), Path("/dev/input/js1")).name == "gamepad at /dev/input/js1"


def test_open_twice_and_closed_twice_leave_nothing_open(tmp_path):
    before = os.listdir("/proc/self/fd")
    with plugged(tmp_path) as (pad, _, _):
        pad.open()
        pad.close()
        pad.close()
    assert os.listdir("/proc/self/fd") == before
