"""ROS 2 messages: to and from CDR bytes, and to and from our nouns.

Messages are ``rosbags``' dataclasses of ROS 2 Jazzy. For the types in ``topics`` the bytes are the same in Humble.
Stamps are ROS system time: integer nanoseconds since 1970. Arrays of a read message are views of its bytes.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from io import BytesIO
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image as Pictures
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.stores import ros2_jazzy as ros

from mobile_vla.core import NS_PER_S, ActionChunk, Frame, Grounding, MobileVLAError, Status, Twist

TYPES = get_typestore(Stores.ROS2_JAZZY)
"""Every type that can be written and read, with its fields, its definition and its hash (REP-2016)."""

MAX_PICTURE_PIXELS = 1 << 26  # 8192 x 8192: more is no camera but an attack on memory
MAX_CHUNK_ROWS = 1024
CDR_LITTLE_ENDIAN = b"\x00\x01\x00\x00"


class TransportError(MobileVLAError):
    """A message cannot be written, carried or read."""


class Level(IntEnum):
    """How a part does, as in ``diagnostic_msgs/DiagnosticStatus``."""

    OK = 0
    WARN = 1
    ERROR = 2
    STALE = 3


def serialise(type_name: str, message: Any) -> bytes:
    """CDR with its four bytes of encapsulation; TransportError for a message that is not of ``type_name``."""
    try:
        return bytes(TYPES.serialize_cdr(message, type_name, little_endian=True))
    except KeyError:
        raise TransportError(f"{type_name!r} is not a message type that we know: see ros/topics.py") from None
    except Exception as error:
        # rosbags generates code that trusts its input, so a wrong field may raise anything
        raise TransportError(f"a message cannot be written as {type_name}: {error}") from error


def deserialise(type_name: str, data: bytes | memoryview) -> Any:
    """The message in CDR bytes of either byte order; TransportError for bytes that do not hold one."""
    try:
        return TYPES.deserialize_cdr(memoryview(data), type_name)
    except KeyError:
        raise TransportError(f"{type_name!r} is not a message type that we know: see ros/topics.py") from None
    except (SerdeError, AssertionError, IndexError, OverflowError, TypeError, MemoryError) as error:
        raise TransportError(f"{len(data)} bytes do not hold a {type_name}: {error}") from error


def type_hash(type_name: str) -> str:
    """ "RIHS01_..." of a type (REP-2016), which Iron and later compare; TransportError for an unknown type."""
    if type_name not in TYPES.fielddefs:
        raise TransportError(f"{type_name!r} is not a message type that we know: see ros/topics.py")
    return TYPES.hash_rihs01(type_name)


def time_message(stamp_ns: int) -> Any:
    """``builtin_interfaces/Time``; TransportError outside 1970 to 2038, which its 32 bits cannot say."""
    seconds, nanoseconds = divmod(stamp_ns, NS_PER_S)
    if not 0 <= seconds < 1 << 31:
        raise TransportError(f"a stamp of {stamp_ns} ns is no ROS time: it counts from 1970 and ends in 2038")
    return ros.builtin_interfaces__msg__Time(seconds, nanoseconds)


def header(stamp_ns: int, frame_id: str = "") -> Any:
    """``std_msgs/Header``."""
    return ros.std_msgs__msg__Header(time_message(stamp_ns), frame_id)


def stamp_ns(message: Any) -> int:
    """System time in the header of ``message``."""
    stamp = message.header.stamp
    return int(stamp.sec) * NS_PER_S + int(stamp.nanosec)


def string(text: str) -> Any:
    """``std_msgs/String``; its text is ``message.data``."""
    return ros.std_msgs__msg__String(text)


def boolean(value: bool) -> Any:
    """``std_msgs/Bool``; its value is ``message.data``."""
    return ros.std_msgs__msg__Bool(value)


def empty() -> Any:
    """``std_msgs/Empty``."""
    return ros.std_msgs__msg__Empty()


def twist(velocity: Twist) -> Any:
    """``geometry_msgs/Twist`` of a planar velocity."""
    return ros.geometry_msgs__msg__Twist(
        ros.geometry_msgs__msg__Vector3(velocity.vx, velocity.vy, 0.0),
        ros.geometry_msgs__msg__Vector3(0.0, 0.0, velocity.wz),
    )


def twist_stamped(velocity: Twist, stamp_ns: int, frame_id: str = "base_link") -> Any:
    """``geometry_msgs/TwistStamped``."""
    return ros.geometry_msgs__msg__TwistStamped(header(stamp_ns, frame_id), twist(velocity))


def twist_from_message(message: Any) -> Twist:
    """From a Twist, a TwistStamped or an Odometry; its values may be NaN or infinite, which safety judges."""
    while hasattr(message, "twist"):
        message = message.twist
    return Twist(float(message.linear.x), float(message.linear.y), float(message.angular.z))


def odometry(velocity: Twist, pose: tuple[float, float, float], stamp_ns: int) -> Any:
    """``nav_msgs/Odometry``: ``velocity`` in base_link, ``pose`` (x m, y m, yaw rad) of it in odom; no covariances."""
    x, y, yaw = pose
    where = ros.geometry_msgs__msg__Pose(
        ros.geometry_msgs__msg__Point(x, y, 0.0),
        ros.geometry_msgs__msg__Quaternion(0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2)),
    )
    return ros.nav_msgs__msg__Odometry(
        header(stamp_ns, "odom"),
        "base_link",
        ros.geometry_msgs__msg__PoseWithCovariance(where, np.zeros(36)),
        ros.geometry_msgs__msg__TwistWithCovariance(twist(velocity), np.zeros(36)),
    )


def pose_from_odometry(message: Any) -> tuple[float, float, float]:
    """(x m, y m, yaw rad) of the base in the frame of its odometry; yaw in -pi..pi."""
    position, turn = message.pose.pose.position, message.pose.pose.orientation
    yaw = math.atan2(2 * (turn.w * turn.z + turn.x * turn.y), 1 - 2 * (turn.y * turn.y + turn.z * turn.z))
    return float(position.x), float(position.y), yaw


def image_message(frame: Frame, stamp_ns: int, frame_id: str) -> Any:
    """``sensor_msgs/Image`` in rgb8; ``stamp_ns``: capture of ``frame`` in system time."""
    height, width, _ = frame.pixels.shape
    data = np.ascontiguousarray(frame.pixels).reshape(-1)
    return ros.sensor_msgs__msg__Image(header(stamp_ns, frame_id), height, width, "rgb8", 0, 3 * width, data)


def pixels_from_image(message: Any) -> NDArray[np.uint8]:
    """RGB (H, W, 3), a copy, from rgb8, bgr8 or mono8, rows padded or not; TransportError for anything else."""
    height, width, step = int(message.height), int(message.width), int(message.step)
    channels = {"rgb8": 3, "bgr8": 3, "mono8": 1}.get(message.encoding)
    if channels is None:
        raise TransportError(f"an image encoded as {message.encoding!r} is not read: send rgb8, bgr8 or mono8")
    data = np.asarray(message.data)
    if height * width == 0 or step < width * channels or data.size != height * step:
        raise TransportError(
            f"an image of {width}x{height} {message.encoding} with rows of {step} bytes cannot have {data.size} bytes"
        )
    rows = data.reshape(height, step)[:, : width * channels].reshape(height, width, channels)
    if message.encoding == "mono8":
        return np.repeat(rows, 3, axis=2)
    return np.array(rows[:, :, ::-1] if message.encoding == "bgr8" else rows, order="C")


def frame_from_image(message: Any, *, capture_ns: int, clock: str, camera: str, sequence: int) -> Frame:
    """A Frame of an Image or a CompressedImage; ``capture_ns`` is its stamp on ``clock``."""
    pixels = pixels_from_compressed(message) if hasattr(message, "format") else pixels_from_image(message)
    return Frame(pixels, capture_ns, clock, camera, sequence)


def compressed_message(frame: Frame, stamp_ns: int, frame_id: str, quality: int = 85) -> Any:
    """``sensor_msgs/CompressedImage`` as JPEG; ``quality`` 1 to 100."""
    data = simplejpeg.encode_jpeg(np.ascontiguousarray(frame.pixels), quality=quality, colorspace="RGB")
    return ros.sensor_msgs__msg__CompressedImage(header(stamp_ns, frame_id), "jpeg", np.frombuffer(data, np.uint8))


def pixels_from_compressed(message: Any) -> NDArray[np.uint8]:
    """RGB (H, W, 3) from JPEG or PNG, told by their first bytes; TransportError for other and for damaged data."""
    data = np.ascontiguousarray(message.data).tobytes()
    try:
        if data.startswith(b"\xff\xd8"):
            height, width, _, _ = simplejpeg.decode_jpeg_header(data)
            _require_size(width, height)
            return np.asarray(simplejpeg.decode_jpeg(data, colorspace="RGB"))
        if data.startswith(b"\x89PNG"):
            with Pictures.open(BytesIO(data), formats=["PNG"]) as picture:
                _require_size(*picture.size)
                return np.array(picture.convert("RGB"))
    except (ValueError, OSError, SyntaxError) as error:
        raise TransportError(f"a compressed image of {len(data)} bytes is damaged: {error}") from error
    raise TransportError(f"a compressed image of format {message.format!r} is not read: send JPEG or PNG")


def _require_size(width: int, height: int) -> None:
    if not 0 < width * height <= MAX_PICTURE_PIXELS:
        raise TransportError(f"a picture of {width}x{height} pixels is not read: {MAX_PICTURE_PIXELS} are the limit")


def camera_info(
    width: int,
    height: int,
    stamp_ns: int,
    frame_id: str,
    matrix: Sequence[float] | None = None,
    distortion: Sequence[float] = (),
) -> Any:
    """``sensor_msgs/CameraInfo``.

    ``matrix``: the nine numbers of K, row by row, in pixels; None for a camera that was not calibrated, written as
    zeros, which is the message's own way to say so. ``distortion``: k1, k2, p1, p2, k3 of "plumb_bob".
    """
    intrinsic = np.zeros(9) if matrix is None else np.array(matrix, dtype=np.float64)
    if intrinsic.shape != (9,):
        raise TransportError(f"a camera matrix has nine numbers, row by row, and not {intrinsic.size}")
    projection = np.zeros((3, 4))
    projection[:, :3] = intrinsic.reshape(3, 3)
    rotation = np.zeros(9) if matrix is None else np.eye(3).reshape(-1)
    return ros.sensor_msgs__msg__CameraInfo(
        header(stamp_ns, frame_id),
        height,
        width,
        "plumb_bob" if len(distortion) else "",
        np.array(distortion, dtype=np.float64),
        intrinsic,
        rotation,
        projection.reshape(-1),
        0,
        0,
        ros.sensor_msgs__msg__RegionOfInterest(0, 0, 0, 0, False),
    )


def joy(axes: Sequence[float], buttons: Sequence[int], stamp_ns: int) -> Any:
    """``sensor_msgs/Joy``; ``axes`` -1 to 1, ``buttons`` 0 or 1."""
    return ros.sensor_msgs__msg__Joy(header(stamp_ns), np.array(axes, np.float32), np.array(buttons, np.int32))


def chunk_message(chunk: ActionChunk, stamp_ns: int) -> Any:
    """``trajectory_msgs/MultiDOFJointTrajectory``; ``stamp_ns``: capture of the frame in system time.

    Point k holds row k as its one velocity from ``time_from_start`` = k periods on. A last point without velocities
    says when the last row ends, so that a chunk of one row tells its rate too. Read back it is the same to the bit.
    """
    points = [_point(row * chunk.period_ns, [twist(Twist.from_array(v))]) for row, v in enumerate(chunk.velocities)]
    points.append(_point(chunk.horizon * chunk.period_ns, []))
    return ros.trajectory_msgs__msg__MultiDOFJointTrajectory(header(stamp_ns, "base_link"), ["base_link"], points)


def _point(after_ns: int, velocities: list[Any]) -> Any:
    seconds, nanoseconds = divmod(after_ns, NS_PER_S)
    duration = ros.builtin_interfaces__msg__Duration(seconds, nanoseconds)
    return ros.trajectory_msgs__msg__MultiDOFJointTrajectoryPoint([], velocities, [], duration)


def chunk_from_message(message: Any) -> ActionChunk:
    """Back from ``chunk_message``; ``stamp_ns`` of the chunk is system time. TransportError for any other trajectory.

    Velocities may be NaN or infinite: the safety layer stops on them.
    """
    points = message.points
    times_ns = [int(p.time_from_start.sec) * NS_PER_S + int(p.time_from_start.nanosec) for p in points]
    rows = len(points) - 1
    if not 1 <= rows <= MAX_CHUNK_ROWS or times_ns[1] <= 0:
        raise TransportError(
            f"a chunk of {len(points)} points is not read: it has 1 to {MAX_CHUNK_ROWS} rows and an end"
        )
    period_ns = times_ns[1]
    if times_ns != [row * period_ns for row in range(rows + 1)]:
        raise TransportError("the rows of a chunk are not evenly spaced from 0 on: send it at one rate")
    if any(len(p.velocities) != 1 for p in points[:-1]) or points[-1].velocities:
        raise TransportError("a chunk has one velocity a row and none in its last point, which is its end")
    twists = [twist_from_message(p.velocities[0]) for p in points[:-1]]
    with np.errstate(over="ignore"):
        velocities = np.array([(t.vx, t.vy, t.wz) for t in twists], dtype=np.float64).astype(np.float32)
    return ActionChunk(velocities, stamp_ns(message), _rate_hz(period_ns))


def _rate_hz(period_ns: int) -> float:
    """The whole number of Hz that has this period, where there is one."""
    whole = max(1, round(NS_PER_S / period_ns))
    return float(whole) if round(NS_PER_S / whole) == period_ns else NS_PER_S / period_ns


def diagnostics(level: Level, name: str, message: str, values: Mapping[str, str], stamp_ns: int) -> Any:
    """``diagnostic_msgs/DiagnosticArray`` with one status: ``name`` of the part, a sentence, named values."""
    pairs = [ros.diagnostic_msgs__msg__KeyValue(key, value) for key, value in values.items()]
    status = ros.diagnostic_msgs__msg__DiagnosticStatus(int(level), name, message, "", pairs)
    return ros.diagnostic_msgs__msg__DiagnosticArray(header(stamp_ns), [status])


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One status of a DiagnosticArray. ``level`` is a number because others may send any."""

    level: int
    name: str
    message: str
    values: Mapping[str, str]


