"""Messages over rclpy, where ROS 2 is sourced: the same bytes, carried by whatever RMW is in use there.

rclpy is imported when a transport is made, because it comes with ROS 2 and not from PyPI. The calls used are those of
Humble (rclpy 3.3) and later.
"""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from mobile_vla.core import NS_PER_S
from mobile_vla.ros import naming, topics
from mobile_vla.ros.inbox import COUNTED, PROFILES, Inbox, Profile
from mobile_vla.ros.messages import TransportError, serialise
from mobile_vla.ros.transport import NodeConfig, Received
from mobile_vla.ros.wired import WiredNode

_log = logging.getLogger(__name__)

WAIT_S = 0.1
"""No wait in C is longer: ``close`` comes in between."""
ROUND_S = 0.01
"""Time between two rounds of taking messages out of rclpy, when there are any."""


class RclpyTransport(WiredNode):
    """``transport.Transport`` over rclpy: a context and a node of its own, and one thread in which callbacks run.

    ConfigError for names that ROS does not allow; TransportError where rclpy cannot make the node. ``localhost_only``
    sets ROS_AUTOMATIC_DISCOVERY_RANGE or, up to Humble, ROS_LOCALHOST_ONLY in this process, which is how ROS is told.
    """

    def __init__(self, config: NodeConfig) -> None:
        import rclpy
        from rclpy.context import Context
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.signals import SignalHandlerOptions

        super().__init__(config)
        if config.localhost_only is not None:
            _confine(config.localhost_only)
        self._publishers: dict[str, RclpyPublisher] = {}
        self._subscriptions: list[_Subscription] = []
        self._context = Context()
        try:
            rclpy.init(
                args=[],
                context=self._context,
                domain_id=config.domain,
                signal_handler_options=SignalHandlerOptions.NO,
            )
            self._rclpy_node = rclpy.create_node(
                config.name,
                namespace=naming.namespace_of(config.namespace),
                context=self._context,
                start_parameter_services=False,
                enable_rosout=False,
            )
            self._executor = SingleThreadedExecutor(context=self._context)
            self._executor.add_node(self._rclpy_node)
        except Exception as error:
            raise TransportError(f"rclpy cannot make the node {self.node}: {error}") from error
        self._start()

    def publisher(self, topic: topics.Topic) -> "RclpyPublisher":
        """A writer of ``topic``; asked again, the same one. TransportError when closed or when ROS refuses it."""
        with self._lock:
            name = self._name(topic)
            if name not in self._publishers:
                profile = PROFILES[topic.qos]
                writer = self._made(
                    "create_publisher", topic.type, name, qos_profile=_qos(profile, reliable=True, depth=profile.depth)
                )
                self._publishers[name] = RclpyPublisher(name, topic.type, writer)
            return self._publishers[name]

    def subscribe(
        self, topic: topics.Topic, callback: Callable[[Received], None], *, type_name: str | None = None
    ) -> None:
        """See ``Transport.subscribe``. TransportError when closed, or when the type is not installed."""
        with self._lock:
            inbox = Inbox(self.node, self._name(topic), type_name or topic.type, topic, callback)
            subscription = _Subscription(inbox)
            self._made(
                "create_subscription",
                inbox.type_name,
                inbox.name,
                callback=subscription.arrived,
                qos_profile=_qos(inbox.profile, reliable=inbox.profile.reads_reliably, depth=inbox.kept),
                raw=True,
            )
            self._subscriptions.append(subscription)

    def received(self, topic: topics.Topic) -> int:
        """Messages that rclpy passed on; rclpy does not tell what was pushed out of a full history before."""
        name = self._name(topic)
        with self._lock:
            return sum(subscription.count for subscription in self._subscriptions if subscription.inbox.name == name)

    @property
    def failures(self) -> int:
        """Messages that could not be read, and callbacks that raised."""
        return sum(subscription.inbox.failures for subscription in self._subscriptions)

    def _wake_up(self) -> None:
        self._executor.wake()

    def _leave(self, until: float) -> None:
        import rclpy

        for publisher in self._publishers.values():
            publisher.release(until)
        self._executor.shutdown(timeout_sec=0)
        self._rclpy_node.destroy_node()
        rclpy.shutdown(context=self._context)

    def _made(self, maker: str, type_name: str, name: str, **settings: Any) -> Any:
        from rosidl_runtime_py.utilities import get_message

        if self._closed:
            raise TransportError(f"{self.node} is closed: {name} cannot be opened any more")
        try:
            kind = get_message(type_name)
        except (ImportError, AttributeError, ValueError) as error:
            package = type_name.partition("/")[0].replace("_", "-")
            raise TransportError(
                f"ROS has no {type_name} here: install it (apt-get install ros-$ROS_DISTRO-{package})"
            ) from error
        try:
            return getattr(self._rclpy_node, maker)(kind, name, **settings)
        except Exception as error:
            raise TransportError(f"ROS refuses {name} in {self.node}: {error}") from error

    def _serve(self) -> None:
        """Take messages out of rclpy in rounds, each of bounded length, and hand them on when their topic is due."""
        while not self._closed:
            began = time.monotonic()
            with self._lock:
                subscriptions = list(self._subscriptions)
            pending = [subscription for subscription in subscriptions if subscription.pending]
            due_s = min((subscription.inbox.due_ns / NS_PER_S - began for subscription in pending), default=WAIT_S)
            before = _count(subscriptions)
            self._executor.spin_once(timeout_sec=min(WAIT_S, max(0.0, due_s)))
            for _ in range(COUNTED * len(subscriptions)):
                if self._closed or _count(subscriptions) == before:
                    break
                before = _count(subscriptions)
                self._executor.spin_once(timeout_sec=0)
            for subscription in subscriptions:
                if subscription.pending and subscription.inbox.due_ns <= time.monotonic_ns():
                    subscription.deliver(lambda: self._closed)
            if not self._closed and any(subscription.pending for subscription in subscriptions):
                time.sleep(max(0.0, began + ROUND_S - time.monotonic()))


