"""RclpyTransport against a small fake of rclpy, in ``fake_rclpy``.

What this proves: the transport keeps the protocol, and calls nothing but what the fake has, with Humble's signatures,
on a bus that matches names, types, domains and QoS as DDS does. What it does not prove: that a real rclpy behaves as
the fake does. No rclpy can be installed by pip; on a machine with ROS 2 the same class can be run without the fake.
"""

import os
import sys
from pathlib import Path

import pytest

from mobile_vla.ros import messages
from mobile_vla.ros.connect import chosen, connect
from mobile_vla.ros.messages import TransportError
from mobile_vla.ros.topics import Qos, Topic
from mobile_vla.ros.transport import Carrier, NodeConfig

from .conformance import LONG_S, WORDS, Heard, TransportConformance, eventually

FAKE = Path(__file__).parent / "fake_rclpy"


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    monkeypatch.setenv("ROS_LOCALHOST_ONLY", "0")
    monkeypatch.delenv("ROS_DISTRO", raising=False)
    monkeypatch.syspath_prepend(str(FAKE))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] in ("rclpy", "rosidl_runtime_py")]:
        del sys.modules[name]


class TestRclpy(TransportConformance):
    def connect(self, config):
        from mobile_vla.ros.rclpy_ import RclpyTransport

        return RclpyTransport(config)

    def write_bytes(self, transport, topic, data):
        transport.publisher(topic)._writer.publish(data)

    def test_a_flood_is_counted_and_only_the_newest_are_handed_on(self, pair):
        writer, reader = pair
        heard = Heard()
        reader.subscribe(WORDS, heard)
        publisher = writer.publisher(WORDS)
        assert writer.wait_for_readers(WORDS, 1, LONG_S)
        for number in range(2000):
            publisher.publish(messages.string(str(number)))
        assert eventually(lambda: heard.words[-1:] == ["1999"])
        assert reader.received(WORDS) > 0
        assert len(heard.all) <= reader.received(WORDS) <= 2000

    def test_localhost_is_told_to_ros_by_its_variables(self, make, monkeypatch):
        make("here")
        assert os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
        assert os.environ["ROS_LOCALHOST_ONLY"] == "0"
        monkeypatch.setenv("ROS_DISTRO", "humble")
        make("there")
        assert os.environ["ROS_LOCALHOST_ONLY"] == "1"

    def test_a_package_that_is_not_installed_is_named(self, make):
        unknown = Topic("thing", "their_msgs/msg/Thing", Qos.DEFAULT, None, None, "test", "")
        with pytest.raises(TransportError, match=r"apt-get install ros-\$ROS_DISTRO-their-msgs"):
            make().publisher(unknown)


def test_connect_uses_rclpy_where_it_is_asked_for(domain):
    transport = connect(NodeConfig("asked", domain=domain, carrier=Carrier.RCLPY))
    assert type(transport).__name__ == "RclpyTransport"
    transport.close()


def test_rclpy_is_chosen_where_there_is_no_cyclonedds(monkeypatch):
    monkeypatch.setattr("mobile_vla.ros.connect._installed", lambda module: module == "rclpy")
    assert chosen(Carrier.AUTO) is Carrier.RCLPY
