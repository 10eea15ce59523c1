import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.ros import topics
from mobile_vla.ros.nodes.joy import JoyNode, as_joy
from mobile_vla.teleop import GAME_CONTROLLER, LINUX_PAD, Button, JoyStick, StickState

from .world import Outside, Running, wait_until

share = st.floats(-1, 1).map(lambda value: round(value, 3))
known = st.frozensets(st.sampled_from(sorted(GAME_CONTROLLER.buttons.values())))


@given(st.tuples(share, share, share), st.booleans(), known)
def test_control_reads_back_what_the_stick_says(shares, touched, pressed):
    reader = JoyStick(GAME_CONTROLLER)
    reader.receive(*as_joy(StickState(), GAME_CONTROLLER), 0)
    reader.receive(*as_joy(StickState(shares, touched, pressed, 1, True), GAME_CONTROLLER), 1)
    read = reader.read()
    assert read.touched == touched
    assert read.pressed == pressed
    assert read.twist_share == pytest.approx(shares if touched else (0.0, 0.0, 0.0), abs=1e-6)


def test_factors_of_a_mapping_are_undone():
    reader = JoyStick(LINUX_PAD)
    reader.receive(*as_joy(StickState(), LINUX_PAD), 0)
    reader.receive(*as_joy(StickState((0.5, -0.25, 1.0), True, frozenset(), 1, True), LINUX_PAD), 1)
    assert reader.read().twist_share == pytest.approx((0.5, -0.25, 1.0))


class Stick:
    name = "a test's stick"

    def __init__(self):
        self.state = StickState()
        self.opened = self.closed = False

    def open(self):
        self.opened = True

    def close(self):
        self.closed = True

    def read(self):
        return self.state


def test_it_publishes_while_the_stick_is_connected_and_ends_when_told_by_it(namespace, domain):
    stick = Stick()
    with Outside(namespace, domain) as outside:
        outside.listen(topics.JOY)
        with Running("joy", namespace, domain, lambda transport: JoyNode(transport, stick)) as running:
            assert running.transport.wait_for_readers(topics.JOY, 1, 60.0)
            stick.state = StickState((1.0, 0.0, 0.0), True, frozenset(), 1, True)
            wait_until(lambda: outside.newest(topics.JOY) is not None, "a message")
            assert outside.newest(topics.JOY).axes[1] == pytest.approx(1.0)
            stick.state = StickState(pressed=frozenset({Button.QUIT}), connected=True)
            running.thread.join(60.0)
            assert not running.thread.is_alive()
    assert stick.opened
    assert stick.closed
