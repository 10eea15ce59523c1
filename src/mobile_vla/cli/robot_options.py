"""Options of the commands that have to do with a robot on the wire: which robot, which node, which names."""

import argparse
import contextlib
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mobile_vla.core import ConfigError

if TYPE_CHECKING:
    from mobile_vla.ros.transport import NodeConfig
    from mobile_vla.runtime.config import RobotConfig

SIM_IMAGE_HZ = 20.0


def add_robot(parser: argparse.ArgumentParser) -> None:
    """Which robot: a file and overrides, or the simulated one."""
    parser.add_argument(
        "--robot", type=Path, metavar="FILE", help="the robot's YAML file: camera, base, limits, safety"
    )
    parser.add_argument("--sim", action="store_true", help="the simulated robot instead")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings of the robot, e.g. camera.kind=usb")


def add_node(parser: argparse.ArgumentParser) -> None:
    """How to speak on the wire."""
    parser.add_argument("--namespace", default="/", metavar="/NAME", help="of this robot, where there are several")
    parser.add_argument(
        "--remap", action="append", default=[], metavar="TOPIC:=NAME", help="another name for a topic of the table"
    )
    parser.add_argument("--domain", type=int, help="ROS domain (default: ROS_DOMAIN_ID, else 0)")
    parser.add_argument(
        "--localhost", action="store_true", default=None, help="nothing leaves this machine (ROS_LOCALHOST_ONLY=1)"
    )
    parser.add_argument("--transport", choices=("auto", "dds", "rclpy"), default="auto", help="what carries messages")


def node_words(options: argparse.Namespace) -> list[str]:
    """The options of ``add_node`` again, for a process that is to speak as this one does."""
    words = [f"--namespace={options.namespace}", f"--transport={options.transport}"]
    words += [f"--remap={remap}" for remap in options.remap]
    if options.domain is not None:
        words.append(f"--domain={options.domain}")
    return [*words, "--localhost"] if options.localhost else words


def node_config(options: argparse.Namespace, name: str) -> "NodeConfig":
    """A node called ``name``; ConfigError for a remapping that is none."""
    from mobile_vla.ros.transport import Carrier, NodeConfig

    remap = {}
    for words in options.remap:
        old, arrow, new = words.partition(":=")
        if not (arrow and old and new):
            raise ConfigError(f"{words!r} is no remapping: write TOPIC:=NAME, e.g. cmd_vel:=/base/cmd_vel")
        remap[old] = new
    return NodeConfig(name, options.namespace, remap, options.domain, options.localhost, Carrier(options.transport))


def require_undriven(options: argparse.Namespace) -> None:
    """NotAloneError where a control node or drive has this robot: listens for 1.5 s as a node of its own."""
    from mobile_vla.ros.alone import require_alone
    from mobile_vla.ros.connect import connect

    with contextlib.closing(connect(node_config(options, "lookout"))) as transport:
        require_alone(transport)


def robot_of(options: argparse.Namespace, needs: Collection[str] = ("camera", "base")) -> "RobotConfig":
    """The robot that is meant, with the parts that are needed; a camera or base that is a topic speaks as the node."""
    from mobile_vla.ros.devices import CmdVel, TopicCamera, Wire
    from mobile_vla.runtime.config import RobotConfig, read_robot

    if options.sim:
        from mobile_vla.ros.topics import SIM_IMAGE
        from mobile_vla.sim.limits import LIMITS

        if options.robot or options.settings:
            raise ConfigError("--sim is a robot of its own: leave out --robot and its settings")
        camera = TopicCamera(topic=SIM_IMAGE.name, rate_hz=SIM_IMAGE_HZ)
        robot = RobotConfig("topic", camera, "cmd_vel", CmdVel(), name="sim", limits=LIMITS)
    else:
        robot = read_robot(options.robot, options.settings, needs)
    here = Wire(options.namespace, options.transport, options.domain, options.localhost)
    if isinstance(robot.camera, TopicCamera) and robot.camera.wire == Wire():
        robot = replace(robot, camera=replace(robot.camera, wire=here))
    if isinstance(robot.base, CmdVel) and robot.base.wire == Wire():
        robot = replace(robot, base=replace(robot.base, wire=here))
    return robot
