"""DdsTransport: the protocol, what it puts on the wire, and what it survives."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from cyclonedds import _clayer
from cyclonedds.builtin import BuiltinDataReader, BuiltinTopicDcpsParticipant, BuiltinTopicDcpsPublication
from cyclonedds.core import Policy, Qos
from cyclonedds.domain import DomainParticipant
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic as WireTopic

from mobile_vla.core import ConfigError, Frame, Twist
from mobile_vla.ros import dds, graph, idl, messages, topics
from mobile_vla.ros.dds import DdsTransport
from mobile_vla.ros.messages import TransportError
from mobile_vla.ros.transport import NodeConfig

from .conformance import LONG_S, SPEED, STATE, WORDS, Heard, TransportConformance, eventually


class TestDds(TransportConformance):
    def connect(self, config):
        return DdsTransport(config)

    def write_bytes(self, transport, topic, data):
        assert dds._write(transport.publisher(topic)._writer, data) == 0

    def test_endpoints_look_as_those_of_ros(self, make, domain, namespace):
        transport = make("seen")
        transport.publisher(SPEED)
        transport.publisher(STATE)
        found = self._endpoints(domain, f"rt{namespace}/", 2)
        by_name = {sample.topic_name: sample for sample in found}
        speed, state = by_name[f"rt{namespace}/speed"], by_name[f"rt{namespace}/state"]
        assert speed.type_name == "geometry_msgs::msg::dds_::Twist_"
        assert speed.qos[Policy.Reliability.Reliable] is not None
        assert speed.qos[Policy.Durability.Volatile] is not None
        assert speed.qos[Policy.History.KeepLast].depth == 1
        assert speed.qos[Policy.Userdata].data == f"typehash={messages.type_hash(SPEED.type)};".encode()
        assert state.qos[Policy.Durability.TransientLocal] is not None

    def test_the_participant_has_an_enclave(self, make, domain):
        make("enclave")
        watcher = DomainParticipant(domain)
        reader = BuiltinDataReader(watcher, BuiltinTopicDcpsParticipant)
        seen = []

        def found() -> bool:
            seen.extend(sample.qos for sample in reader.take(N=100))
            return any(Policy.Userdata in qos and qos[Policy.Userdata].data == b"enclave=/;" for qos in seen)

        assert eventually(found)

    def _endpoints(self, domain, prefix, count):
        watcher = DomainParticipant(domain)
        reader = BuiltinDataReader(watcher, BuiltinTopicDcpsPublication)
        found = {}

        def all_there() -> bool:
            for sample in reader.take(N=1000):
                if sample.topic_name.startswith(prefix):
                    found[sample.topic_name] = sample
            return len(found) == count

        assert eventually(all_there)
        return list(found.values())

    def test_the_node_list_names_the_node_and_its_endpoints_and_is_empty_after_it(self, make, domain, namespace):
        make("staying")  # the last node to leave takes the domain with it, and with that our reader
        transport = make("listed")
        publisher = transport.publisher(WORDS)
        transport.subscribe(STATE, print)
        participant = DomainParticipant(domain)
        latched = Qos(
            Policy.Reliability.Reliable(0), Policy.Durability.TransientLocal, Policy.History.KeepLast(100),
            Policy.DataRepresentation(use_cdrv0_representation=True),
        )  # fmt: skip
        reader = DataReader(participant, WireTopic(participant, graph.TOPIC, idl.struct(graph.TYPE)), latched)
        lists = {}

        def update() -> None:
            for data, info in _clayer.ddspy_take(reader._ref, dds._ANY, 100):
                if info.valid_data:
                    message = messages.deserialise(graph.TYPE, data)
                    lists[bytes(message.gid.data)] = message.node_entities_info_seq

        own = transport._guid

        def entry():
            update()
            return lists.get(own)

        assert eventually(lambda: bool(entry()) and len(entry()[0].reader_gid_seq) == 1)
        (node,) = entry()
        assert (node.node_namespace, node.node_name) == (namespace, "listed")
        assert [bytes(gid.data) for gid in node.writer_gid_seq] == [publisher.guid]
        transport.close()
        assert eventually(lambda: entry() == [])

    def test_nodes_of_one_process_share_one_domain_and_must_agree_about_it(self, make):
        make("confined")
        with pytest.raises(ConfigError, match="localhost_only=True"):
            make("everywhere", localhost_only=False)

    def test_a_domain_is_free_again_when_all_have_left(self, make):
        make("first").close()
        make("second", localhost_only=False).close()
        make("third")

    @pytest.mark.parametrize(
        ("variable", "value"), [(None, 233), (None, -1), ("ROS_DOMAIN_ID", "ten"), ("ROS_DOMAIN_ID", "-3")]
    )
    def test_a_domain_that_is_none_is_refused(self, make, monkeypatch, variable, value):
        if variable:
            monkeypatch.setenv(variable, value)
        with pytest.raises(ConfigError, match="whole number from 0 to 232"):
            make(domain=None if variable else value)

    def test_the_domain_and_the_network_come_from_roses_variables(self, make, monkeypatch, domain):
        monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
        monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        writer, reader, heard = make("a", domain=None, localhost_only=None), make("b"), Heard()
        reader.subscribe(WORDS, heard)
        assert writer.wait_for_readers(WORDS, 1, LONG_S)

    def test_a_configuration_that_does_not_exist_is_named(self, make, monkeypatch):
        monkeypatch.setenv("CYCLONEDDS_URI", "file:///there/is/none.xml")
        with pytest.raises(TransportError, match="check CYCLONEDDS_URI"):
            make(domain=100)

    def test_a_topic_has_one_type_in_a_node(self, make):
        transport = make()
        transport.publisher(SPEED)
        with pytest.raises(TransportError, match="already open with another type"):
            transport.subscribe(SPEED, print, type_name="geometry_msgs/msg/TwistStamped")

    def test_humble_is_spoken_to_in_longer_ids(self, make, monkeypatch, caplog):
        short = graph.node_list(bytes(16), "/a", [bytes(16)], [])
        monkeypatch.setenv("ROS_DISTRO", "humble")
        writer, reader, heard = make("a"), make("b"), Heard()
        reader.subscribe(WORDS, heard)
        assert writer.wait_for_readers(WORDS, 1, LONG_S)
        assert not caplog.text
        assert len(graph.node_list(bytes(16), "/a", [bytes(16)], [])) == len(short) + 16

    def test_a_flood_is_counted_and_its_work_is_bounded(self, pair):
        writer, reader = pair
        heard = Heard()
        reader.subscribe(WORDS, heard)
        publisher = writer.publisher(WORDS)
        assert writer.wait_for_readers(WORDS, 1, LONG_S)
        began, sent = time.monotonic(), 0
        while time.monotonic() - began < 1.0:
            publisher.publish(messages.string(str(sent)))
            sent += 1
        assert eventually(lambda: heard.words[-1:] == [str(sent - 1)])
        spent_s = time.monotonic() - began
        takes = 1 + 50 * spent_s
        assert len(heard.all) <= 10 * takes  # as many as the topic keeps, each time
        assert len(heard.all) <= reader.received(WORDS) <= 20 * takes
        assert reader.received(WORDS) >= min(sent, 100)

    def test_one_slow_topic_does_not_lose_the_state_of_another(self, pair):
        writer, reader = pair
        heard, slow = Heard(), Heard()
        reader.subscribe(SPEED, lambda received: (time.sleep(0.05), slow(received)))
        reader.subscribe(STATE, heard)
        for topic in (SPEED, STATE):
            assert writer.wait_for_readers(topic, 1, LONG_S)
        for number in range(20):
            writer.publisher(SPEED).publish(messages.twist(Twist(float(number), 0.0, 0.0)))
            writer.publisher(STATE).publish(messages.string(str(number)))
        assert eventually(lambda: heard.words[-1:] == ["19"])


def _send_images(config: NodeConfig, count: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    with DdsTransport(config) as transport:
        publisher = transport.publisher(topics.IMAGE)
        assert transport.wait_for_readers(topics.IMAGE, 1, LONG_S)
        for number in range(count):
            publisher.publish(messages.image_message(Frame(pixels, 0, "monotonic", "front", number), number, "camera"))
            time.sleep(0.02)


def test_raw_images_come_from_another_process_whole(domain, namespace):
    config = NodeConfig("sender", namespace, domain=domain, localhost_only=True)
    heard = Heard()
    with DdsTransport(NodeConfig("eye", namespace, domain=domain, localhost_only=True)) as reader:
        reader.subscribe(topics.IMAGE, heard)
        sender = multiprocessing.get_context("spawn").Process(target=_send_images, args=(config, 30))
        sender.start()
        sender.join(60)
        assert sender.exitcode == 0
        assert eventually(lambda: len(heard.all) >= 1)
        assert reader.failures == 0
    expected = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    for received in heard.all:
        np.testing.assert_array_equal(messages.pixels_from_image(received.message), expected)


def _read(config: NodeConfig, ready) -> None:
    transport = DdsTransport(config)
    transport.subscribe(WORDS, lambda received: None)
    ready.set()
    time.sleep(120)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_reader_that_dies_or_hangs_delays_no_writer_and_is_forgotten(domain, namespace, how):
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Event()
    config = NodeConfig("reader", namespace, domain=domain, localhost_only=True)
    process = spawn.Process(target=_read, args=(config, ready), daemon=True)
    process.start()
    try:
        with DdsTransport(NodeConfig("writer", namespace, domain=domain, localhost_only=True)) as writer:
            publisher = writer.publisher(WORDS)
            assert ready.wait(60)
            assert writer.wait_for_readers(WORDS, 1, LONG_S)
            os.kill(process.pid, how)
            began = time.monotonic()
            for number in range(100):
                publisher.publish(messages.string("x" * 10_000 + str(number)))
            assert time.monotonic() - began < 10  # a writer that waits takes 100 times its blocking time, or for ever
            assert eventually(lambda: publisher.readers == 0)  # after the lease of 3 s
    finally:
        process.kill()
        process.join()
        process.close()


def test_a_reader_that_hangs_while_a_writer_closes_is_waited_for_no_longer_than_allowed(domain, namespace):
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Event()
    config = NodeConfig("reader", namespace, domain=domain, localhost_only=True)
    process = spawn.Process(target=_read, args=(config, ready), daemon=True)
    process.start()
    try:
        writer = DdsTransport(NodeConfig("writer", namespace, domain=domain, localhost_only=True))
        publisher = writer.publisher(WORDS)
        assert ready.wait(60)
        assert writer.wait_for_readers(WORDS, 1, LONG_S)
        os.kill(process.pid, signal.SIGSTOP)
        publisher.publish(messages.string("nobody will ever acknowledge this"))
        writer.close()
    finally:
        process.kill()
        process.join()
        process.close()


def test_a_process_that_forgets_to_close_ends_quietly(domain):
    program = (
        "from mobile_vla.ros.dds import DdsTransport; from mobile_vla.ros.transport import NodeConfig\n"
        f"t = DdsTransport(NodeConfig('careless', domain={domain}, localhost_only=True))\n"
        "from mobile_vla.ros import topics; t.subscribe(topics.CMD_VEL, print); t.publisher(topics.ODOM)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_forked_process_is_told_to_spawn(domain):
    program = (
        "import os, sys\n"
        "from mobile_vla.ros.dds import DdsTransport; from mobile_vla.ros.transport import NodeConfig\n"
        f"config = NodeConfig('parent', domain={domain}, localhost_only=True)\n"
        "t = DdsTransport(config)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    try: DdsTransport(config)\n"
        "    except Exception as error: print(error, flush=True)\n"
        "    sys.exit(0)\n"
        "os.waitpid(child, 0)\n"
        "t.close()\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert "DDS does not outlive a fork" in done.stdout
