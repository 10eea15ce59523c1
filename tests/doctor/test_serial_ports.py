import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.doctor.check import State
from mobile_vla.doctor.serial_ports import DIALOUT_LINE, Port, Serial, judge_serial, look_at_serial

from .lines import sound
from .purposes import SIMULATED, with_robot

ROBOT = with_robot(base="lekiwi", base_port="/dev/ttyACM0")
SEEN = st.builds(
    Serial,
    st.lists(
        st.builds(
            Port, st.sampled_from(["/dev/ttyACM0", "/dev/ttyUSB0"]), st.sampled_from(["", "n/a", "USB"]), st.booleans()
        ),
        unique_by=lambda port: port.device,
    ).map(tuple),
    st.frozensets(st.sampled_from(["ModemManager", "brltty"])),
    st.booleans(),
)


@given(SEEN)
def test_only_the_port_of_the_robots_base_can_fail(seen):
    check = judge_serial(seen, SIMULATED)
    sound(check)
    assert check.state is not State.FAIL
    check = judge_serial(seen, ROBOT)
    sound(check)
    fit = any(port.device == "/dev/ttyACM0" and port.permitted for port in seen.ports)
    assert (check.state is State.FAIL) == (not fit)
    assert ("ModemManager" in check.found) == ("ModemManager" in seen.grabbers)


def test_rights_are_given_by_a_group():
    check = judge_serial(Serial((Port("/dev/ttyACM0", "LeKiwi", False),)), ROBOT)
    assert check.repairs == (DIALOUT_LINE,)
    assert "log in again" in check.found


@pytest.mark.parametrize(("adapter", "warned"), [(True, True), (False, False)])
def test_brltty_is_a_trap_for_one_adapter(adapter, warned):
    check = judge_serial(Serial((Port("/dev/ttyUSB0", "", True),), frozenset({"brltty"}), adapter), SIMULATED)
    assert (check.repairs == ("sudo apt-get remove -y brltty",)) == warned


def test_programs_and_adapters_are_seen(root):
    root.write("proc/71/comm", "ModemManager\n")
    root.write("proc/72/comm", "bash\n")
    root.write("proc/self/comm", "brltty\n")
    root.write("sys/bus/usb/devices/1-2/idVendor", "1a86\n")
    root.write("sys/bus/usb/devices/1-2/idProduct", "7523\n")
    root.write("sys/bus/usb/devices/usb1/idVendor", "1d6b\n")
    seen = look_at_serial(root.path, None)
    assert seen.grabbers == {"ModemManager"}
    assert seen.braille_adapter


def test_a_port_that_pyserial_does_not_list_is_looked_at_by_its_name(root):
    ours, theirs = os.openpty()
    try:
        name = os.ttyname(theirs)
        seen = look_at_serial(root.path, name)
        assert any(port.device == name and port.permitted for port in seen.ports)
        check = judge_serial(seen, with_robot(base="lekiwi", base_port=name))
        assert check.state is State.OK
    finally:
        os.close(ours)
        os.close(theirs)
    assert look_at_serial(root.path, "/dev/ttyNOWHERE").grabbers == frozenset()


def test_a_link_by_id_is_the_port_that_it_names(tmp_path):
    ours, theirs = os.openpty()
    try:
        link = tmp_path / "usb-LeKiwi"
        link.symlink_to(os.ttyname(theirs))
        seen = Serial((Port(os.ttyname(theirs), "", True),))
        assert judge_serial(seen, with_robot(base="lekiwi", base_port=link)).state is State.OK
    finally:
        os.close(ours)
        os.close(theirs)
