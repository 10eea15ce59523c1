"""Our topics read and written by a program that we share no code with: Fast DDS in C++, with ROS 2's names.

The peer (``fastdds_peer/peer.cpp``) is built by the test where a compiler is present. On Debian and Ubuntu it needs the
packages g++ and libfastrtps-dev.
"""

import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest

from mobile_vla.core import Frame, Twist
from mobile_vla.ros import graph, messages, naming, topics
from mobile_vla.ros.dds import DdsTransport
from mobile_vla.ros.topics import Qos, Topic
from mobile_vla.ros.transport import NodeConfig

from .conformance import LONG_S, Heard, eventually

SOURCE = Path(__file__).parent / "fastdds_peer" / "peer.cpp"
HEADER = Path("/usr/include/fastdds/dds/domain/DomainParticipant.hpp")

if shutil.which("g++") is None or not HEADER.exists():
    pytest.skip(
        "the Fast DDS peer is built by this test where a C++ compiler and Fast DDS are present: "
        "apt-get install g++ libfastrtps-dev",
        allow_module_level=True,
    )

WORDS = Topic("words", "std_msgs/msg/String", Qos.DEFAULT, None, None, "test", "")
STATE = Topic("state", "std_msgs/msg/String", Qos.LATCHED, None, None, "test", "")


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("peer") / "peer"
    command = ["g++", "-std=c++17", "-O1", "-o", str(path), str(SOURCE), "-lfastrtps", "-lfastcdr", "-pthread"]
    built = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert built.returncode == 0, built.stderr
    return path


class Peer:
    """The program, its commands and what it printed."""

    def __init__(self, program: Path, domain: int, namespace: str) -> None:
        self.namespace, self.lines = namespace, []
        self._process = subprocess.Popen(
            [str(program), str(domain), "100"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self.prints("ready")

    def _read(self) -> None:
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))

    def wire(self, topic: Topic) -> str:
        return naming.wire_topic(naming.topic_name(topic.name, self.namespace, {}))

    def tell(self, line: str) -> None:
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def open(self, what: str, topic: Topic, reliability: str, durability: str = "volatile") -> None:
        name = self.wire(topic)
        self.tell(f"{what} {name} {naming.wire_type(topic.type)} {reliability} {durability}")
        assert self.prints(f"open {name}")

    def send(self, what: str, topic: Topic, rest: str) -> None:
        self.tell(f"{what} {self.wire(topic)} {rest}")

    def prints(self, beginning: str) -> bool:
        return eventually(lambda: any(line.startswith(beginning) for line in self.lines))

    def matched(self, who: str, topic: Topic) -> bool:
        return self.prints(f"{who} {self.wire(topic)} 1")

    def got(self, topic: Topic) -> list[str]:
        """What it printed of the messages of ``topic``: size in bytes and values."""
        beginning = f"got {self.wire(topic)} "
        return [line.removeprefix(beginning).strip() for line in self.lines if line.startswith(beginning)]

    def close(self) -> None:
        self._process.stdin.close()
        try:
            self._process.wait(20)
        finally:
            self._process.kill()
            self._process.wait()
            self._reader.join()
            self._process.stdout.close()


@pytest.fixture
def peer(program, domain, namespace, node):
    one = Peer(program, domain, namespace)
    yield one
    one.close()


@pytest.fixture
def node(domain, namespace):
    with DdsTransport(NodeConfig("control", namespace, domain=domain, localhost_only=True)) as transport:
        yield transport


def fnv1a(data: bytes) -> str:
    value = 14695981039346656037
    for byte in data:
        value = (value ^ byte) * 1099511628211 % (1 << 64)
    return f"{value:016x}"


@pytest.mark.parametrize("reliability", ["reliable", "best_effort"])
def test_our_commands_are_read_in_either_quality(node, peer, reliability):
    peer.open("read", topics.CMD_VEL, reliability)
    publisher = node.publisher(topics.CMD_VEL)
    assert node.wait_for_readers(topics.CMD_VEL, 1, LONG_S)
    assert peer.matched("writers", topics.CMD_VEL)

    def arrives() -> bool:
        publisher.publish(messages.twist(Twist(0.1, -0.25, 1e-9)))
        return bool(peer.got(topics.CMD_VEL))

    assert eventually(arrives)
    size, *values = peer.got(topics.CMD_VEL)[0].split()
    assert int(size) == 4 + 6 * 8
    assert [float(value) for value in values] == [0.1, -0.25, 0.0, 0.0, 0.0, 1e-9]


