"""The camera and the base that are topics, against a small driver on the wire."""

import threading
import time

import numpy as np
import pytest

from mobile_vla.core import BaseError, CameraError, ConfigError, Frame, ManualClock, MonotonicClock, Twist
from mobile_vla.robot.bases.ideal import Ideal
from mobile_vla.robot.odometry import Pose
from mobile_vla.ros import topics
from mobile_vla.ros.connect import connect
from mobile_vla.ros.devices import STAMPED_TYPE, CmdVel, TopicCamera, Wire
from mobile_vla.ros.messages import (
    compressed_message,
    header,
    image_message,
    odometry,
    stamp_ns,
    twist_from_message,
)
from mobile_vla.ros.transport import NodeConfig
from mobile_vla.ros.wire_time import from_wire, to_wire
from robot.conformance import BaseConformance, CameraConformance

from .nodes.world import LIMIT_S, wait_until


class Player:
    """A node that calls ``turn`` every ``period_s`` until the end of the ``with`` block."""

    period_s = 0.02

    def __init__(self, name, namespace, domain):
        self.transport = connect(NodeConfig(name, namespace, domain=domain, localhost_only=True))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"test-{name}", daemon=True)

    def _run(self):
        while not self._over.wait(self.period_s):
            self.turn()

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join(LIMIT_S)
        self.transport.close()


class Driver(Player):
    """A driver as others write them: obeys cmd_vel, stops by itself, counts its odometry from where it was built."""

    start = Pose(3.0, -2.0, 1.0)

    def __init__(self, namespace, domain, stamped=False, name="driver"):
        super().__init__(name, namespace, domain)
        self._lock = threading.Lock()
        self._base = Ideal(lag_s=0.05).build(MonotonicClock())
        self._base.open()
        self._odom = self.transport.publisher(topics.ODOM)
        self.heard = []
        self.transport.subscribe(
            topics.CMD_VEL, self._on_command, type_name=STAMPED_TYPE if stamped else topics.CMD_VEL.type
        )

    def _on_command(self, received):
        with self._lock:
            self.heard.append(received.message)
            self._base.send(twist_from_message(received.message))

    def turn(self):
        with self._lock:
            velocity, pose = self._base.velocity(), self.start.at(self._base.odometry)
        self._odom.publish(odometry(velocity, (pose.x, pose.y, pose.yaw), to_wire(time.monotonic_ns())))


def wire(namespace, domain):
    return Wire(namespace, "auto", domain, True)


def base_of(namespace, domain, **more):
    return CmdVel(wire=wire(namespace, domain), **more).build(MonotonicClock())


class TestBaseOfTopics(BaseConformance):
    @pytest.fixture
    def base(self, namespace, domain):
        with Driver(namespace, domain):
            base = base_of(namespace, domain, open_limit_s=LIMIT_S)
            yield base
            base.close()


@pytest.fixture
def stamped(namespace, domain):
    with Driver(namespace, domain, stamped=True) as driver:
        base = base_of(namespace, domain, stamped=True, open_limit_s=LIMIT_S)
        base.open()
        yield base, driver
        base.close()


def test_a_driver_that_wants_stamps_gets_them(stamped):
    base, driver = stamped
    base.send(Twist(0.25, 0.0, 0.0))
    wait_until(lambda: any(twist_from_message(message).vx == 0.25 for message in driver.heard), "the command")
    message = next(message for message in driver.heard if twist_from_message(message).vx == 0.25)
    assert 0 <= time.monotonic_ns() - from_wire(stamp_ns(message)) < 30e9


def test_a_base_without_a_driver_is_refused_naming_what_is_missing(namespace, domain):
    with pytest.raises(BaseError, match="nobody reads it"):
        base_of(namespace, domain, open_limit_s=0.3).open()


def test_a_driver_without_odometry_is_refused(namespace, domain):
    transport = connect(NodeConfig("mute", namespace, domain=domain, localhost_only=True))
    try:
        transport.subscribe(topics.CMD_VEL, lambda received: None)
        with pytest.raises(BaseError, match="there is no odometry on odom"):
            base_of(namespace, domain, open_limit_s=3.0).open()
    finally:
        transport.close()


def test_a_driver_that_goes_is_noticed_and_one_that_comes_back_serves_after_opening(namespace, domain):
    base = base_of(namespace, domain, open_limit_s=LIMIT_S)
    with pytest.raises(BaseError, match="closed"):
        base.send(Twist(0.1, 0.0, 0.0))
    with Driver(namespace, domain):
        base.open()
        base.send(Twist(0.1, 0.0, 0.0))

    def gone():
        try:
            base.send(Twist(0.1, 0.0, 0.0))
        except BaseError as error:
            return "driver is gone" in str(error)
        return False

    wait_until(gone, "the driver is gone")
    with Driver(namespace, domain, name="driver_again") as driver:
        time.sleep(1.0)
        with pytest.raises(BaseError, match="open it first"):  # until somebody opens it
            base.send(Twist(0.1, 0.0, 0.0))
        assert not any(twist_from_message(message).vx for message in driver.heard)
        base.open()
        assert base.send(Twist(0.1, 0.0, 0.0)) == Twist(0.1, 0.0, 0.0)
        wait_until(lambda: base.velocity().vx > 0.05, "it drives again")
        base.close()


