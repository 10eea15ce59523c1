import time

import numpy as np
import pytest

from mobile_vla.core import Frame, Grounding, Instruction, MonotonicClock, Status, Twist
from mobile_vla.ros import topics
from mobile_vla.ros.connect import connect
from mobile_vla.ros.messages import (
    Level,
    boolean,
    diagnoses,
    pixels_from_compressed,
    pose_from_odometry,
    stamp_ns,
    twist_from_message,
)
from mobile_vla.ros.preview import Preview
from mobile_vla.ros.transport import NodeConfig
from mobile_vla.ros.wire_time import from_wire
from mobile_vla.runtime import Tick
from mobile_vla.safety import Reason, SafetyState

from .nodes.world import LIMIT_S, Outside, wait_until

BELIEF = Grounding(0.9, 0.1, 1.5, (0.0, 0.0, 1.0, 1.0), Status.DRIVING)


def frame(number=1, shade=100):
    pixels = np.full((96, 160, 3), shade, np.uint8)
    return Frame(pixels, time.monotonic_ns(), MonotonicClock.name, "front", number)


def tick(state=SafetyState.RUNNING, picture=None, measured=Twist(0.2, 0.0, 0.0), **more):  # noqa: B008
    values = {
        "stamp_ns": time.monotonic_ns(),
        "state": state,
        "reason": Reason.DRIVING,
        "sentence": "driving",
        "wanted": None,
        "twist": Twist(0.25, 0.0, -0.5),
        "measured": measured,
        "instruction": Instruction("go to the red cup"),
        "frame": picture,
        "frame_age_ns": 45_000_000,
        "grounding": BELIEF,
        "inference_ms": 12.5,
    }
    return Tick(**values | more)


@pytest.fixture
def outside(namespace, domain):
    with Outside(namespace, domain) as outside:
        for topic in (topics.SAFETY, topics.ODOM, topics.IMAGE_COMPRESSED):
            outside.listen(topic)
        yield outside


@pytest.fixture
def stops():
    return []


@pytest.fixture
def preview(outside, stops, namespace, domain):
    transport = connect(NodeConfig("drive", namespace, domain=domain, localhost_only=True))
    for topic in outside.heard:
        transport.publisher(next(each for each in topics.TOPICS if each.name == topic))
        assert transport.wait_for_readers(next(each for each in topics.TOPICS if each.name == topic), 1, LIMIT_S)
    return Preview(transport, stops.append)


def test_others_see_the_state_the_picture_and_the_way(preview, outside, namespace):
    picture = frame()
    with preview:
        preview.show(tick(picture=picture))
        outside.wait_for(state="running", instruction="go to the red cup", policy_status="driving")
        wait_until(lambda: outside.newest(topics.IMAGE_COMPRESSED), "the picture")
        wait_until(lambda: outside.newest(topics.ODOM), "odometry")
    told = diagnoses(outside.newest(topics.SAFETY))[0]
    assert (told.level, told.name, told.message) == (Level.OK, f"{namespace}/drive/safety", "driving")
    assert (told.values["vx_mps"], told.values["wz_radps"]) == ("0.2500", "-0.5000")
    assert (told.values["capture_age_ms"], told.values["inference_ms"]) == ("45.0", "12.5")
    assert twist_from_message(outside.newest(topics.ODOM)) == Twist(0.2, 0.0, 0.0)
    shown = outside.newest(topics.IMAGE_COMPRESSED)
    assert abs(from_wire(stamp_ns(shown)) - picture.capture_ns) < 5_000_000
    assert np.abs(pixels_from_compressed(shown).astype(int) - 100).max() <= 2


def test_a_picture_is_sent_once(preview, outside):
    with preview:
        picture = frame()
        for _ in range(5):
            preview.show(tick(picture=picture))
            before = len(outside.heard[topics.SAFETY.name])
            wait_until(lambda before=before: len(outside.heard[topics.SAFETY.name]) > before, "a step is told")
        wait_until(lambda: outside.newest(topics.IMAGE_COMPRESSED), "the picture")
        preview.show(tick(picture=frame(2)))
        wait_until(lambda: len(outside.heard[topics.IMAGE_COMPRESSED.name]) == 2, "and the next")
    assert len(outside.heard[topics.IMAGE_COMPRESSED.name]) == 2


def test_the_way_is_the_sum_of_what_was_measured(preview, outside):
    began = tick()
    with preview:
        preview.show(began)
        wait_until(lambda: outside.newest(topics.ODOM), "odometry")
        preview.show(tick(stamp_ns=began.stamp_ns + 2_000_000_000))
        wait_until(lambda: pose_from_odometry(outside.newest(topics.ODOM))[0] > 0.0, "it has moved")
        preview.show(tick(stamp_ns=began.stamp_ns + 3_000_000_000, measured=Twist(float("nan"), 0.0, 0.0)))
        outside.wait_for(state="running")
    assert pose_from_odometry(outside.newest(topics.ODOM)) == pytest.approx((0.4, 0.0, 0.0))
    assert all(twist_from_message(message).is_finite for message in outside.heard[topics.ODOM.name])


def test_the_last_step_is_told_however_short_the_drive(preview, outside):
    with preview:
        preview.show(tick())
        preview.show(tick(SafetyState.EMERGENCY_STOP, sentence="the space bar was pressed", frame=None))
    outside.wait_for(state="emergency_stop", sentence="the space bar was pressed")
    assert diagnoses(outside.newest(topics.SAFETY))[0].level == Level.ERROR


def test_before_the_first_step_nothing_is_told(preview, outside):
    with preview:
        time.sleep(0.3)
    assert outside.heard[topics.SAFETY.name] == []


def test_an_emergency_stop_over_the_wire_stops_and_letting_go_of_the_button_does_not(preview, outside, stops):
    with preview:
        outside.publish(topics.EMERGENCY_STOP, boolean(False))
        outside.publish(topics.EMERGENCY_STOP, boolean(True))
        wait_until(lambda: stops, "it is told")
    assert stops == ["an emergency stop came over the wire"]


@pytest.mark.parametrize(
    ("state", "level"),
    [
        (SafetyState.RUNNING, Level.OK),
        (SafetyState.HOLDING, Level.WARN),
        (SafetyState.PROTECTIVE_STOP, Level.ERROR),
        (SafetyState.EMERGENCY_STOP, Level.ERROR),
    ],
)
def test_a_stop_is_an_error_for_ros_tools(preview, outside, state, level):
    with preview:
        preview.show(tick(state, grounding=None, inference_ms=None, frame_age_ns=None))
    outside.wait_for(state=state, policy_status="", capture_age_ms="", inference_ms="")
    assert diagnoses(outside.newest(topics.SAFETY))[0].level == level