def test_our_words_are_read_in_order(node, peer):
    peer.open("read", WORDS, "reliable")
    publisher = node.publisher(WORDS)
    assert node.wait_for_readers(WORDS, 1, LONG_S)
    assert peer.matched("writers", WORDS)
    texts = ["가장 왼쪽 외곽으로 돌아", "go to the red cup", "x" * 1000]
    for text in texts:
        publisher.publish(messages.string(text))
    assert eventually(lambda: len(peer.got(WORDS)) == 3)
    assert [line.partition(" ")[2] for line in peer.got(WORDS)] == texts


def test_our_latched_state_is_read_by_who_comes_late(node, peer):
    node.publisher(STATE).publish(messages.string("running"))
    peer.open("read", STATE, "reliable", "latched")
    assert eventually(lambda: [line.partition(" ")[2] for line in peer.got(STATE)] == ["running"])


@pytest.mark.parametrize("reliability", ["reliable", "best_effort"])
def test_our_images_are_read_whole(node, peer, reliability):
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    frame = Frame(pixels, 0, "monotonic", "front", 0)
    image = messages.image_message(frame, 12_000_000_034, "camera")
    compressed = messages.compressed_message(frame, 12_000_000_034, "camera")
    for topic, message in ((topics.IMAGE, image), (topics.IMAGE_COMPRESSED, compressed)):
        peer.open("read", topic, reliability)
        publisher = node.publisher(topic)
        assert node.wait_for_readers(topic, 1, LONG_S)
        assert peer.matched("writers", topic)

        def arrives() -> bool:
            publisher.publish(message)  # noqa: B023
            return bool(peer.got(topic))  # noqa: B023

        assert eventually(arrives)
    raw = pixels.tobytes()
    assert peer.got(topics.IMAGE)[0].split()[1:] == f"12 34 camera 48 64 rgb8 192 {len(raw)} {fnv1a(raw)}".split()
    data = bytes(compressed.data)
    assert peer.got(topics.IMAGE_COMPRESSED)[0].split()[1:] == f"12 34 camera jpeg {len(data)} {fnv1a(data)}".split()


def test_a_reliable_peer_gets_a_raw_vga_image(node, peer):
    pixels = np.random.default_rng(1).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    peer.open("read", topics.IMAGE, "reliable")
    publisher = node.publisher(topics.IMAGE)
    assert node.wait_for_readers(topics.IMAGE, 1, LONG_S)
    assert peer.matched("writers", topics.IMAGE)
    publisher.publish(messages.image_message(Frame(pixels, 0, "monotonic", "front", 0), 0, "camera"))
    assert eventually(lambda: bool(peer.got(topics.IMAGE)))
    assert peer.got(topics.IMAGE)[0].split()[-1] == fnv1a(pixels.tobytes())


@pytest.mark.parametrize("reliability", ["reliable", "best_effort"])
def test_its_commands_and_images_are_read_by_us(node, peer, reliability):
    speeds, images, pictures = Heard(), Heard(), Heard()
    node.subscribe(topics.CMD_VEL, speeds)
    node.subscribe(topics.IMAGE, images)
    node.subscribe(topics.IMAGE_COMPRESSED, pictures)
    sends = {
        topics.CMD_VEL: ("twist", "0.5 -0.125 2.0", speeds),
        topics.IMAGE: ("image", "160 120", images),
        topics.IMAGE_COMPRESSED: ("compressed", "20001", pictures),
    }
    for topic, (what, rest, heard) in sends.items():
        peer.open("write", topic, reliability)
        assert peer.matched("readers", topic)
        assert eventually(lambda: sends_until(peer, what, topic, rest, heard))  # noqa: B023
    assert messages.twist_from_message(speeds.all[0].message) == Twist(0.5, -0.125, 2.0)
    pattern = (np.arange(160 * 120 * 3) % 251).astype(np.uint8).reshape(120, 160, 3)
    np.testing.assert_array_equal(messages.pixels_from_image(images.all[0].message), pattern)
    assert messages.stamp_ns(images.all[0].message) == 1234 * 10**9 + 567
    assert images.all[0].message.header.frame_id == "peer_camera"
    assert bytes(pictures.all[0].message.data) == bytes(index % 251 for index in range(20001))