def diagnoses(message: Any) -> list[Diagnosis]:
    """Every status of a DiagnosticArray."""
    return [Diagnosis(int(s.level), s.name, s.message, {p.key: p.value for p in s.values}) for s in message.status]


BELIEF_NAME = "inference: belief"
_BELIEF_NUMBERS = ("visibility", "bearing_rad", "distance_m", "inference_ms")


def belief_message(
    belief: Grounding, instruction: str, inference_ms: float, stamp_ns: int, measured: Twist | None = None
) -> Any:
    """Where the policy believes the target to be, for which words, and how long it thought, as a DiagnosticArray.

    ``measured``: the velocity of the base that the policy was told, for who replays it.
    """
    numbers = (belief.visibility, belief.bearing_rad, belief.distance_m, inference_ms)
    values = {key: repr(float(value)) for key, value in zip(_BELIEF_NUMBERS, numbers, strict=True)}
    values["box"] = json.dumps([float(side) for side in belief.box])
    values["instruction"] = instruction
    if measured is not None:
        values["measured"] = json.dumps([measured.vx, measured.vy, measured.wz])
    return diagnostics(Level.OK, BELIEF_NAME, belief.status.value, values, stamp_ns)


def belief_from_message(message: Any) -> tuple[Grounding, str, float]:
    """Back from ``belief_message``: belief, instruction, milliseconds; TransportError for any other array."""
    for found in diagnoses(message):
        if found.name == BELIEF_NAME:
            try:
                visibility, bearing, distance, spent_ms = (float(found.values[key]) for key in _BELIEF_NUMBERS)
                left, top, right, bottom = (float(side) for side in json.loads(found.values["box"]))
                box, status = (left, top, right, bottom), Status(found.message)
                return Grounding(visibility, bearing, distance, box, status), found.values["instruction"], spent_ms
            except (KeyError, ValueError, TypeError, RecursionError) as error:
                raise TransportError(f"a belief cannot be read: {error}") from error
    raise TransportError(f"a DiagnosticArray without the status {BELIEF_NAME!r} is not a belief")


