import shutil
import time
from collections import namedtuple

import numpy as np
import pytest

from mobile_vla.core import Frame, Twist
from mobile_vla.ros import topics
from mobile_vla.ros.bag import BagError, BagReader
from mobile_vla.ros.messages import compressed_message, diagnoses, image_message, odometry, stamp_ns, string
from mobile_vla.ros.naming import topic_name
from mobile_vla.ros.nodes.recorder import RecorderNode
from mobile_vla.ros.wire_time import to_wire

from .world import Outside, Running, error_of, wait_until


@pytest.fixture
def outside(namespace, domain):
    with Outside(namespace, domain) as outside:
        yield outside


def recording(path, namespace, domain, raw=False, remap=None):
    def make(transport):
        return RecorderNode(transport, path, raw, lambda topic: topic_name(topic.name, namespace, remap or {}))

    return Running("recorder", namespace, domain, make)


def publish_all(outside, running, raw=False):
    """One of each of several topics; gives the stamp of the pictures, of which one kind has a reader."""
    now_ns = to_wire(time.monotonic_ns())
    pixels = np.arange(8 * 16 * 3, dtype=np.uint8).reshape(8, 16, 3)
    frame = Frame(pixels, now_ns, "wire", "front", 1)
    outside.publish(topics.ACTIVE_INSTRUCTION, string("go to the red cup"))
    outside.publish(topics.ODOM, odometry(Twist(0.25, 0.0, 0.0), (1.0, 2.0, 0.0), now_ns))
    before = running.node._bag.count
    if raw:
        outside.publish(topics.IMAGE, image_message(frame, now_ns, "camera"))
        assert not outside.transport.wait_for_readers(topics.IMAGE_COMPRESSED, 1, 0.2)
    else:
        outside.publish(topics.IMAGE_COMPRESSED, compressed_message(frame, now_ns, "camera"))
        assert not outside.transport.wait_for_readers(topics.IMAGE, 1, 0.2)
    wait_until(lambda: running.node._bag.count > before, "recorded")
    return now_ns


def names_in(path):
    with BagReader(path) as bag:
        return {item.topic: item.message for item in bag}


@pytest.mark.parametrize("raw", [False, True])
def test_it_records_what_goes_over_the_wire_with_one_kind_of_picture(outside, namespace, domain, tmp_path, raw):
    path = tmp_path / "bag"
    with recording(path, namespace, domain, raw) as running:
        stamp = publish_all(outside, running, raw)
        picture = topics.IMAGE if raw else topics.IMAGE_COMPRESSED
        name = f"{namespace}/{picture.name}"
        wait_until(lambda: running.node._bag._counts[name] == 1, "the picture")
        wait_until(lambda: running.node._bag._counts["/diagnostics"] >= 1, "its own diagnosis")
    kept = names_in(path)
    with BagReader(path) as bag:
        assert bag.finished
    assert stamp_ns(kept[name]) == stamp
    assert kept[f"{namespace}/control/instruction"].data == "go to the red cup"
    assert kept[f"{namespace}/odom"].twist.twist.linear.x == 0.25
    other = topics.IMAGE_COMPRESSED if raw else topics.IMAGE
    assert f"{namespace}/{other.name}" not in kept
    assert diagnoses(kept["/diagnostics"])[0].name == f"{namespace}/recorder"


def test_a_message_is_recorded_with_the_time_at_which_it_came(outside, namespace, domain, tmp_path):
    before_ns = time.time_ns()
    with recording(tmp_path / "bag", namespace, domain) as running:
        publish_all(outside, running)
    with BagReader(tmp_path / "bag") as bag:
        stamps = [item.stamp_ns for item in bag]
    assert stamps
    assert before_ns - 50_000_000 < min(stamps) <= max(stamps) < time.time_ns() + 50_000_000


def test_a_bag_is_never_overwritten(namespace, domain, tmp_path):
    (tmp_path / "bag").mkdir()
    with pytest.raises(BagError, match="exists"), recording(tmp_path / "bag", namespace, domain):
        pass


def test_when_the_disk_is_nearly_full_it_ends_and_the_bag_is_whole(outside, namespace, domain, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    with recording(tmp_path / "bag", namespace, domain) as running:
        publish_all(outside, running)
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 10**12, 0))
            error = error_of(running)
        assert isinstance(error, BagError)
        assert "recording stopped" in str(error)
    with BagReader(tmp_path / "bag") as bag:
        assert bag.finished
    assert f"{namespace}/odom" in names_in(tmp_path / "bag")
