"""Messages over DDS by pip: Cyclone DDS speaking ROS 2's wire format, where no ROS is installed."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from cyclonedds import _clayer
from cyclonedds.core import (
    DDSException,
    Entity,
    GuardCondition,
    InstanceState,
    Policy,
    Qos,
    ReadCondition,
    SampleState,
    ViewState,
    WaitSet,
)
from cyclonedds.domain import DomainParticipant
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic as WireTopic

from mobile_vla.core import NS_PER_S
from mobile_vla.ros import domain, graph, idl, naming, topics
from mobile_vla.ros.inbox import PROFILES, Inbox, Profile
from mobile_vla.ros.messages import TransportError, serialise, type_hash
from mobile_vla.ros.transport import NodeConfig, Received
from mobile_vla.ros.wired import WiredNode

_log = logging.getLogger(__name__)

WAIT_NS = 100_000_000
"""No wait in C is longer: Python's signal handlers and ``close`` come in between."""
_MAX_BLOCKING_NS = 20_000_000
_ANY = ViewState.Any | InstanceState.Any | SampleState.Any


class DdsTransport(WiredNode):
    """``transport.Transport`` over Cyclone DDS: one participant, and one thread in which the callbacks run.

    Nodes of one process share the DDS domain. ConfigError for names that ROS does not allow and for a domain that is
    not 0 to 232; TransportError where DDS cannot be opened.
    """

    def __init__(self, config: NodeConfig) -> None:
        super().__init__(config)
        self._domain = domain.number(config.domain)
        self._topics: dict[str, WireTopic[Any]] = {}
        self._publishers: dict[str, DdsPublisher] = {}
        self._subscriptions: list[_Subscription] = []
        domain.join_domain(self._domain, domain.localhost(config.localhost_only))
        try:
            self._open()
        except BaseException:
            domain.leave_domain(self._domain)
            raise
        self._start()

    def _open(self) -> None:
        try:
            user_data = Qos(Policy.Userdata(b"enclave=/;"))
            self._participant = DomainParticipant(self._domain, user_data)
            self._guid = self._participant.guid.bytes
            self._waitset, self._wake = WaitSet(self._participant), GuardCondition(self._participant)
            self._waitset.attach(self._wake)
            qos = _qos(Profile(1, latched=True), reliable=True, depth=1)
            self._node_list = DataWriter(
                self._participant, WireTopic(self._participant, graph.TOPIC, idl.struct(graph.TYPE)), qos
            )
            self._announce()
        except DDSException as error:
            raise TransportError(
                f"{self.node} cannot join DDS domain {self._domain} ({error}): are there more than 32 "
                "nodes on this machine, or is the network down?"
            ) from error

    def publisher(self, topic: topics.Topic) -> "DdsPublisher":
        """A writer of ``topic``; asked again, the same one. TransportError when closed or when DDS refuses it."""
        with self._lock:
            name = self._name(topic)
            if name not in self._publishers:
                profile = PROFILES[topic.qos]
                qos = _qos(profile, reliable=True, depth=profile.depth, hash_of=topic.type)
                writer = self._made(DataWriter, self._wire_topic(name, topic.type), qos, name)
                self._publishers[name] = DdsPublisher(name, topic.type, writer)
                self._announce()
            return self._publishers[name]

    def subscribe(
        self, topic: topics.Topic, callback: Callable[[Received], None], *, type_name: str | None = None
    ) -> None:
        """See ``Transport.subscribe``. TransportError when closed, or when the topic has another type here."""
        with self._lock:
            inbox = Inbox(self.node, self._name(topic), type_name or topic.type, topic, callback)
            qos = _qos(inbox.profile, reliable=inbox.profile.reads_reliably, depth=inbox.kept, hash_of=inbox.type_name)
            reader = self._made(DataReader, self._wire_topic(inbox.name, inbox.type_name), qos, inbox.name)
            self._subscriptions.append(_Subscription(inbox, reader))
            self._announce()
            self._wake.set(True)

    def received(self, topic: topics.Topic) -> int:
        """Messages taken, and those that DDS says were lost on the way.

        What a newer message pushes out of a full history is not told by DDS. Histories hold at least ``COUNTED``
        messages for that reason, except pictures': a flood shows as ``COUNTED`` messages a take.
        """
        name = self._name(topic)
        with self._lock:
            named = [subscription for subscription in self._subscriptions if subscription.inbox.name == name]
            return sum(subscription.received(self._closed) for subscription in named)

    @property
    def failures(self) -> int:
        """Messages that could not be read, and callbacks that raised."""
        return sum(subscription.inbox.failures for subscription in self._subscriptions)

    def _wake_up(self) -> None:
        self._wake.set(True)

    def _leave(self, until: float) -> None:
        for subscription in self._subscriptions:
            subscription.note_lost()
        self._write_node_list(graph.node_list(self._guid, None, (), ()))
        for writer in (self._node_list, *(publisher.release() for publisher in self._publishers.values())):
            _wait_for_acks(writer, max(0, round((until - time.monotonic()) * NS_PER_S)))
        domain.delete(self._participant)
        domain.leave_domain(self._domain)

    def _wire_topic(self, name: str, type_name: str) -> "WireTopic[Any]":
        if self._closed:
            raise TransportError(f"{self.node} is closed: {name} cannot be opened any more")
        known = self._topics.get(name)
        if known is not None and known.data_type is not idl.struct(type_name):
            raise TransportError(f"{name} is already open with another type than {type_name} in {self.node}")
        if known is None:
            known = self._made(WireTopic, naming.wire_topic(name), idl.struct(type_name), name)
            self._topics[name] = known
        return known

    def _made(self, kind: Any, first: Any, second: Any, name: str) -> Any:
        try:
            return kind(self._participant, first, second)
        except DDSException as error:
            raise TransportError(f"DDS refuses {name} in {self.node} ({error})") from error

    def _announce(self) -> None:
        readers = [subscription.reader.guid.bytes for subscription in self._subscriptions]
        writers = [publisher.guid for publisher in self._publishers.values()]
        self._write_node_list(graph.node_list(self._guid, self.node, readers, writers))

    def _write_node_list(self, data: bytes) -> None:
        if _write(self._node_list, data) < 0:
            _log.warning("%s could not write its entry in the ROS graph", self.node)

    def _serve(self) -> None:
        """Wait for messages and hand them on. A topic that was taken rests outside the wait set until it is due."""
        waiting: set[_Subscription] = set()
        while not self._closed:
            now_ns = time.monotonic_ns()
            with self._lock:
                subscriptions = list(self._subscriptions)
            timeout_ns = WAIT_NS
            for subscription in subscriptions:
                if subscription.inbox.due_ns > now_ns:
                    timeout_ns = min(timeout_ns, subscription.inbox.due_ns - now_ns)
                elif subscription not in waiting:
                    self._waitset.attach(subscription.condition)
                    waiting.add(subscription)
            self._waitset.wait(timeout_ns)
            self._wake.take()
            for subscription in list(waiting):
                came = subscription.deliver(lambda: self._closed)
                if self._closed:  # perhaps by the callback, and then all of DDS is gone
                    return
                if came:
                    self._waitset.detach(subscription.condition)
                    waiting.discard(subscription)