def measured_from_belief(message: Any) -> Twist | None:
    """The velocity that the policy was told; None where the belief does not say."""
    for found in diagnoses(message):
        if found.name == BELIEF_NAME and "measured" in found.values:
            try:
                vx, vy, wz = (float(component) for component in json.loads(found.values["measured"]))
            except (ValueError, TypeError, RecursionError) as error:
                raise TransportError(f"the velocity of a belief cannot be read: {error}") from error
            return Twist(vx, vy, wz)
    return None


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """Ranges about a sensor. ``angles_rad`` float64 (n,), counter-clockwise from its x axis; ``ranges_m`` float64 (n,).

    As in REP-117 a range is +inf where nothing was seen, -inf where something was too close, NaN where it is invalid.
    """

    angles_rad: NDArray[np.float64]
    ranges_m: NDArray[np.float64]
    frame_id: str
    stamp_ns: int


def scan_message(
    ranges_m: Sequence[float] | NDArray[np.floating],
    *,
    angle_min_rad: float,
    angle_step_rad: float,
    range_min_m: float,
    range_max_m: float,
    stamp_ns: int,
    frame_id: str,
    period_s: float = 0.1,
) -> Any:
    """``sensor_msgs/LaserScan`` without intensities; beam i looks along ``angle_min_rad`` + i ``angle_step_rad``."""
    ranges = np.array(ranges_m, dtype=np.float32)
    last = angle_min_rad + angle_step_rad * max(0, ranges.size - 1)
    return ros.sensor_msgs__msg__LaserScan(
        header(stamp_ns, frame_id), angle_min_rad, last, angle_step_rad, 0.0, period_s, range_min_m, range_max_m,
        ranges, np.zeros(0, np.float32),
    )  # fmt: skip


def scan_from_message(message: Any) -> Scan:
    """Angles and ranges of a LaserScan; a finite range outside its own limits becomes NaN, as the message asks."""
    ranges = np.array(message.ranges, dtype=np.float64)
    angles = float(message.angle_min) + float(message.angle_increment) * np.arange(ranges.size, dtype=np.float64)
    outside = (ranges < float(message.range_min)) | (ranges > float(message.range_max))
    ranges[np.isfinite(ranges) & outside] = np.nan
    return Scan(angles, ranges, message.header.frame_id, stamp_ns(message))
