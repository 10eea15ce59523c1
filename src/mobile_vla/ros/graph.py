"""Who is there: the message by which ROS 2 tools learn a node's name, and which endpoints are its own.

Every participant writes ``ros_discovery_info`` (package rmw_dds_common) after each change of its endpoints. The ids in
it are DDS GUIDs of 16 bytes, padded with zeros to 24 up to ROS 2 Humble.
"""

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from rosbags.typesys import Stores, get_typestore

TOPIC = "ros_discovery_info"
"""Its name on the wire: it has no prefix, as it is no topic of any node."""
TYPE = "rmw_dds_common/msg/ParticipantEntitiesInfo"
_LONG_IDS = ("foxy", "galactic", "humble")


def long_ids() -> bool:
    """The ROS 2 in use (ROS_DISTRO) pads ids to 24 bytes; without one, or from Iron on, they have 16."""
    return os.environ.get("ROS_DISTRO", "") in _LONG_IDS


def node_list(participant: bytes, node: str | None, readers: Iterable[bytes], writers: Iterable[bytes]) -> bytes:
    """CDR of the list of nodes on one participant: ``node`` (full name) with its endpoints' GUIDs, or none at all."""
    size, store = (24, Stores.ROS2_HUMBLE) if long_ids() else (16, Stores.ROS2_JAZZY)
    types = get_typestore(store)
    gid: Any = types.types["rmw_dds_common/msg/Gid"]
    entities: Any = types.types["rmw_dds_common/msg/NodeEntitiesInfo"]
    whole: Any = types.types[TYPE]

    def padded(guid: bytes) -> Any:
        return gid(np.frombuffer(guid.ljust(size, b"\0"), np.uint8))

    nodes = []
    if node is not None:
        namespace, _, name = node.rpartition("/")
        nodes = [entities(namespace or "/", name, [padded(r) for r in readers], [padded(w) for w in writers])]
    return bytes(types.serialize_cdr(whole(padded(participant), nodes), TYPE, little_endian=True))
