from pathlib import Path

from mobile_vla.checkpoint.verify import State, verify
from mobile_vla.doctor.purpose import SHIPPED, Purpose

from .purposes import ELSEWHERE, SERBOT, SIMULATED, VIDEO0, with_robot


def test_without_a_robot_the_simulator_is_meant():
    assert SIMULATED.needs_simulator
    assert SIMULATED.needs_policy
    assert not SIMULATED.needs_wire
    assert (SIMULATED.video_device, SIMULATED.can_channel, SIMULATED.serial_port) == (None, None, None)


def test_a_robot_names_its_devices():
    serbot = with_robot("usb", "serbot", camera_device=VIDEO0, base_channel="can1", **SERBOT)
    assert (serbot.video_device, serbot.can_channel, serbot.serial_port) == (VIDEO0, "can1", None)
    lekiwi = with_robot("pattern", "lekiwi", base_port="/dev/ttyACM3")
    assert (lekiwi.video_device, lekiwi.can_channel, lekiwi.serial_port) == (None, None, "/dev/ttyACM3")
    assert not lekiwi.needs_simulator


def test_a_bus_that_is_not_the_kernels_needs_no_interface():
    assert with_robot(base="serbot", base_interface="virtual", **SERBOT).can_channel is None


def test_who_has_to_talk_over_the_wire():
    assert ELSEWHERE.needs_wire
    assert with_robot(policy_here=False).needs_wire
    assert not with_robot().needs_wire
    assert with_robot(base="cmd_vel").needs_wire


def test_the_shipped_checkpoint_is_where_it_is_looked_for():
    assert isinstance(SHIPPED, Path)
    assert Purpose().policy == SHIPPED
    assert verify(SHIPPED).state is State.WHOLE