class Filming(Player):
    """Publishes pictures at 30 Hz; ``twice``: each two times."""

    period_s = 1 / 30

    def __init__(self, namespace, domain, topic=topics.IMAGE):
        super().__init__("filming", namespace, domain)
        self._topic, self._publisher = topic, self.transport.publisher(topic)
        self.frames = {}
        self.number = 0

    def turn(self):
        self.number += 1
        captured_ns = to_wire(time.monotonic_ns())
        pixels = np.full((16, 32, 3), self.number % 256, np.uint8)
        self.frames[captured_ns] = pixels
        frame = Frame(pixels, captured_ns, "wire", "front", self.number)
        make = compressed_message if self._topic is topics.IMAGE_COMPRESSED else image_message
        self._publisher.publish(make(frame, captured_ns, "camera"))


class TestCameraOfTopic(CameraConformance):
    read_limit_s = 10.0

    @pytest.fixture
    def camera(self, namespace, domain):
        with Filming(namespace, domain):
            camera = TopicCamera(wire=wire(namespace, domain)).build(MonotonicClock())
            yield camera
            camera.close()


@pytest.mark.parametrize("topic", [topics.IMAGE, topics.IMAGE_COMPRESSED])
def test_pictures_keep_their_pixels_and_the_time_of_their_capture(topic, namespace, domain):
    settings = TopicCamera(
        topic.name, topic is topics.IMAGE_COMPRESSED, rate_hz=30.0, name="left", wire=wire(namespace, domain)
    )
    camera = settings.build(MonotonicClock())
    assert (camera.name, camera.rate_hz) == ("left", 30.0)
    with Filming(namespace, domain, topic) as filming:
        camera.open()
        frames = []
        wait_until(lambda: len(frames) >= 10 or ((f := camera.read(1.0)) and frames.append(f)), "ten frames")
        camera.close()
    for frame in frames:
        captured_ns = min(filming.frames, key=lambda ns: abs(from_wire(ns) - frame.capture_ns))
        assert abs(from_wire(captured_ns) - frame.capture_ns) < 5_000_000
        assert np.abs(frame.pixels.astype(int) - filming.frames[captured_ns]).max() <= 3  # JPEG is not exact
    assert [frame.sequence for frame in frames] == sorted({frame.sequence for frame in frames})


def test_a_camera_that_nobody_feeds_gives_nothing_and_closed_it_refuses(namespace, domain):
    camera = TopicCamera(wire=wire(namespace, domain)).build(MonotonicClock())
    with pytest.raises(CameraError, match="closed"):
        camera.read(0.0)
    camera.open()
    assert camera.read(0.2) is None
    camera.close()


def test_a_picture_that_cannot_be_read_is_left_out_and_the_next_one_is_not(namespace, domain, caplog):
    camera = TopicCamera(wire=wire(namespace, domain)).build(MonotonicClock())
    camera.open()
    transport = connect(NodeConfig("odd", namespace, domain=domain, localhost_only=True))
    try:
        publisher = transport.publisher(topics.IMAGE)
        assert transport.wait_for_readers(topics.IMAGE, 1, LIMIT_S)
        pixels = np.zeros((4, 4, 3), np.uint8)
        good = image_message(Frame(pixels, 0, "wire", "front", 1), to_wire(time.monotonic_ns()), "camera")
        bad = image_message(Frame(pixels, 0, "wire", "front", 1), to_wire(time.monotonic_ns()), "camera")
        bad.encoding = "bayer_rggb8"
        publisher.publish(bad)
        wait_until(lambda: camera.read(0.2) or "bayer_rggb8" in caplog.text, "the odd picture is left out")
        good.header = header(to_wire(time.monotonic_ns()), "camera")
        publisher.publish(good)
        wait_until(lambda: camera.read(1.0), "the good picture")
    finally:
        transport.close()
        camera.close()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (lambda: TopicCamera(rate_hz=0.0), "rate_hz"),
        (lambda: TopicCamera(rate_hz=float("nan")), "rate_hz"),
        (lambda: CmdVel(command_timeout_s=-1.0), "command_timeout_s"),
        (lambda: CmdVel(open_limit_s=float("inf")), "open_limit_s"),
        (lambda: TopicCamera().build(ManualClock()), "monotonic"),
        (lambda: CmdVel().build(ManualClock()), "monotonic"),
        (lambda: TopicCamera(wire=Wire(carrier="pigeon")).build(MonotonicClock()).open(), "pigeon"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        settings()
