"""Bags of a robot that turns, written by rosbags, by mcap itself, and by our own recorder."""

import numpy as np
from mcap.writer import Writer as McapWriter
from rosbags.rosbag2 import StoragePlugin, Writer

from mobile_vla.core import Frame, Twist
from mobile_vla.ros import messages as m
from mobile_vla.ros import topics
from mobile_vla.ros.bag import BagWriter

START_NS = 1_700_000_000_000_000_000
HEIGHT, WIDTH = 24, 32
MS = 1_000_000
IMAGE, COMPRESSED, CMD, ODOM, WORDS = "/cam", "/cam/compressed", "/cmd_vel", "/odom", "/control/instruction"
KINDS = {
    IMAGE: "sensor_msgs/msg/Image",
    COMPRESSED: "sensor_msgs/msg/CompressedImage",
    CMD: "geometry_msgs/msg/Twist",
    "/stamped": "geometry_msgs/msg/TwistStamped",
    ODOM: "nav_msgs/msg/Odometry",
    WORDS: "std_msgs/msg/String",
    "/joy": "sensor_msgs/msg/Joy",
}


def picture(number):
    """Red to the left, brighter with each; blue to the right."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:, : WIDTH // 2, 0] = 40 + number % 40 * 5
    pixels[:, WIDTH // 2 :, 2] = 220
    return pixels


def command(time_ms):
    """A new one every 50 ms, that tells its time: each axis has values of its own."""
    step = time_ms // 50
    return Twist(0.001 * step, -0.002 * step, 0.003 * step)


def image(number, stamp_ns, compressed=False):
    frame = Frame(picture(number), 0, "monotonic", "front", number)
    return (m.compressed_message if compressed else m.image_message)(frame, stamp_ns, "camera")


def drive(seconds=4.0, camera_ms=40, delay_ms=15, said=((-5, "go to the red cup"),), compressed=False):
    """(topic, received_ns, message): pictures every ``camera_ms`` arrive ``delay_ms`` after their capture."""
    made = [(WORDS, START_NS + time_ms * MS, m.string(text)) for time_ms, text in said]
    for number, time_ms in enumerate(range(0, int(seconds * 1000), camera_ms)):
        stamp = START_NS + time_ms * MS
        made.append((COMPRESSED if compressed else IMAGE, stamp + delay_ms * MS, image(number, stamp, compressed)))
    for time_ms in range(0, int(seconds * 1000), 50):
        stamp = START_NS + time_ms * MS
        made.append((CMD, stamp, m.twist(command(time_ms))))
        half = command(time_ms)
        measured = Twist(half.vx / 2, half.vy / 2, half.wz / 2)
        made.append((ODOM, stamp + MS, m.odometry(measured, (0.0, 0.0, 0.0), stamp)))
    made.append(("/joy", START_NS, m.joy([0.0], [0], START_NS)))
    return sorted(made, key=lambda entry: entry[1])


def write_by_rosbags(path, made, plugin=StoragePlugin.MCAP):
    with Writer(path, version=9, storage_plugin=plugin) as writer:
        names = dict.fromkeys(topic for topic, _, _ in made)
        connections = {name: writer.add_connection(name, KINDS[name], typestore=m.TYPES) for name in names}
        for topic, received_ns, message in made:
            writer.write(connections[topic], received_ns, m.serialise(KINDS[topic], message))
    return path


def write_by_sqlite(path, made):
    return write_by_rosbags(path, made, StoragePlugin.SQLITE3)


def write_by_mcap(path, made):
    """One file alone, as a recorder outside ROS writes it."""
    path = path.with_suffix(".mcap")
    with path.open("wb") as file:
        writer = McapWriter(file)
        writer.start(profile="ros2", library="test")
        channels = {}
        for topic in dict.fromkeys(topic for topic, _, _ in made):
            kind = KINDS[topic]
            definition = m.TYPES.generate_msgdef(kind, ros_version=2)[0].encode()
            channels[topic] = writer.register_channel(topic, "cdr", writer.register_schema(kind, "ros2msg", definition))
        for topic, received_ns, message in made:
            writer.add_message(channels[topic], received_ns, m.serialise(KINDS[topic], message), received_ns)
        writer.finish()
    return path


def write_by_us(path, made):
    """As ``mobile-vla up --record`` does."""
    table = {
        IMAGE: topics.IMAGE, COMPRESSED: topics.IMAGE_COMPRESSED, CMD: topics.CMD_VEL, ODOM: topics.ODOM,
        WORDS: topics.ACTIVE_INSTRUCTION, "/joy": topics.JOY,
    }  # fmt: skip
    with BagWriter(path, table, min_free_bytes=0) as writer:
        for topic, received_ns, message in made:
            writer.write(topic, message, received_ns)
    return path


WRITERS = (write_by_rosbags, write_by_sqlite, write_by_mcap, write_by_us)


def axes(topic):
    fields = ("linear.x", "linear.y", "angular.z")
    units = ("m/s", "m/s", "rad/s")
    positive = ("forward", "left", "counter-clockwise")
    return {
        name: {"topic": topic, "field": field, "unit": unit, "positive": sign}
        for name, field, unit, sign in zip(("linear_x", "linear_y", "angular_z"), fields, units, positive, strict=True)
    }


def mapping():
    return {
        "contract": {"limits": [0.6, 0.6, 1.5], "rate_hz": 10, "horizon": 4, "frame_rate_hz": 5},
        "stamps": "header",
        "command_timeout_s": 0.5,
        "state_timeout_s": 0.2,
        "camera": {"topic": IMAGE, "channel_order": "encoding"},
        "action": axes(CMD),
        "state": axes(ODOM),
        "instruction": {"topic": WORDS},
    }