class DdsPublisher:
    """``transport.Publisher`` over one DDS writer."""

    def __init__(self, name: str, type_name: str, writer: "DataWriter[Any]") -> None:
        self._name, self._type_name = name, type_name
        self._lock = threading.Lock()
        self._writer: DataWriter[Any] | None = writer
        self.guid: bytes = writer.guid.bytes

    @property
    def readers(self) -> int:
        """How many read it now, on this machine and others; 0 once closed."""
        with self._lock:
            if self._writer is None:
                return 0
            return int(_status(self._writer.get_publication_matched_status).current_count)

    def publish(self, message: Any) -> None:
        """Serialise and write. TransportError when closed, when the message is not of the type, or DDS refuses it."""
        data = serialise(self._type_name, message)
        with self._lock:
            if self._writer is None:
                raise TransportError(f"{self._name} is closed: nothing can be published on it any more")
            code = _write(self._writer, data)
        if code < 0:
            raise TransportError(f"DDS did not take a message of {len(data)} bytes for {self._name} (code {code})")

    def release(self) -> "DataWriter[Any]":
        """End publishing; gives the writer for the farewell."""
        with self._lock:
            assert self._writer is not None
            writer, self._writer = self._writer, None
            return writer


class _Subscription:
    """A reader and the inbox that it fills."""

    def __init__(self, inbox: Inbox, reader: "DataReader[Any]") -> None:
        self.inbox, self.reader = inbox, reader
        self.condition = ReadCondition(reader, _ANY)
        self._lost = 0

    def deliver(self, closed: Callable[[], bool]) -> bool:
        """Take what came and hand it on; tells whether anything came."""
        found = _clayer.ddspy_take(self.reader._ref, _ANY, self.inbox.kept)
        if isinstance(found, int):
            raise TransportError(f"DDS cannot read {self.inbox.name} (code {found})")
        if found:
            self.inbox.hand_on([data for data, info in found if info.valid_data], closed)
        return bool(found)

    def note_lost(self) -> None:
        """Remember what DDS lost, for when the reader is gone."""
        self._lost = int(_status(self.reader.get_sample_lost_status).total_count)

    def received(self, closed: bool) -> int:
        """Taken and lost."""
        if not closed:
            self.note_lost()
        return self.inbox.taken + self._lost


def _status(getter: Callable[..., Any]) -> Any:
    return getter()


def _wait_for_acks(writer: "DataWriter[Any]", timeout_ns: int) -> None:
    """Wait until every reader has what was written; one that does not answer, or is lost, holds nobody up."""
    try:
        writer.wait_for_acks(timeout_ns)
    except (AttributeError, DDSException) as error:  # AttributeError: how cyclonedds 0.10 to 11.0 says "timeout"
        _log.debug("not everybody has acknowledged: %s", error)


def _write(writer: Entity, data: bytes) -> int:
    return int(_clayer.ddspy_write(writer._ref, data.ljust(-(-len(data) // 4) * 4, b"\0")))


def _qos(profile: Profile, *, reliable: bool, depth: int, hash_of: str | None = None) -> Qos:
    """QoS of an endpoint, as rmw makes it: XCDR1, keyless, the type's hash (REP-2016) in its user data."""
    policies = [
        Policy.Reliability.Reliable(_MAX_BLOCKING_NS) if reliable else Policy.Reliability.BestEffort,
        Policy.Durability.TransientLocal if profile.latched else Policy.Durability.Volatile,
        Policy.History.KeepLast(depth),
        Policy.DataRepresentation(use_cdrv0_representation=True),
        Policy.WriterDataLifecycle(autodispose=False),
    ]
    if hash_of is not None:
        policies.append(Policy.Userdata(f"typehash={type_hash(hash_of)};".encode()))
    return Qos(*policies)