def sends_until(peer: Peer, what: str, topic: Topic, rest: str, heard: Heard) -> bool:
    """Send again, because what a writer sends before its reader has matched it too is lost."""
    peer.send(what, topic, rest)
    threading.Event().wait(0.05)
    return bool(heard.all)


def test_its_words_reach_our_reliable_and_latched_topics(node, peer):
    words, state = Heard(), Heard()
    peer.open("write", STATE, "reliable", "latched")
    peer.send("string", STATE, "was said before")
    node.subscribe(WORDS, words)
    node.subscribe(STATE, state)
    peer.open("write", WORDS, "reliable")
    assert peer.matched("readers", WORDS)
    assert eventually(lambda: sends_until(peer, "string", WORDS, "빨간 컵까지 가세요", words))
    assert set(words.words) == {"빨간 컵까지 가세요"}
    assert eventually(lambda: state.words == ["was said before"])


def test_a_best_effort_writer_does_not_meet_our_reliable_readers(node, peer):
    node.subscribe(WORDS, print)
    peer.open("write", WORDS, "best_effort")
    peer.open("write", STATE, "reliable")
    node.subscribe(STATE, print, type_name=STATE.type)
    threading.Event().wait(0.5)
    assert f"readers {peer.wire(WORDS)} 1" not in peer.lines
    assert f"readers {peer.wire(STATE)} 1" not in peer.lines  # volatile, and ours asks for latched


def test_its_junk_is_passed_over(node, peer):
    words = Heard()
    node.subscribe(WORDS, words)
    peer.open("write", WORDS, "reliable")
    assert peer.matched("readers", WORDS)
    for size in (8, 64, 5000):
        peer.send("junk", WORDS, str(size))
    assert eventually(lambda: sends_until(peer, "string", WORDS, "and now a message", words))
    assert set(words.words) == {"and now a message"}
    assert node.failures == 0  # Cyclone itself drops what is no string, before we see it


def test_packets_that_are_no_rtps_harm_only_who_sends_them(node, peer, domain, namespace):
    words = Heard()
    node.subscribe(WORDS, words)
    peer.open("write", WORDS, "reliable")
    assert peer.matched("readers", WORDS)
    for size in (4, 64):  # Cyclone drops the whole packet, asks for it again, and hears this writer no more
        peer.send("noise", WORDS, str(size))
    with DdsTransport(NodeConfig("other", namespace, domain=domain, localhost_only=True)) as other:
        assert other.wait_for_readers(WORDS, 1, LONG_S)
        other.publisher(WORDS).publish(messages.string("from another"))
        assert eventually(lambda: words.words == ["from another"])


def test_it_learns_our_name_and_endpoints_and_that_we_left(node, peer, domain, namespace):
    info = f"{graph.TOPIC} {naming.wire_type(graph.TYPE)}"
    peer.tell(f"read {info} reliable latched")
    with DdsTransport(NodeConfig("leaving", namespace, domain=domain, localhost_only=True)) as leaving:
        leaving.publisher(WORDS)
        leaving.subscribe(STATE, print)
        leaving.subscribe(topics.SCAN, print)
        gid = leaving._guid.hex()

        def entries() -> list[str]:
            lines = [line.split() for line in peer.lines if line.startswith(f"got {graph.TOPIC} ")]
            return [" ".join(words[5:]) for words in lines if words[3] == gid]

        assert eventually(lambda: entries()[-1:] == [f"{namespace} leaving 2 1"])
        last = [line for line in peer.lines if gid in line][-1]
        assert last.endswith(f"{gid} 1 {namespace} leaving 2 1")
    assert eventually(lambda: [line for line in peer.lines if gid in line][-1].endswith(f"{gid} 0"))


def test_it_notices_that_we_left(node, peer, domain, namespace):
    peer.open("read", WORDS, "reliable")
    with DdsTransport(NodeConfig("leaving", namespace, domain=domain, localhost_only=True)) as leaving:
        leaving.publisher(WORDS)
        assert peer.matched("writers", WORDS)
    assert peer.prints(f"writers {peer.wire(WORDS)} 0")
