"""The table of topics: the one place that says what goes over the wire, how, how often, and when it is too old.

Names are relative: a robot's namespace stands before them, and the command line can rename them. All types are
standard ones of ROS 2 (common_interfaces), so that ``ros2 topic echo``, rviz2 and rosbag2 need nothing of ours.
"""

from dataclasses import dataclass

from mobile_vla.core.backports import StrEnum


class Qos(StrEnum):
    """Quality of service by its name in the table; REP-2003's profiles where there is one."""

    SENSOR = "sensor"  # written reliable, read best effort, keep last 5, volatile
    NEWEST = "newest"  # written reliable, read best effort, keep last 1, volatile: an older one is worth nothing
    DEFAULT = "default"  # reliable, keep last 10, volatile
    LATCHED = "latched"  # reliable, keep last 1, transient local: who comes later gets it too


@dataclass(frozen=True, slots=True)
class Topic:
    """One row. ``rate_hz`` is nominal, None for what comes when it comes; ``stale_after_s`` None: never too old.

    ``writer``: the part of the system that publishes it, "outside" for what others send us. ``means`` is for people.
    """

    name: str
    type: str
    qos: Qos
    rate_hz: float | None
    stale_after_s: float | None
    writer: str
    means: str


IMAGE = Topic(
    "camera/image_raw", "sensor_msgs/msg/Image", Qos.NEWEST, 30.0, 0.5, "camera",
    "camera frames, rgb8; written only while somebody reads them",
)  # fmt: skip
IMAGE_COMPRESSED = Topic(
    "camera/image_raw/compressed", "sensor_msgs/msg/CompressedImage", Qos.SENSOR, 30.0, 0.5, "camera",
    "the same as JPEG, for people and recorders; written only while somebody reads them",
)  # fmt: skip
CAMERA_INFO = Topic(
    "camera/camera_info", "sensor_msgs/msg/CameraInfo", Qos.SENSOR, 30.0, 0.5, "camera",
    "size and, where the camera was calibrated, intrinsics; same stamp as its image",
)  # fmt: skip
INSTRUCTION = Topic(
    "instruction", "std_msgs/msg/String", Qos.DEFAULT, None, None, "outside",
    "where to go, in words; empty: nowhere, come to rest",
)  # fmt: skip
ACTIVE_INSTRUCTION = Topic(
    "control/instruction", "std_msgs/msg/String", Qos.LATCHED, None, None, "control",
    "the instruction that control accepted and inference follows; empty while there is none",
)  # fmt: skip
CONTRACT = Topic(
    "inference/contract", "std_msgs/msg/String", Qos.LATCHED, None, None, "inference",
    "the policy's action contract and name, as JSON",
)  # fmt: skip
CHUNK = Topic(
    "inference/chunk", "trajectory_msgs/msg/MultiDOFJointTrajectory", Qos.DEFAULT, 5.0, 0.5, "inference",
    "future velocities of base_link; the stamp is the capture of the frame they were decided on",
)  # fmt: skip
BELIEF = Topic(
    "inference/belief", "diagnostic_msgs/msg/DiagnosticArray", Qos.DEFAULT, 5.0, 0.5, "inference",
    "where the policy believes the target to be, its status, the instruction, the time it took; stamp as its chunk",
)  # fmt: skip
CMD_VEL = Topic(
    "cmd_vel", "geometry_msgs/msg/Twist", Qos.NEWEST, 50.0, 0.5, "control",
    "what the base is to do now, after the safety layer; TwistStamped on request",
)  # fmt: skip
ODOM = Topic(
    "odom", "nav_msgs/msg/Odometry", Qos.NEWEST, 50.0, 0.5, "base",
    "velocity measured by the base, and its sum as a pose",
)  # fmt: skip
SAFETY = Topic(
    "control/safety", "diagnostic_msgs/msg/DiagnosticArray", Qos.DEFAULT, 10.0, 0.5, "control",
    "state and reason of the safety layer, command, ages and delays of what lies behind it",
)  # fmt: skip
EMERGENCY_STOP = Topic(
    "emergency_stop", "std_msgs/msg/Bool", Qos.DEFAULT, None, None, "outside",
    "true: stop and latch; false: the button is released, which alone starts nothing",
)  # fmt: skip
REARM = Topic(
    "rearm", "std_msgs/msg/Empty", Qos.DEFAULT, None, None, "outside",
    "undo an emergency stop; the robot then waits for resume",
)  # fmt: skip
RESUME = Topic(
    "resume", "std_msgs/msg/Empty", Qos.DEFAULT, None, None, "outside",
    "go on after a protective stop or a takeover",
)  # fmt: skip
HEARTBEAT = Topic(
    "heartbeat", "std_msgs/msg/Empty", Qos.DEFAULT, 5.0, 1.0, "outside",
    "an operator watches; once it is asked for, its loss is an emergency stop",
)  # fmt: skip
JOY = Topic(
    "joy", "sensor_msgs/msg/Joy", Qos.DEFAULT, 20.0, 0.5, "outside",
    "a gamepad: the stick takes over, buttons stop, re-arm and resume",
)  # fmt: skip
SCAN = Topic(
    "scan", "sensor_msgs/msg/LaserScan", Qos.NEWEST, 10.0, 0.5, "outside",
    "free distances round the robot, for the stop distance; optional",
)  # fmt: skip
DEPTH = Topic(
    "depth/image_rect_raw", "sensor_msgs/msg/Image", Qos.NEWEST, 30.0, 0.5, "outside",
    "depth image, 16UC1 or 32FC1, for the stop distance instead of the scan; optional",
)  # fmt: skip
DIAGNOSTICS = Topic(
    "/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", Qos.DEFAULT, 1.0, 3.0, "every node",
    "how each node does, as ROS tools expect it",
)  # fmt: skip
SIM_IMAGE = Topic(
    "sim/image_raw", "sensor_msgs/msg/Image", Qos.NEWEST, 20.0, 0.5, "sim",
    "what the simulated camera sees; the camera node opens it as a camera",
)  # fmt: skip
SIM_SCENE = Topic(
    "sim/scene", "std_msgs/msg/String", Qos.DEFAULT, None, None, "outside",
    'the scene to load, as JSON: {"scenario": ..., "seed": ...}; the robot is put at its start',
)  # fmt: skip
SIM_VERDICT = Topic(
    "sim/verdict", "std_msgs/msg/String", Qos.LATCHED, None, None, "sim",
    "how the last instruction came out, judged from the true state, as JSON",
)  # fmt: skip

TOPICS = (
    IMAGE, IMAGE_COMPRESSED, CAMERA_INFO, INSTRUCTION, ACTIVE_INSTRUCTION, CONTRACT, CHUNK, BELIEF, CMD_VEL, ODOM,
    SAFETY, EMERGENCY_STOP, REARM, RESUME, HEARTBEAT, JOY, SCAN, DEPTH, DIAGNOSTICS,
    SIM_IMAGE, SIM_SCENE, SIM_VERDICT,
)  # fmt: skip
"""All of them, in the order of the way of a frame."""


def as_markdown() -> str:
    """The table as it stands in docs/robot.md."""
    lines = ["| topic | type | QoS | Hz | stale after | written by | what it is |", "|---|---|---|---|---|---|---|"]
    for topic in TOPICS:
        rate = "–" if topic.rate_hz is None else f"{topic.rate_hz:g}"
        stale = "–" if topic.stale_after_s is None else f"{topic.stale_after_s:g} s"
        words = (f"`{topic.name}`", f"`{topic.type}`", topic.qos, rate, stale, topic.writer, topic.means)
        lines.append(f"| {' | '.join(words)} |")
    return "\n".join(lines)
