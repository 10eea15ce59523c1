import math
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.core import ConfigError
from mobile_vla.teleop import GAME_CONTROLLER, NO_SHARES, Button, JoyStick, PadMap, StickState

FREE = PadMap((1, 1.0), (0, 1.0), (2, 1.0), buttons={0: Button.START, 1: Button.EMERGENCY_STOP})


def test_before_the_first_message_it_is_not_connected():
    assert JoyStick().read() == StickState()


def test_a_message_drives_and_its_time_is_kept():
    joy = JoyStick(FREE)
    joy.receive([0.0, 0.0, 0.0], [0, 0], 5)
    joy.receive([0.0, 1.0, -1.0], [0, 0], 7)
    assert joy.read() == StickState((1.0, 0.0, -1.0), True, frozenset(), 7, True)
    assert joy.read().stamp_ns == 7


def test_the_dead_man_button_is_a_touch_and_letting_go_is_zero():
    joy = JoyStick(GAME_CONTROLLER)
    held = [0] * 15
    joy.receive([0.0, 1.0, 0.0], held, 1)
    assert not joy.read().touched
    held[9] = 1
    joy.receive([0.0, 1.0, 0.0], held, 2)
    assert joy.read().twist_share == (1.0, 0.0, 0.0)
    held[9] = 0
    joy.receive([0.0, 1.0, 0.0], held, 3)
    assert joy.read().twist_share == NO_SHARES


def test_what_is_held_while_the_first_message_comes_counts_after_it_was_let_go():
    joy = JoyStick(FREE)
    joy.receive([0.0, 1.0, 0.0], [0, 1], 1)
    assert joy.read() == StickState(stamp_ns=1, connected=True)
    joy.receive([0.0, 0.0, 0.0], [0, 0], 2)
    joy.receive([0.0, 1.0, 0.0], [0, 1], 3)
    assert joy.read() == StickState((1.0, 0.0, 0.0), True, frozenset({Button.EMERGENCY_STOP}), 3, True)


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), max_size=40))
def test_every_press_is_read_once_however_reads_and_messages_mix(events):
    joy = JoyStick(FREE)
    joy.receive([0, 0, 0], [0, 0], 0)
    before, waiting = (False, False), set()
    for start, emergency, read in events:
        joy.receive([0, 0, 0], [start, emergency], 1)
        if start and not before[0]:
            waiting.add(Button.START)
        if emergency and not before[1]:
            waiting.add(Button.EMERGENCY_STOP)
        before = (start, emergency)
        if read:
            assert joy.read().pressed == waiting
            waiting = set()
    assert joy.read().pressed == waiting


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_message_that_is_not_finite_counts_as_none(bad):
    joy = JoyStick(FREE)
    joy.receive([0, 0, 0], [0, 0], 1)
    joy.receive([0, bad, 0], [0, 1], 2)
    assert joy.read() == StickState(stamp_ns=1, connected=True)


def test_axes_beyond_one_are_clipped():
    joy = JoyStick(FREE)
    joy.receive([0, 0, 0], [0, 0], 1)
    joy.receive([-7, 9, 0], [0, 0], 2)
    assert joy.read().twist_share == (1.0, -1.0, 0.0)


@pytest.mark.parametrize(("axes", "buttons"), [([0, 0], [0] * 15), ([0, 0, 0], [0] * 9)])
def test_another_pad_than_the_mapping_is_for_is_refused(axes, buttons):
    with pytest.raises(ConfigError, match=r"axes and .* buttons, the mapping looks for 3 and 10"):
        JoyStick(GAME_CONTROLLER).receive(axes, buttons, 0)


def test_opened_or_closed_it_has_forgotten_everything():
    joy = JoyStick(FREE)
    joy.receive([0, 0, 0], [0, 0], 1)
    joy.receive([0, 1, 0], [1, 0], 1)
    joy.close()
    joy.open()
    assert joy.read() == StickState()


def test_messages_may_come_from_another_thread():
    joy = JoyStick(FREE)
    joy.receive([0, 0, 0], [0, 0], 0)
    pressed = []

    def publish():
        for k in range(500):
            joy.receive([0, 0, 0], [k % 2, 0], k)

    thread = threading.Thread(target=publish)
    thread.start()
    while thread.is_alive():
        pressed += joy.read().pressed
    thread.join()
    pressed += joy.read().pressed
    assert 1 <= len(pressed) <= 250
    assert set(pressed) == {Button.START}
