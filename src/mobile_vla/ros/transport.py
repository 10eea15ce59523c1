"""What carries messages: one small protocol, implemented over DDS by pip (``dds``) and over ``rclpy`` (``rclpy_``).

Both pass CDR bytes that ``messages`` makes and reads, so what a node says does not depend on what carries it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from mobile_vla.core.backports import StrEnum
from mobile_vla.ros.topics import Topic


class Carrier(StrEnum):
    """How messages travel; AUTO is rclpy where ROS 2 is sourced and the DDS library cannot be imported."""

    AUTO = "auto"
    DDS = "dds"
    RCLPY = "rclpy"


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """``name``: of the node in the ROS graph. ``namespace``: "/" or "/robot_1", before every relative topic name.

    ``remap``: relative names of the table to other names. ``domain``: None reads ROS_DOMAIN_ID, else 0.
    ``localhost_only``: nothing leaves this machine (ROS_LOCALHOST_ONLY, or ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST).
    """

    name: str
    namespace: str = "/"
    remap: Mapping[str, str] = field(default_factory=dict)
    domain: int | None = None
    localhost_only: bool | None = None
    carrier: Carrier = Carrier.AUTO


@dataclass(frozen=True, slots=True)
class Received:
    """One message and when it came. ``received_ns`` is on this process's monotonic clock (``MonotonicClock``)."""

    message: Any
    received_ns: int


class Publisher(Protocol):
    """Writes one topic; any thread may."""

    @property
    def readers(self) -> int:
        """How many read it now."""
        ...

    def publish(self, message: Any) -> None:
        """Serialise and write a message of ``messages``. TransportError when the transport is closed or refuses it."""
        ...


class Transport(Protocol):
    """One node on the wire. Callbacks run one at a time, in a thread of the transport's own."""

    @property
    def node(self) -> str:
        """The full name, e.g. "/robot_1/control"."""
        ...

    def publisher(self, topic: Topic) -> Publisher:
        """A writer of ``topic``, under its name after namespace and remapping."""
        ...

    def subscribe(self, topic: Topic, callback: Callable[[Received], None], *, type_name: str | None = None) -> None:
        """Call ``callback`` with every message that is kept. ``type_name`` where it differs from the table's.

        Work is bounded whatever others send: a topic is taken at most 50 times a second, or twice its nominal rate
        where that is more, and each time at most as many messages as its QoS keeps are handed on. An error in a
        callback is logged, counted in ``failures``, and ends nothing.
        """
        ...

    def received(self, topic: Topic) -> int:
        """Messages of ``topic`` that came so far, with those dropped unread as far as the transport can tell."""
        ...

    @property
    def failures(self) -> int:
        """Messages that could not be read, and callbacks that raised."""
        ...

    def wait_for_readers(self, topic: Topic, count: int, timeout_s: float) -> bool:
        """Wait until ``topic``, which this node writes, has that many readers; tells whether it has."""
        ...

    def close(self) -> None:
        """Leave the graph politely (empty node list, acknowledgements for at most 300 ms). Closed twice is closed."""
        ...
