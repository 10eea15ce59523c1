"""Which carrier a node gets; that rclpy is made is tested in ``test_rclpy``."""

import sys

import pytest

from mobile_vla.core import ConfigError
from mobile_vla.ros.connect import chosen, connect
from mobile_vla.ros.dds import DdsTransport
from mobile_vla.ros.transport import Carrier, NodeConfig


def test_connect_uses_dds_where_cyclonedds_is_installed(domain):
    with connect(NodeConfig("here", domain=domain, localhost_only=True)) as transport:
        assert isinstance(transport, DdsTransport)


def test_a_library_that_cannot_be_loaded_is_named(domain, monkeypatch):
    monkeypatch.setitem(sys.modules, "mobile_vla.ros.dds", None)
    with pytest.raises(ConfigError, match="cyclonedds is installed but cannot be loaded"):
        connect(NodeConfig("here", domain=domain, localhost_only=True, carrier=Carrier.DDS))


def test_connect_refuses_to_remap_what_does_not_exist(domain):
    with pytest.raises(ConfigError, match="did you mean 'cmd_vel'"):
        connect(NodeConfig("here", domain=domain, localhost_only=True, remap={"cmdvel": "x"}))


@pytest.mark.parametrize(
    ("carrier", "installed", "sentence"),
    [
        (Carrier.AUTO, (), "neither cyclonedds nor rclpy"),
        (Carrier.DDS, ("rclpy",), "needs cyclonedds"),
        (Carrier.RCLPY, ("cyclonedds",), "needs ROS 2"),
    ],
)
def test_a_carrier_that_is_not_installed_is_refused_with_what_to_do(monkeypatch, carrier, installed, sentence):
    monkeypatch.setattr("mobile_vla.ros.connect._installed", lambda module: module in installed)
    with pytest.raises(ConfigError, match=sentence):
        chosen(carrier)
