"""A camera and a base that are topics: frames that somebody else publishes, a driver that listens to ``cmd_vel``.

As kinds of camera and base they stand beside the others (``camera.kind=topic``, ``base.kind=cmd_vel``). Each has a node
of its own on the wire, in the process that uses it.
"""

import contextlib
import logging
import math
import threading
import time
from dataclasses import dataclass, replace

from mobile_vla.core import (
    ZERO_TWIST,
    BaseError,
    CameraError,
    Clock,
    ConfigError,
    Frame,
    MonotonicClock,
    Twist,
)
from mobile_vla.robot.odometry import Pose
from mobile_vla.ros.connect import connect
from mobile_vla.ros.messages import (
    TransportError,
    frame_from_image,
    pose_from_odometry,
    stamp_ns,
    twist,
    twist_from_message,
    twist_stamped,
)
from mobile_vla.ros.topics import CMD_VEL, IMAGE, IMAGE_COMPRESSED, ODOM
from mobile_vla.ros.transport import Carrier, NodeConfig, Publisher, Received, Transport
from mobile_vla.ros.wire_time import from_wire, to_wire

_log = logging.getLogger(__name__)

STAMPED_TYPE = "geometry_msgs/msg/TwistStamped"


@dataclass(frozen=True)
class Wire:
    """How a device's own node speaks: as in ``ros.transport.NodeConfig``."""

    namespace: str = "/"
    carrier: str = Carrier.AUTO.value
    domain: int | None = None
    localhost_only: bool | None = None


@dataclass(frozen=True)
class TopicCamera:
    """Settings: frames from ``topic``, ``compressed`` or raw, at nominally ``rate_hz``."""

    topic: str = "camera/image_raw"
    compressed: bool = False
    rate_hz: float = 30.0
    name: str = "front"
    wire: Wire = Wire()

    def __post_init__(self) -> None:
        if not (math.isfinite(self.rate_hz) and self.rate_hz > 0):
            raise ConfigError(f"rate_hz is {self.rate_hz}; it needs to be positive and finite")

    def build(self, clock: Clock) -> "CameraOfTopic":
        """A closed camera; ``clock`` has to be the monotonic one, by which stamps from the wire are told."""
        _require_monotonic(clock)
        return CameraOfTopic(self)


