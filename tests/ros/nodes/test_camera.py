import threading
import time
from itertools import pairwise

import numpy as np
import pytest

from mobile_vla.core import CameraError, Frame, MonotonicClock
from mobile_vla.robot.cameras.pattern import Pattern
from mobile_vla.ros import topics
from mobile_vla.ros.messages import Level, diagnoses, pixels_from_compressed, pixels_from_image, stamp_ns
from mobile_vla.ros.nodes.camera import CameraNode
from mobile_vla.ros.wire_time import from_wire

from .world import Outside, Running, error_of, wait_until


class Noting:
    """A camera that notes what the one within gave, and can be made to fail."""

    def __init__(self, camera):
        self._camera = camera
        self.name, self.rate_hz = camera.name, camera.rate_hz
        self.frames = {}
        self.error = None
        self.is_open = False

    def open(self):
        self._camera.open()
        self.is_open = True

    def close(self):
        self._camera.close()
        self.is_open = False

    def read(self, timeout_s):
        if self.error is not None:
            raise self.error
        frame = self._camera.read(timeout_s)
        if frame is not None:
            self.frames[frame.capture_ns] = frame
        return frame


@pytest.fixture
def camera():
    return Noting(Pattern(width=160, height=96, rate_hz=30.0).build(MonotonicClock()))


@pytest.fixture
def outside(namespace, domain):
    with Outside(namespace, domain) as outside:
        outside.listen(topics.CAMERA_INFO)
        outside.listen(topics.DIAGNOSTICS)
        yield outside


def diagnosis(outside):
    message = outside.newest(topics.DIAGNOSTICS)
    return diagnoses(message)[0] if message else None


def test_frames_go_out_with_the_stamp_of_their_capture_and_an_info_beside(camera, outside, namespace, domain):
    outside.listen(topics.IMAGE)
    with Running("camera", namespace, domain, lambda transport: CameraNode(transport, camera)) as running:
        wait_until(lambda: len(outside.heard[topics.IMAGE.name]) >= 10, "ten pictures")
        wait_until(lambda: diagnosis(outside) and diagnosis(outside).level == Level.OK, "it does well")
        assert diagnosis(outside).name == running.transport.node == f"{namespace}/camera"
        assert float(diagnosis(outside).values["nominal_hz"]) == 30.0
        assert float(diagnosis(outside).values["capture_to_publish_ms"]) >= 0.0
    assert not camera.is_open
    infos = {stamp_ns(info): info for info in outside.heard[topics.CAMERA_INFO.name]}
    for message in outside.heard[topics.IMAGE.name]:
        captured_ns = min(camera.frames, key=lambda ns: abs(ns - from_wire(stamp_ns(message))))
        assert abs(captured_ns - from_wire(stamp_ns(message))) < 1_000_000
        assert np.array_equal(pixels_from_image(message), camera.frames[captured_ns].pixels)
        assert message.header.frame_id == "camera_optical_frame"
    both = [infos[stamp_ns(image)] for image in outside.heard[topics.IMAGE.name] if stamp_ns(image) in infos]
    assert both
    assert {(info.width, info.height) for info in both} == {(160, 96)}


def test_what_nobody_reads_is_not_written(camera, namespace, domain):
    with Running("camera", namespace, domain, lambda transport: CameraNode(transport, camera)) as running:
        node = running.node
        written = []
        for publisher in (node._raw, node._jpeg, node._info):
            publisher.publish = lambda message, publish=publisher.publish: (written.append(message), publish(message))
        wait_until(lambda: len(camera.frames) > 10, "ten frames were read")
        assert written == []
        with Outside(namespace, domain) as outside:
            outside.listen(topics.CAMERA_INFO)
            wait_until(lambda: outside.newest(topics.CAMERA_INFO), "now that somebody reads")
        assert {type(message).__name__ for message in written} == {"sensor_msgs__msg__CameraInfo"}


def test_jpegs_are_bounded_by_their_own_rate(camera, outside, namespace, domain):
    outside.listen(topics.IMAGE_COMPRESSED)
    with Running("camera", namespace, domain, lambda transport: CameraNode(transport, camera, preview_hz=4.0)):
        wait_until(lambda: len(outside.heard[topics.IMAGE_COMPRESSED.name]) >= 6, "six JPEGs")
    jpegs = outside.heard[topics.IMAGE_COMPRESSED.name]
    stamps = [stamp_ns(message) for message in jpegs]
    assert min(after - before for before, after in pairwise(stamps)) > 0.24e9
    assert jpegs[0].format == "jpeg"
    assert pixels_from_compressed(jpegs[0]).shape == (96, 160, 3)


def test_a_camera_that_fails_ends_the_process_and_is_closed(camera, outside, namespace, domain):
    with Running("camera", namespace, domain, lambda transport: CameraNode(transport, camera)) as running:
        wait_until(lambda: camera.frames, "it works")
        camera.error = CameraError("camera front was unplugged")
        assert error_of(running) is camera.error
    assert not camera.is_open


def test_a_camera_that_cannot_be_opened_ends_the_process(outside, namespace, domain):
    class Absent:
        name, rate_hz, closed = "front", 30.0, False

        def open(self):
            raise CameraError("there is no /dev/video7")

        def close(self):
            self.closed = True

    absent = Absent()
    with Running("camera", namespace, domain, lambda transport: CameraNode(transport, absent)) as running:
        assert "video7" in str(error_of(running))
    assert absent.closed


class Slow:
    """One frame every half second, though it promises thirty a second; none while ``silent``."""

    name, rate_hz = "front", 30.0

    def __init__(self):
        self.silent = threading.Event()
        self.silent.set()
        self.count = 0

    def open(self):
        pass

    def close(self):
        pass

    def read(self, timeout_s):
        time.sleep(timeout_s)
        if self.silent.is_set():
            return None
        time.sleep(0.4)
        self.count += 1
        return Frame(np.zeros((4, 4, 3), np.uint8), time.monotonic_ns(), MonotonicClock.name, self.name, self.count)


def test_it_says_that_no_frames_come_and_that_they_come_too_slowly(outside, namespace, domain):
    slow = Slow()
    with Running("camera", namespace, domain, lambda transport: CameraNode(transport, slow)):
        wait_until(lambda: diagnosis(outside) and diagnosis(outside).message == "no frames yet", "nothing yet")
        assert diagnosis(outside).level == Level.WARN
        slow.silent.clear()
        wait_until(lambda: diagnosis(outside).message.endswith("frames a second instead of 30"), "too slow")
        assert diagnosis(outside).level == Level.WARN
