"""Nodes, publishers and subscriptions in one process; matched by name, type, domain and QoS as in DDS."""

import threading
from collections import deque

from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

_lock = threading.Condition()
_ends = []


class _End:
    def __init__(self, node, msg_type, topic, qos_profile) -> None:
        self.node, self.msg_type, self.topic, self.qos = node, msg_type, topic, qos_profile
        self.kept = deque(maxlen=qos_profile.depth)
        with _lock:
            _ends.append(self)

    def matches(self, other) -> bool:
        return (
            self.topic == other.topic
            and self.msg_type is other.msg_type
            and self.node.context.domain_id == other.node.context.domain_id
        )


class Publisher(_End):
    def publish(self, msg) -> None:
        if not isinstance(msg, bytes):
            raise TypeError("Expected <class bytes>")
        with _lock:
            self.kept.append(msg)
            for reader in self._readers():
                reader.kept.append(msg)
            _lock.notify_all()

    def get_subscription_count(self) -> int:
        with _lock:
            return len(self._readers())

    def wait_for_all_acked(self, timeout) -> bool:
        return True

    def offers(self, reader) -> bool:
        best_effort = self.qos.reliability is ReliabilityPolicy.BEST_EFFORT
        volatile = self.qos.durability is DurabilityPolicy.VOLATILE
        return not (best_effort and reader.qos.reliability is ReliabilityPolicy.RELIABLE) and not (
            volatile and reader.qos.durability is DurabilityPolicy.TRANSIENT_LOCAL
        )

    def _readers(self):
        return [e for e in _ends if isinstance(e, Subscription) and e.matches(self) and self.offers(e)]


class Subscription(_End):
    def __init__(self, node, msg_type, topic, callback, qos_profile, raw) -> None:
        assert raw, "without raw, rclpy makes messages of its own"
        self.callback = callback
        super().__init__(node, msg_type, topic, qos_profile)
        if qos_profile.durability is DurabilityPolicy.TRANSIENT_LOCAL:
            with _lock:
                for writer in _ends:
                    if isinstance(writer, Publisher) and writer.matches(self) and writer.offers(self):
                        self.kept.extend(writer.kept)
                _lock.notify_all()


class Node:
    def __init__(self, node_name, *, context, namespace) -> None:
        self.context, self.name, self.namespace = context, node_name, namespace

    def create_publisher(self, msg_type, topic, qos_profile):
        return Publisher(self, msg_type, topic, qos_profile)

    def create_subscription(self, msg_type, topic, callback, qos_profile, *, raw: bool = False):
        return Subscription(self, msg_type, topic, callback, qos_profile, raw)

    def destroy_node(self) -> None:
        with _lock:
            _ends[:] = [end for end in _ends if end.node is not self]
