"""Bags: ours opened by rosbags, rosbags' opened by us, and what is left after a crash, a full disk and damage."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rosbags.highlevel import AnyReader
from rosbags.interfaces import QosDurability, QosHistory, QosReliability
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from mobile_vla.core import ActionChunk, Frame, Twist
from mobile_vla.ros import messages, topics
from mobile_vla.ros.bag import BagError, BagReader, BagWriter, recover
from mobile_vla.ros.messages import TransportError

from .conformance import eventually

TOPICS = {
    "/robot/cmd_vel": topics.CMD_VEL,
    "/robot/camera/image_raw": topics.IMAGE,
    "/robot/inference/chunk": topics.CHUNK,
    "/robot/control/instruction": topics.ACTIVE_INSTRUCTION,
    "/robot/rearm": topics.REARM,
}
START_NS = 1_700_000_000_000_000_000


def image(number):
    pixels = np.full((4, 6, 3), number % 256, np.uint8)
    return messages.image_message(Frame(pixels, 0, "monotonic", "front", number), START_NS + number, "camera")


def write_some(writer, count):
    for number in range(count):
        stamp = START_NS + number * 10_000_000
        assert writer.write("/robot/cmd_vel", messages.twist(Twist(number / 7, 0.0, 0.0)), stamp)
        assert writer.write("/robot/camera/image_raw", image(number), stamp + 1)
    chunk = ActionChunk(np.ones((2, 3), np.float32), 0, 10.0)
    assert writer.write("/robot/inference/chunk", messages.chunk_message(chunk, START_NS), START_NS + 5)
    assert writer.write("/robot/control/instruction", messages.string("가장 왼쪽"), START_NS + 6)


@pytest.fixture
def bag(tmp_path):
    with BagWriter(tmp_path / "drive", TOPICS) as writer:
        write_some(writer, 20)
    return tmp_path / "drive"


def test_rosbags_opens_what_we_write_with_types_times_and_qualities(bag):
    with AnyReader([bag], default_typestore=get_typestore(Stores.EMPTY)) as reader:
        counts = {connection.topic: connection.msgcount for connection in reader.connections}
        assert counts == dict(zip(TOPICS, (20, 20, 1, 1, 0), strict=True))
        for connection in reader.connections:
            assert connection.msgtype == TOPICS[connection.topic].type
            assert connection.digest == messages.type_hash(connection.msgtype)
            (qos,) = connection.ext.offered_qos_profiles
            latched = connection.topic.endswith("instruction")
            assert (qos.history, qos.reliability) == (QosHistory.KEEP_LAST, QosReliability.RELIABLE)
            assert qos.durability is (QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE)
        read = [(c.topic, stamp, reader.deserialize(data, c.msgtype)) for c, stamp, data in reader.messages()]
    assert [stamp for _, stamp, _ in read] == sorted(stamp for _, stamp, _ in read)
    speeds = [message.linear.x for topic, _, message in read if topic == "/robot/cmd_vel"]
    assert speeds == [number / 7 for number in range(20)]
    pictures = [message for topic, _, message in read if topic == "/robot/camera/image_raw"]
    assert [int(picture.data[0]) for picture in pictures] == list(range(20))


def test_the_description_is_what_ros2_bag_info_expects(bag):
    text = (bag / "metadata.yaml").read_text()
    assert "&id" not in text
    about = yaml.safe_load(text)["rosbag2_bagfile_information"]
    assert (about["version"], about["storage_identifier"], about["message_count"]) == (8, "mcap", 42)
    assert about["relative_file_paths"] == ["drive.mcap"]
    assert about["starting_time"] == {"nanoseconds_since_epoch": START_NS}
    assert about["duration"] == {"nanoseconds": 19 * 10_000_000 + 1}
    assert {t["topic_metadata"]["name"] for t in about["topics_with_message_count"]} == set(TOPICS)


def test_we_read_what_we_wrote_in_the_order_of_its_stamps(bag):
    with BagReader(bag) as reader:
        assert reader.finished
        assert reader.topics == {name: topic.type for name, topic in TOPICS.items()}
        first, second = list(reader), list(reader)
    assert len(first) == len(second) == 42
    assert [r.stamp_ns for r in first] == sorted(r.stamp_ns for r in first)
    (said,) = [r.message.data for r in first if r.topic.endswith("control/instruction")]
    assert said == "가장 왼쪽"
    (chunk,) = [messages.chunk_from_message(r.message) for r in first if r.topic.endswith("chunk")]
    assert chunk.horizon == 2


@pytest.mark.parametrize("plugin", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
@pytest.mark.parametrize("version", [8, 9])
def test_we_read_bags_of_others_and_pass_over_types_that_we_do_not_know(tmp_path, plugin, version):
    store = get_typestore(Stores.ROS2_HUMBLE)
    store.register(get_types_from_msg("float64 a", "their_msgs/msg/Thing"))
    with Writer(tmp_path / "theirs", version=version, storage_plugin=plugin) as writer:
        speed = writer.add_connection("/speed", topics.CMD_VEL.type, typestore=store)
        thing = writer.add_connection("/thing", "their_msgs/msg/Thing", typestore=store)
        for number in range(5):
            data = messages.serialise(topics.CMD_VEL.type, messages.twist(Twist(number, 0.0, 0.0)))
            writer.write(speed, number, data)
            writer.write(thing, number, store.serialize_cdr(store.types["their_msgs/msg/Thing"](1.0), thing.msgtype))
    with BagReader(tmp_path / "theirs") as reader:
        assert reader.topics == {"/speed": topics.CMD_VEL.type}
        assert reader.unread == {"/thing": "their_msgs/msg/Thing"}
        assert [(r.stamp_ns, r.message.linear.x) for r in reader] == [(n, float(n)) for n in range(5)]


def test_a_type_of_ours_with_other_fields_is_passed_over(tmp_path):
    store = get_typestore(Stores.EMPTY)
    store.register(get_types_from_msg("float64 x\nfloat64 y", "geometry_msgs/msg/Vector3"))
    store.register(get_types_from_msg("geometry_msgs/Vector3 linear", "geometry_msgs/msg/Twist"))
    with Writer(tmp_path / "odd", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/speed", topics.CMD_VEL.type, typestore=store)
        writer.write(connection, 1, bytes(20))
    with BagReader(tmp_path / "odd") as reader:
        assert reader.unread == {"/speed": topics.CMD_VEL.type}
        assert list(reader) == []


def test_one_file_of_a_bag_can_be_read_alone(bag):
    with BagReader(bag / "drive.mcap") as reader:
        assert len(list(reader)) == 42


CRASHING = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from ros.test_bag import TOPICS, write_some
from mobile_vla.ros.bag import BagWriter
writer = BagWriter(Path({path!r}), TOPICS)
write_some(writer, 30)
print("written", flush=True)
time.sleep(120)
"""