class RclpyPublisher:
    """``transport.Publisher`` over one publisher of rclpy."""

    def __init__(self, name: str, type_name: str, writer: Any) -> None:
        self._name, self._type_name = name, type_name
        self._lock = threading.Lock()
        self._writer: Any | None = writer

    @property
    def readers(self) -> int:
        """How many read it now, on this machine and others; 0 once closed."""
        with self._lock:
            return 0 if self._writer is None else int(self._writer.get_subscription_count())

    def publish(self, message: Any) -> None:
        """Serialise and write. TransportError when closed, when the message is not of the type, or ROS refuses it."""
        data = serialise(self._type_name, message)
        with self._lock:
            if self._writer is None:
                raise TransportError(f"{self._name} is closed: nothing can be published on it any more")
            try:
                self._writer.publish(data)
            except Exception as error:
                raise TransportError(
                    f"ROS did not take a message of {len(data)} bytes for {self._name}: {error}"
                ) from error

    def release(self, until: float) -> None:
        """End publishing; wait for acknowledgements until ``until`` on the monotonic clock."""
        from rclpy.duration import Duration

        with self._lock:
            writer, self._writer = self._writer, None
            if writer is not None:
                writer.wait_for_all_acked(Duration(nanoseconds=max(0, round((until - time.monotonic()) * NS_PER_S))))


class _Subscription:
    """What rclpy passed on and what was not handed on yet."""

    def __init__(self, inbox: Inbox) -> None:
        self.inbox = inbox
        self.count = 0
        self.pending: deque[bytes] = deque(maxlen=inbox.profile.depth)

    def arrived(self, data: bytes) -> None:
        """Called by rclpy with the CDR of one message."""
        self.count += 1
        self.pending.append(data)

    def deliver(self, closed: Callable[[], bool]) -> None:
        """Hand on what is pending."""
        samples = list(self.pending)
        self.pending.clear()
        self.inbox.hand_on(samples, closed)


def _count(subscriptions: list[_Subscription]) -> int:
    return sum(subscription.count for subscription in subscriptions)


def _qos(profile: Profile, *, reliable: bool, depth: int) -> Any:
    from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if profile.latched else DurabilityPolicy.VOLATILE,
    )


def _confine(localhost_only: bool) -> None:
    if os.environ.get("ROS_DISTRO", "") in ("foxy", "galactic", "humble"):
        os.environ["ROS_LOCALHOST_ONLY"] = "1" if localhost_only else "0"
    else:
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST" if localhost_only else "SUBNET"
