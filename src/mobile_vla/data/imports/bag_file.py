"""One ROS 2 bag or MCAP: its topics, and messages of the few types that an import needs. Nothing in it is executed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from struct import unpack_from
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.interfaces import MessageDefinitionFormat
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from mobile_vla.core import NS_PER_S, DatasetError
from mobile_vla.data.imports.contents import Part, Role
from mobile_vla.data.imports.pictures import decoded, ordered

TYPES = get_typestore(Stores.ROS2_JAZZY)
IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
TWIST, TWIST_STAMPED = "geometry_msgs/msg/Twist", "geometry_msgs/msg/TwistStamped"
ODOMETRY, STRING = "nav_msgs/msg/Odometry", "std_msgs/msg/String"
STAMPED = (IMAGE, COMPRESSED, TWIST_STAMPED, ODOMETRY)
ROLES = {
    IMAGE: Role.CAMERA, COMPRESSED: Role.CAMERA, TWIST: Role.NUMBERS, TWIST_STAMPED: Role.NUMBERS,
    ODOMETRY: Role.NUMBERS, STRING: Role.TEXT,
}  # fmt: skip
FIELDS = ("linear.x", "linear.y", "linear.z", "angular.x", "angular.y", "angular.z")
"""Numbers of a twist; of an Odometry, that of its twist."""
ENCODINGS = {
    "rgb8": (3, "rgb"), "bgr8": (3, "bgr"), "rgba8": (4, "rgb"), "bgra8": (4, "bgr"),
    "8UC3": (3, ""), "8UC4": (4, ""), "mono8": (1, "rgb"),
}  # fmt: skip
"""Bytes a pixel, and the order that the encoding names; "" where it names none."""
SUFFIXES = (".mcap", ".db3")


@dataclass(frozen=True, slots=True)
class Raw:
    """One message. ``received_ns`` and ``header_ns`` (None without a header) in the time of the bag's machine."""

    topic: str
    type: str
    received_ns: int
    header_ns: int | None
    data: bytes


