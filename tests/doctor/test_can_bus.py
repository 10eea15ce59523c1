import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.doctor.can_bus import CanInterface, judge_can, look_at_can, read_details
from mobile_vla.doctor.check import State

from .lines import sound
from .purposes import SERBOT, SIMULATED, with_robot

ROBOT = with_robot(base="serbot", **SERBOT)
INTERFACES = st.lists(
    st.builds(
        CanInterface,
        st.sampled_from(["can0", "can1", "vcan0"]),
        st.booleans(),
        st.sampled_from(["", "ERROR-ACTIVE", "ERROR-PASSIVE", "BUS-OFF", "STOPPED"]),
        st.none() | st.just(500_000),
        st.none() | st.just(2_000_000),
    ),
    unique_by=lambda each: each.name,
)


@given(INTERFACES, st.booleans())
def test_only_the_interface_of_the_robots_base_can_fail(seen, jetson):
    check = judge_can(seen, SIMULATED, jetson)
    sound(check)
    assert check.state in (State.OK, State.NOT_NEEDED)
    check = judge_can(seen, ROBOT, jetson)
    sound(check)
    fit = any(each.name == "can0" and each.up and each.state in ("", "ERROR-ACTIVE", "STOPPED") for each in seen)
    assert (check.state is State.FAIL) == (not fit)


@pytest.mark.parametrize(
    ("settings", "rates"), [({}, "bitrate 500000"), ({"base_fd": True}, "bitrate 500000 dbitrate 2000000 fd on")]
)
def test_the_line_that_brings_it_up_knows_can_fd(settings, rates):
    check = judge_can([CanInterface("can0", up=False)], with_robot(base="serbot", **SERBOT, **settings), False)
    assert check.repairs == (f"sudo ip link set can0 up type can {rates}",)


def test_no_interface_gets_the_driver_of_that_machine():
    assert "mttcan" in judge_can([], ROBOT, jetson=True).repairs[0]
    assert "gs_usb" in judge_can([], ROBOT, jetson=False).repairs[0]


def test_interfaces_are_known_by_their_type_and_flags(root):
    for name, kind, flags in (("can0", "280", "0x400c1"), ("can1", "280", "0x40080"), ("eth0", "1", "0x1003")):
        root.write(f"sys/class/net/{name}/type", f"{kind}\n")
        root.write(f"sys/class/net/{name}/flags", f"{flags}\n")
    assert [(each.name, each.up) for each in look_at_can(root.path)] == [("can0", True), ("can1", False)]


def test_ips_details_are_read():
    told = {
        "ifname": "can0",
        "linkinfo": {
            "info_kind": "can",
            "info_data": {
                "ctrlmode": ["FD"],
                "state": "ERROR-ACTIVE",
                "bittiming": {"bitrate": 500000, "sample_point": "0.875"},
                "data_bittiming": {"bitrate": 2000000},
            },
        },
    }
    seen = read_details(CanInterface("can0", True), json.dumps([told]))
    assert seen == CanInterface("can0", True, "ERROR-ACTIVE", 500_000, 2_000_000)
    assert judge_can([seen], ROBOT, False).found == "can0 up error-active 500 kbit/s data 2000 kbit/s"


@given(st.text() | st.recursive(st.none() | st.integers(), lambda each: st.lists(each)).map(json.dumps))
def test_what_ip_says_otherwise_changes_nothing(text):
    seen = CanInterface("vcan0", True)
    assert read_details(seen, text) == seen
