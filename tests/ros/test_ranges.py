import time

import numpy as np
import pytest

from mobile_vla.ros import topics
from mobile_vla.ros.connect import connect
from mobile_vla.ros.messages import scan_message
from mobile_vla.ros.preview import Preview
from mobile_vla.ros.ranges import RangeInbox
from mobile_vla.ros.transport import NodeConfig
from mobile_vla.ros.wire_time import from_wire, to_wire
from mobile_vla.runtime.config import RangeConfig

from .nodes.world import Outside, wait_until


@pytest.fixture
def outside(namespace, domain):
    with Outside(namespace, domain) as outside:
        yield outside


@pytest.fixture
def transport(outside, namespace, domain):
    transport = connect(NodeConfig("ranges", namespace, domain=domain, localhost_only=True))
    yield transport
    transport.close()


def scan(stamp_ns):
    return scan_message(
        np.array([1.0, 20.0, 2.0]),
        angle_min_rad=-0.5,
        angle_step_rad=0.5,
        range_min_m=0.1,
        range_max_m=10.0,
        stamp_ns=stamp_ns,
        frame_id="laser",
    )


def test_a_scan_is_seen_from_the_robot_at_the_time_of_its_stamp(outside, transport):
    inbox = RangeInbox(transport, RangeConfig(mount=(0.0, 0.0, 0.5)))
    assert inbox.newest is None
    stamp_ns = to_wire(time.monotonic_ns())
    outside.publish(topics.SCAN, scan(stamp_ns))
    wait_until(lambda: inbox.newest, "the scan")
    assert inbox.newest.angles_rad == pytest.approx([0.0, 1.0])
    assert inbox.newest.ranges_m == pytest.approx([1.0, 2.0])
    assert abs(inbox.newest.stamp_ns - from_wire(stamp_ns)) < 5_000_000


def test_a_preview_hands_it_on_when_it_is_to_listen(outside, transport):
    with Preview(transport, lambda sentence: None, RangeConfig()) as preview:
        assert preview.clearance() is None
        outside.publish(topics.SCAN, scan(to_wire(time.monotonic_ns())))
        wait_until(preview.clearance, "the scan")


def test_a_preview_that_is_not_to_listen_has_none(transport):
    with Preview(transport, lambda sentence: None) as preview:
        assert preview.clearance() is None
