"""The entry of a node in the ROS graph; that others read it is tested in ``test_dds`` and ``test_fastdds``."""

import pytest
from rosbags.typesys import Stores, get_typestore

from mobile_vla.ros import graph

HUMBLE, JAZZY = get_typestore(Stores.ROS2_HUMBLE), get_typestore(Stores.ROS2_JAZZY)
OWN, READER, WRITER = bytes(range(16)), bytes(range(16, 32)), bytes(range(32, 48))


@pytest.mark.parametrize(
    ("distro", "store", "padding"), [("humble", HUMBLE, 8), ("jazzy", JAZZY, 0), ("", JAZZY, 0), (None, JAZZY, 0)]
)
def test_a_node_and_its_endpoints_are_named_with_ids_of_the_ros_in_use(monkeypatch, distro, store, padding):
    if distro is None:
        monkeypatch.delenv("ROS_DISTRO", raising=False)
    else:
        monkeypatch.setenv("ROS_DISTRO", distro)
    message = store.deserialize_cdr(graph.node_list(OWN, "/robot/arm/control", [READER], [WRITER]), graph.TYPE)
    (node,) = message.node_entities_info_seq
    assert (node.node_namespace, node.node_name) == ("/robot/arm", "control")
    assert bytes(message.gid.data) == OWN + bytes(padding)
    assert [bytes(gid.data) for gid in node.reader_gid_seq] == [READER + bytes(padding)]
    assert [bytes(gid.data) for gid in node.writer_gid_seq] == [WRITER + bytes(padding)]


def test_a_node_without_a_namespace_is_in_the_root():
    (node,) = JAZZY.deserialize_cdr(graph.node_list(OWN, "/control", [], []), graph.TYPE).node_entities_info_seq
    assert (node.node_namespace, node.node_name) == ("/", "control")


def test_who_leaves_has_no_node_left():
    message = JAZZY.deserialize_cdr(graph.node_list(OWN, None, [], []), graph.TYPE)
    assert message.node_entities_info_seq == []