class BagFile:
    """A folder of ``ros2 bag``, or one .mcap or .db3 file, opened for reading. DatasetError when it cannot be."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reader = Reader(path)
        with _named(path):
            self._reader.open()

    def __enter__(self) -> "BagFile":
        return self

    def __exit__(self, *error: object) -> None:
        self._reader.close()

    def types(self) -> dict[str, str]:
        """By topic, of those that an import can use and whose fields are those that we know."""
        return {
            connection.topic: connection.msgtype
            for connection in self._reader.connections
            if connection.msgtype in ROLES and _fields_known(connection)
        }

    def parts(self) -> tuple[Part, ...]:
        """Every topic with its type, count and mean rate."""
        usable, seconds = self.types(), max(self._reader.duration / NS_PER_S, 1e-9)
        counts: dict[tuple[str, str], int] = {}
        for connection in self._reader.connections:
            key = (connection.topic, connection.msgtype)
            counts[key] = counts.get(key, 0) + connection.msgcount
        parts = []
        for (topic, kind), count in sorted(counts.items()):
            role = ROLES[kind] if topic in usable else Role.OTHER
            rate = f", {count / seconds:.3g} Hz" if count > 1 else ""
            numbers = FIELDS if role is Role.NUMBERS else ()
            parts.append(Part(topic, role, f"{kind}, {count} messages{rate}", numbers))
        return tuple(parts)

    def messages(self, topics: Sequence[str], start_ns: int | None = None, stop_ns: int | None = None) -> Iterator[Raw]:
        """Of ``topics``, in the order in which they were recorded, from ``start_ns`` to before ``stop_ns``.

        DatasetError for a topic that is missing or of no use, and where the bag is damaged.
        """
        usable = self.types()
        for topic in topics:
            if topic not in usable:
                has = "; ".join(map(str, self.parts()))
                raise DatasetError(f"{self.path} has no topic {topic} that can be imported; it has {has}")
        wanted = [connection for connection in self._reader.connections if connection.topic in topics]
        messages = self._reader.messages(connections=wanted, start=start_ns, stop=stop_ns)
        while True:
            with _named(self.path):
                found = next(messages, None)
                if found is None:
                    return
                connection, received_ns, data = found
                header_ns = header_stamp(data) if connection.msgtype in STAMPED else None
            yield Raw(connection.topic, connection.msgtype, received_ns, header_ns, data)


def header_stamp(data: bytes) -> int:
    """Of a message that begins with a Header, from its CDR bytes, so that no picture is unpacked for it."""
    seconds, nanoseconds = unpack_from("<iI" if data[1] & 1 else ">iI", data, 4)
    return int(seconds) * NS_PER_S + int(nanoseconds)


def numbers_of(raw: Raw) -> list[float]:
    """In the order of ``FIELDS``."""
    message = _message(raw)
    while hasattr(message, "twist"):
        message = message.twist
    return [float(getattr(vector, axis)) for vector in (message.linear, message.angular) for axis in "xyz"]


def text_of(raw: Raw) -> str:
    """Of a String."""
    return str(_message(raw).data)


def pixels_of(raw: Raw, channel_order: str) -> NDArray[np.uint8]:
    """RGB uint8 (H, W, 3). ``channel_order``: that of the bytes, or "encoding" to believe the message.

    Of a CompressedImage: of the picture as its file says, so "rgb" and "encoding" are the same. ValueError when the
    picture is damaged, or its encoding is not in ``ENCODINGS`` or names no order.
    """
    message = _message(raw)
    if raw.type == COMPRESSED:
        return ordered(decoded(np.asarray(message.data).tobytes()), channel_order)
    height, width, step = int(message.height), int(message.width), int(message.step)
    if message.encoding not in ENCODINGS:
        raise ValueError(f"its encoding is {message.encoding!r}, and {', '.join(ENCODINGS)} are read")
    channels, order = ENCODINGS[message.encoding]
    if channel_order != "encoding":
        order = channel_order
    if not order:
        raise ValueError(f"its encoding {message.encoding} names no order: write camera.channel_order rgb or bgr")
    data = np.asarray(message.data)
    if height * width == 0 or step < width * channels or data.size != height * step:
        raise ValueError(f"{width}x{height} {message.encoding} in rows of {step} bytes cannot have {data.size} bytes")
    pixels = data.reshape(height, step)[:, : width * channels].reshape(height, width, channels)
    if channels == 1:
        return np.repeat(pixels, 3, axis=2)
    return ordered(pixels[:, :, :3], order)


def bags_of(path: Path) -> list[Path]:
    """``path`` itself, or the bags in the folder ``path``. DatasetError when there is none."""
    if path.is_file():
        if path.suffix not in SUFFIXES:
            raise DatasetError(f"{path} is no bag: give a folder with metadata.yaml, or a file {' or '.join(SUFFIXES)}")
        return [path]
    if (path / "metadata.yaml").is_file():
        return [path]
    folders = {each.parent for each in path.rglob("metadata.yaml")}
    alone = [each for suffix in SUFFIXES for each in path.rglob(f"*{suffix}") if each.parent not in folders]
    if not folders and not alone:
        raise DatasetError(f"{path} holds no bag: give a folder with metadata.yaml, or files {' or '.join(SUFFIXES)}")
    return sorted([*folders, *alone])


def _message(raw: Raw) -> Any:
    try:
        return TYPES.deserialize_cdr(raw.data, raw.type)
    except Exception as error:  # rosbags' generated code trusts its input, so damage may raise anything
        raise ValueError(f"{len(raw.data)} bytes are no {raw.type}: {error}") from error


def _fields_known(connection: Any) -> bool:
    """The bag's own definition, where it has one, has the fields of ours; it is parsed, and no code is made of it."""
    if connection.msgdef.format is not MessageDefinitionFormat.MSG or not connection.msgdef.data:
        return True
    try:
        theirs = get_types_from_msg(connection.msgdef.data, connection.msgtype)
    except Exception:  # rosbags' parser raises what the text makes of it
        return False
    return all(name in TYPES.fielddefs and TYPES.fielddefs[name][1] == fields for name, (_, fields) in theirs.items())


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """What rosbags raises, which is whatever the damage makes of it, names the bag."""
    try:
        yield
    except (DatasetError, MemoryError):
        raise
    except Exception as error:
        raise DatasetError(
            f"the bag {path} cannot be read ({error}): one that was never finished is made whole by "
            "mobile_vla.ros.bag.recover or `ros2 bag reindex`"
        ) from error