def test_a_crash_loses_at_most_the_open_chunk_and_recover_makes_a_whole_bag(tmp_path):
    path = tmp_path / "crashed"
    tests = os.path.dirname(os.path.dirname(__file__))
    program = CRASHING.format(tests=tests, path=str(path))
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "written\n"
        assert eventually(lambda: (path / "crashed.mcap").stat().st_size > 3000)  # the chunk of the first second
        process.send_signal(signal.SIGKILL)
    assert not (path / "metadata.yaml").exists()
    with BagReader(path) as reader:
        assert not reader.finished
        assert len(list(reader)) == 62
    assert recover(path, tmp_path / "whole") == 62
    with AnyReader([tmp_path / "whole"]) as reader:
        assert reader.message_count == 62
    with pytest.raises(BagError, match="exists"):
        recover(path, tmp_path / "whole")


@settings(max_examples=40)
@given(st.data())
def test_of_a_bag_cut_anywhere_a_beginning_is_read_and_never_a_wrong_message(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("cut")
    with BagWriter(folder / "whole", TOPICS) as writer:
        for _ in range(4):
            write_some(writer, 3)
            with writer._lock:
                writer._close_chunk()  # as the second's turn does
    with BagReader(folder / "whole" / "whole.mcap") as reader:
        expected = {(r.topic, r.stamp_ns, r.message) for r in reader.raw()}
    cut = folder / "cut.mcap"
    whole = (folder / "whole" / "whole.mcap").read_bytes()
    damaged = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for _ in range(data.draw(st.integers(0, 2))):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    cut.write_bytes(damaged)
    try:
        with BagReader(cut) as reader:
            found = [(r.topic, r.stamp_ns, r.message) for r in reader.raw()]
    except BagError:
        return
    assert {message for _, _, message in found} <= {message for _, _, message in expected}


def test_a_disk_that_is_full_already_is_refused(tmp_path):
    with pytest.raises(BagError, match="make room, or record on another disk"):
        BagWriter(tmp_path / "drive", TOPICS, min_free_bytes=1 << 62)
    assert not (tmp_path / "drive").exists()


def test_a_disk_that_fills_up_ends_the_recording_cleanly(tmp_path, monkeypatch):
    with BagWriter(tmp_path / "drive", TOPICS) as writer:
        write_some(writer, 3)
        usage = dataclasses.make_dataclass("usage", ["total", "used", "free"])(10**9, 10**9 - 1, 1)
        monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
        assert eventually(lambda: writer.stopped is not None)
        assert "what was recorded is safe" in writer.stopped
        assert not writer.write("/robot/rearm", messages.empty(), START_NS)
    with BagReader(tmp_path / "drive") as reader:
        assert reader.finished
        assert len(list(reader)) == 8


LIMITED = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from ros.test_bag import TOPICS, image, START_NS
from mobile_vla.ros.bag import BagWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
with BagWriter(Path({path!r}), TOPICS) as writer:
    for number in range(1_000_000):
        if not writer.write("/robot/camera/image_raw", image(number), START_NS + number):
            break
print(writer.stopped)
"""


def test_a_file_that_cannot_grow_ends_the_recording_with_a_sentence(tmp_path):
    tests = os.path.dirname(os.path.dirname(__file__))
    program = LIMITED.format(tests=tests, path=str(tmp_path / "drive"))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert "cannot be written (File too large)" in done.stdout, done.stderr
    assert "Traceback" not in done.stderr


def test_what_was_not_announced_or_is_of_another_type_is_refused(tmp_path):
    with BagWriter(tmp_path / "drive", TOPICS) as writer:
        with pytest.raises(BagError, match="/other is not among the topics"):
            writer.write("/other", messages.empty(), START_NS)
        with pytest.raises(TransportError):
            writer.write("/robot/cmd_vel", messages.string("x"), START_NS)
        assert writer.count == 0
    writer.close()
    with pytest.raises(BagError, match="is closed"):
        writer.write("/robot/rearm", messages.empty(), START_NS)
    with BagReader(tmp_path / "drive") as reader:
        assert list(reader) == []


def test_a_type_that_nobody_knows_is_refused_before_anything_is_made(tmp_path):
    unknown = dataclasses.replace(topics.REARM, type="their_msgs/msg/Thing")
    with pytest.raises(TransportError, match="their_msgs/msg/Thing"):
        BagWriter(tmp_path / "drive", {"/thing": unknown})
    assert not (tmp_path / "drive").exists()


def test_a_bag_is_never_overwritten(bag):
    with pytest.raises(BagError, match="a bag is never overwritten"):
        BagWriter(bag, TOPICS)
    with pytest.raises(BagError, match="choose another place"):
        BagWriter(bag / "metadata.yaml" / "inside", TOPICS)


def test_what_is_no_bag_is_refused(tmp_path):
    with pytest.raises(BagError, match="there is no bag at"):
        BagReader(tmp_path / "none")
    for name in ("text.mcap", "text.db3", "text.txt"):
        (tmp_path / name).write_text("hello, this is no bag at all")
        with pytest.raises(BagError):
            BagReader(tmp_path / name)
    (tmp_path / "folder").mkdir()
    with pytest.raises(BagError):
        BagReader(tmp_path / "folder")


def test_many_threads_may_write(tmp_path):
    with BagWriter(tmp_path / "drive", TOPICS) as writer:
        threads = [threading.Thread(target=write_some, args=(writer, 25)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert writer.count == 4 * 52
    with BagReader(tmp_path / "drive") as reader:
        assert len(list(reader)) == 4 * 52
