import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.doctor import wire
from mobile_vla.doctor.check import State
from mobile_vla.doctor.process import Answer
from mobile_vla.doctor.wire import Network, Talk, judge_buffers, judge_multicast, judge_ros, judge_talk

from .lines import sound
from .purposes import ELSEWHERE, SIMULATED

HEARD = Answer({"carrier": "dds", "trips_ms": [0.8, 1.0, 4.0], "first_ms": 12.0})
DEAF = Answer({"carrier": "dds", "trips_ms": [], "first_ms": None})
NETWORKS = st.builds(
    Network,
    st.dictionaries(st.sampled_from(["lo", "eth0", "wlan0", "can0"]), st.booleans()),
    st.none() | st.just("lo"),
    st.sampled_from(["", "No such device (ENODEV)", "what is sent to the group is not heard"]),
    st.none() | st.integers(0, 1 << 30),
)
ENVIRONMENTS = st.fixed_dictionaries(
    {},
    optional={
        "ROS_DOMAIN_ID": st.sampled_from(["0", "42", "101", "102", "232", "233", "-1", "x", "", "٤"]),
        "RMW_IMPLEMENTATION": st.sampled_from(["rmw_zenoh_cpp", "rmw_fastrtps_cpp", "rmw_cyclonedds_cpp"]),
        "ROS_LOCALHOST_ONLY": st.sampled_from(["0", "1"]),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": st.sampled_from(["OFF", "LOCALHOST", "SUBNET", "localhost"]),
        "CYCLONEDDS_URI": st.just("file:///etc/cyclone.xml"),
        "HOME": st.just("/root"),
    },
)


def test_two_processes_talk_on_this_machine(monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", "87")
    monkeypatch.setenv("ROS_LOCALHOST_ONLY", "1")
    seen = wire.try_talk(60.0)
    assert seen.confined is None
    assert len(seen.answer.values["trips_ms"]) == wire.TRIPS
    assert judge_talk(seen, ELSEWHERE).state is State.OK


def test_a_domain_that_is_none_is_the_trouble(monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", "900")
    check = judge_talk(wire.try_talk(60.0), ELSEWHERE)
    assert check.state is State.FAIL
    assert "ROS_DOMAIN_ID is '900'" in check.found


@pytest.mark.parametrize(("purpose", "state"), [(ELSEWHERE, State.FAIL), (SIMULATED, State.WARN)])
@pytest.mark.parametrize(
    ("seen", "said", "line"),
    [
        (Talk(DEAF, HEARD), "on loopback alone", "sudo ufw allow"),
        (Talk(DEAF, DEAF), "not even on loopback", None),
        (Talk(Answer(None, "neither cyclonedds nor rclpy can be imported"), DEAF), "missing", "install cyclonedds"),
        (Talk(Answer(None, "no answer within 30 s"), DEAF), "no answer within 30 s", None),
    ],
)
def test_silence_is_explained(purpose, state, seen, said, line):
    check = judge_talk(seen, purpose)
    sound(check)
    assert check.state is state
    assert said in check.found
    assert (line in check.repairs[0]) if line else check.repairs == ()


def test_where_ros_is_installed_it_is_sourced(root):
    assert wire.installed_ros(root.path) is None
    root.write("opt/ros/humble/setup.bash")
    newest = root.write("opt/ros/jazzy/setup.bash")
    assert wire.installed_ros(root.path) == newest
    check = judge_talk(Talk(Answer(None, "neither cyclonedds nor rclpy can be imported")), ELSEWHERE, newest)
    assert check.repairs == (f"source {newest}",)


@given(NETWORKS)
def test_the_network_warns_and_never_fails(seen):
    for purpose in (ELSEWHERE, SIMULATED):
        check = judge_multicast(seen, purpose)
        if check.state is not State.NOT_NEEDED:
            sound(check)
        assert check.state is not State.FAIL
        assert (check.state is State.OK) == (not seen.refusal)
    check = judge_buffers(seen)
    sound(check)
    small = seen.receive_buffer is not None and seen.receive_buffer < 4 << 20
    assert (check.state is State.WARN) == small


def test_loopback_alone_gets_a_route_for_multicast():
    check = judge_multicast(Network({"lo": False}, "lo", "No such device (ENODEV)", None), ELSEWHERE)
    assert check.repairs == ("sudo ip link set lo multicast on", "sudo ip route add 224.0.0.0/4 dev lo")
    check = judge_multicast(Network({"eth0": True, "lo": False}, "lo", "No such device (ENODEV)", None), ELSEWHERE)
    assert check.repairs == ("sudo ip route add 224.0.0.0/4 dev eth0",)


def test_small_buffers_are_raised_now_and_after_the_next_start():
    now, later = judge_buffers(Network({}, None, "", 212_992)).repairs
    assert now == "sudo sysctl -w net.core.rmem_max=4194304"
    assert "/etc/sysctl.d/" in later


def test_the_network_is_read_from_its_files(root):
    for name, flags in (("lo", "0x9"), ("eth0", "0x1003"), ("wlan0", "0x1002")):
        root.write(f"sys/class/net/{name}/flags", flags)
    root.write("proc/sys/net/core/rmem_max", "212992\n")
    seen = wire.look_at_network(root.path)
    assert seen.interfaces == {"lo": False, "eth0": True}
    assert seen.loopback == "lo"
    assert seen.receive_buffer == 212_992


def test_a_socket_that_may_not_join_says_why(monkeypatch):
    def refuse(self, *arguments):
        raise OSError(19, "No such device")

    class Refusing(socket.socket):
        setsockopt = refuse

    monkeypatch.setattr(wire.socket, "socket", Refusing)
    assert wire.multicast_refusal() == "No such device (ENODEV)"


def test_what_is_not_heard_is_waited_for_with_a_limit(monkeypatch):
    class Silent(socket.socket):
        def sendto(self, *arguments):
            return 0

    monkeypatch.setattr(wire.socket, "socket", Silent)
    assert wire.multicast_refusal(0.1)


@given(ENVIRONMENTS)
def test_variables_of_ros_are_judged(environment):
    for purpose in (ELSEWHERE, SIMULATED):
        check = judge_ros(environment, purpose)
        sound(check)
        domain = environment.get("ROS_DOMAIN_ID") or "0"
        wrong = not (domain.isascii() and domain.isdigit() and int(domain) <= 232)
        assert ("not a number from 0 to 232" in check.found) == wrong
        if not purpose.needs_wire:
            assert check.state is not State.FAIL


def test_a_policy_elsewhere_cannot_be_reached_from_a_confined_node():
    assert judge_ros({"ROS_LOCALHOST_ONLY": "1"}, ELSEWHERE).state is State.FAIL
    assert judge_ros({"ROS_LOCALHOST_ONLY": "1"}, SIMULATED).state is State.OK


def test_zenoh_does_not_speak_dds():
    assert "does not speak DDS" in judge_ros({"RMW_IMPLEMENTATION": "rmw_zenoh_cpp"}, SIMULATED).found
