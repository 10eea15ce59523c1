"""Types as Cyclone DDS wants them: all of ROS 2's are made, and read our bytes as we do."""

import pytest
from rosbags.interfaces import Nodetype

from mobile_vla.core import Twist
from mobile_vla.ros import idl, messages, topics
from mobile_vla.ros.messages import TransportError

WIDE = {"wstring", "float128"}  # no message of common_interfaces has them


def _bases(kind) -> set[str]:
    sort, rest = kind
    if sort == Nodetype.NAME:
        return set().union(*(_bases(inner) for _, inner in messages.TYPES.fielddefs[rest][1]))
    return {rest[0]} if sort == Nodetype.BASE else _bases(rest[0])


def test_every_type_of_the_store_has_a_struct():
    made = 0
    for name, (_, fields) in messages.TYPES.fielddefs.items():
        if not set().union(*(_bases(kind) for _, kind in fields)) & WIDE:
            struct = idl.struct(name)
            assert struct.__idl_typename__.replace(".", "::") == idl.naming.wire_type(name)
            made += 1
    assert made >= 160


def test_cyclones_own_reading_agrees_with_ours():
    data = messages.serialise(
        topics.ODOM.type, messages.odometry(Twist(1.5, -2.5, 0.25), (3.0, 4.0, 0.0), 7_000_000_009)
    )
    read = idl.struct(topics.ODOM.type).deserialize(data)
    assert (read.header.stamp.sec, read.header.stamp.nanosec, read.header.frame_id) == (7, 9, "odom")
    assert (read.twist.twist.linear.x, read.twist.twist.linear.y, read.twist.twist.angular.z) == (1.5, -2.5, 0.25)
    assert (read.pose.pose.position.x, read.pose.pose.orientation.w, len(read.pose.covariance)) == (3.0, 1.0, 36)


def test_a_type_that_nobody_knows_is_refused():
    with pytest.raises(TransportError, match="'a/msg/B' is not a message type"):
        idl.struct("a/msg/B")