class CameraOfTopic:
    """See ``robot.protocols.Camera``. Sequence numbers count what arrived; what was lost before is not known."""

    def __init__(self, settings: TopicCamera) -> None:
        self._settings = settings
        self._transport: Transport | None = None
        self._filled = threading.Condition()
        self._newest: tuple[int, Received] | None = None
        self._last_capture_ns = 0
        self._sequence = -1

    @property
    def name(self) -> str:
        """Of its frames."""
        return self._settings.name

    @property
    def rate_hz(self) -> float:
        """As set: the topic does not say."""
        return self._settings.rate_hz

    def open(self) -> None:
        """Subscribe. That nobody publishes is no error: frames may come later."""
        if self._transport is not None:
            return
        table = IMAGE_COMPRESSED if self._settings.compressed else IMAGE
        self._newest = None
        self._transport = _connect("camera_driver", self._settings.wire)
        self._transport.subscribe(replace(table, name=self._settings.topic), self._on_image)

    def close(self) -> None:
        """Unsubscribe."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def read(self, timeout_s: float) -> Frame | None:
        """The newest frame since the last one; CameraError when closed. One that cannot be read is left out."""
        if self._transport is None:
            raise CameraError(f"camera {self.name} is closed: open it before reading")
        with self._filled:
            self._filled.wait_for(lambda: self._newest is not None, timeout_s)
            newest, self._newest = self._newest, None
        if newest is None:
            return None
        sequence, received = newest
        captured_ns = from_wire(stamp_ns(received.message))
        if captured_ns <= self._last_capture_ns:
            return None
        self._last_capture_ns = captured_ns
        try:
            return frame_from_image(
                received.message,
                capture_ns=captured_ns,
                clock=MonotonicClock.name,
                camera=self.name,
                sequence=sequence,
            )
        except TransportError as error:
            _log.warning("a frame on %s is left out: %s", self._settings.topic, error)
            return None

    def _on_image(self, received: Received) -> None:
        with self._filled:
            self._sequence += 1
            self._newest = self._sequence, received
            self._filled.notify()


@dataclass(frozen=True)
class CmdVel:
    """Settings: a driver that obeys ``topic`` and publishes ``odometry``; ``stamped``: it wants TwistStamped.

    ``command_timeout_s``: that of the driver, after which it stops by itself (ros2_control's default is 0.5 s): look it
    up, this program cannot.
    """

    topic: str = CMD_VEL.name
    odometry: str = ODOM.name
    stamped: bool = False
    command_timeout_s: float = 0.5
    open_limit_s: float = 10.0
    wire: Wire = Wire()

    def __post_init__(self) -> None:
        for name in ("command_timeout_s", "open_limit_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} is {value}; it needs to be positive and finite")

    def build(self, clock: Clock) -> "BaseOfTopics":
        """A closed base; ``clock`` has to be the monotonic one, by which stamps from the wire are told."""
        _require_monotonic(clock)
        return BaseOfTopics(self)


class BaseOfTopics:
    """See ``robot.protocols.Base``. Open it is when a driver reads its commands and odometry has come."""

    def __init__(self, settings: CmdVel) -> None:
        self._settings = settings
        self._transport: Transport | None = None
        self._commands: Publisher | None = None
        self._lock = threading.Lock()
        self._measured: tuple[int, Twist] | None = None
        self._origin: Pose | None = None
        self._pose: Pose | None = None

    @property
    def command_timeout_s(self) -> float:
        """As set."""
        return self._settings.command_timeout_s

    @property
    def has_feedback(self) -> bool:
        """It has."""
        return True

    @property
    def odometry(self) -> Pose | None:
        """As the driver says, from where it said to be when this was opened; None before it said anything."""
        with self._lock:
            return self._pose and self._origin and self._origin.inverse().at(self._pose)

    @property
    def feedback_ns(self) -> int | None:
        """When odometry last arrived, on the monotonic clock; None before."""
        with self._lock:
            return self._measured[0] if self._measured else None

    def open(self) -> None:
        """BaseError when no driver is there within ``open_limit_s``."""
        if self._transport is not None:
            return
        settings = self._settings
        transport = _connect("base_driver", settings.wire)
        table = replace(CMD_VEL, name=settings.topic, type=STAMPED_TYPE if settings.stamped else CMD_VEL.type)
        commands = transport.publisher(table)
        transport.subscribe(replace(ODOM, name=settings.odometry), self._on_odometry)
        end_s = time.monotonic() + settings.open_limit_s
        while commands.readers == 0 or self.feedback_ns is None:
            if time.monotonic() > end_s:
                lacks = "nobody reads it" if commands.readers == 0 else f"there is no odometry on {settings.odometry}"
                transport.close()
                raise BaseError(
                    f"no driver answers on {settings.topic}: {lacks}; start the robot's driver, or set base.topic, "
                    "base.odometry, base.wire.namespace and ROS_DOMAIN_ID as it has them"
                )
            time.sleep(0.02)
        self._transport, self._commands = transport, commands
        self.stop()

    def close(self) -> None:
        """Stop, and leave the graph."""
        self.stop()
        transport, self._transport, self._commands = self._transport, None, None
        if transport is not None:
            transport.close()
        with self._lock:
            self._measured = self._pose = self._origin = None

    def send(self, velocity: Twist) -> Twist:
        """Publish it. BaseError when closed, and when nobody reads it, which closes; ValueError when not finite."""
        if not all(map(math.isfinite, (velocity.vx, velocity.vy, velocity.wz))):
            self.stop()
            raise ValueError(f"the base cannot move at {velocity}: every component must be finite")
        if self._commands is None:
            raise BaseError(f"the base on {self._settings.topic} is closed: open it first")
        if self._commands.readers == 0:
            self.close()  # it stays so until somebody opens it again, and no old command waits for a new driver
            raise BaseError(f"nobody reads {self._settings.topic} any more: the robot's driver is gone")
        self._publish(velocity)
        return velocity

    def velocity(self) -> Twist:
        """As the driver's odometry last said; zero before it said anything, when the base is closed."""
        with self._lock:
            return self._measured[1] if self._measured else ZERO_TWIST

    def stop(self) -> None:
        """Publish zero where that can be done."""
        if self._commands is not None:
            with contextlib.suppress(TransportError):
                self._publish(ZERO_TWIST)

    def _publish(self, velocity: Twist) -> None:
        assert self._commands is not None
        if self._settings.stamped:
            self._commands.publish(twist_stamped(velocity, to_wire(time.monotonic_ns())))
        else:
            self._commands.publish(twist(velocity))

    def _on_odometry(self, received: Received) -> None:
        measured = twist_from_message(received.message.twist.twist)
        pose = Pose(*pose_from_odometry(received.message))
        with self._lock:
            self._measured, self._pose = (received.received_ns, measured), pose
            self._origin = self._origin or pose


def _connect(name: str, wire: Wire) -> Transport:
    try:
        carrier = Carrier(wire.carrier)
    except ValueError:
        raise ConfigError(f"there is no carrier {wire.carrier!r}: use one of {', '.join(Carrier)}") from None
    return connect(
        NodeConfig(name, wire.namespace, domain=wire.domain, localhost_only=wire.localhost_only, carrier=carrier)
    )


def _require_monotonic(clock: Clock) -> None:
    if clock.name != MonotonicClock.name:
        raise ConfigError(f"a robot of topics lives on the clock {MonotonicClock.name!r}, not on {clock.name!r}")
