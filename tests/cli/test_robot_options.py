import argparse

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobile_vla.cli.robot_options import add_node, add_robot, node_config, node_words, robot_of
from mobile_vla.core import ConfigError
from mobile_vla.ros.devices import CmdVel, TopicCamera, Wire
from mobile_vla.ros.topics import SIM_IMAGE, TOPICS
from mobile_vla.ros.transport import Carrier, NodeConfig
from mobile_vla.sim.limits import LIMITS


def parser():
    parser = argparse.ArgumentParser()
    add_robot(parser)
    add_node(parser)
    return parser


def parse(*arguments):
    return parser().parse_args([str(argument) for argument in arguments])


def test_without_options_a_node_is_as_ros_has_it():
    assert node_config(parse(), "camera") == NodeConfig("camera")


def test_a_node_speaks_as_its_options_say():
    options = parse(
        *("--namespace", "/r1", "--domain", 7, "--localhost", "--transport", "dds"),
        *("--remap", "cmd_vel:=/base/cmd_vel", "--remap", "odom:=wheel_odom"),
    )
    remap = {"cmd_vel": "/base/cmd_vel", "odom": "wheel_odom"}
    assert node_config(options, "control") == NodeConfig("control", "/r1", remap, 7, True, Carrier.DDS)


names = st.sampled_from([topic.name for topic in TOPICS])
words = st.builds(
    lambda namespace, domain, localhost, transport, remaps: [
        f"--namespace={namespace}",
        *([] if domain is None else [f"--domain={domain}"]),
        *(["--localhost"] if localhost else []),
        f"--transport={transport}",
        *(f"--remap={old}:={new}" for old, new in remaps),
    ],
    st.sampled_from(["/", "/robot_1", "/lab/robot_2"]),
    st.none() | st.integers(0, 232),
    st.booleans(),
    st.sampled_from(["auto", "dds", "rclpy"]),
    st.lists(st.tuples(names, st.sampled_from(["/a/b", "other"])), max_size=3),
)


@settings(deadline=None)
@given(words)
def test_a_child_that_is_given_the_words_of_its_parent_speaks_as_its_parent(arguments):
    parent = parse(*arguments)
    child = parse(*node_words(parent))
    assert node_config(child, "any") == node_config(parent, "any")


@pytest.mark.parametrize("wrong", ["cmd_vel", "cmd_vel:=", ":=odom", "cmd_vel=odom"])
def test_a_remapping_that_is_none_is_refused(wrong):
    with pytest.raises(ConfigError, match="is no remapping"):
        node_config(parse("--remap", wrong), "any")


def test_the_simulated_robot_is_a_camera_and_a_base_that_are_topics_of_the_same_node():
    robot = robot_of(parse("--sim", "--namespace", "/r1", "--domain", 7, "--localhost"))
    here = Wire("/r1", "auto", 7, True)
    assert robot.camera == TopicCamera(topic=SIM_IMAGE.name, rate_hz=20.0, wire=here)
    assert robot.base == CmdVel(wire=here)
    assert robot.limits == LIMITS
    assert (robot.camera_kind, robot.base_kind) == ("topic", "cmd_vel")


def test_a_robot_of_topics_speaks_as_its_node_unless_it_says_how():
    options = ("camera.kind=topic", "base.kind=cmd_vel", "--namespace", "/r1", "--domain", 7)
    robot = robot_of(parse(*options))
    assert robot.camera.wire == robot.base.wire == Wire("/r1", "auto", 7, None)
    other = robot_of(parse(*options[:2], "base.wire.namespace=/base", *options[2:]))
    assert other.base.wire == Wire("/base")
    assert other.camera.wire == Wire("/r1", "auto", 7, None)


@pytest.mark.parametrize("place", [0, 2, 4])
def test_settings_stand_together_before_between_or_after_the_options(place, tmp_path):
    (tmp_path / "robot.yaml").write_text("name: r\ncamera: {kind: usb}\nbase: {kind: ideal}\n", encoding="utf-8")
    arguments = ["--robot", tmp_path / "robot.yaml", "--domain", "7"]
    arguments[place:place] = ["camera.kind=pattern", "base.lag_s=0.3"]
    robot = robot_of(parse(*arguments))
    assert (robot.name, robot.camera_kind, robot.base.lag_s) == ("r", "pattern", 0.3)


@pytest.mark.parametrize("more", [["--robot", "robot.yaml"], ["camera.kind=usb"]])
def test_the_simulated_robot_takes_no_settings(more):
    with pytest.raises(ConfigError, match="--sim is a robot of its own"):
        robot_of(parse("--sim", *more))


def test_no_robot_at_all_is_refused():
    with pytest.raises(ConfigError, match="no camera is configured"):
        robot_of(parse())


@pytest.mark.parametrize(("part", "kind"), [("camera", "pattern"), ("base", "ideal"), ("camera", "topic")])
def test_a_command_names_the_parts_it_needs(part, kind):
    robot = robot_of(parse(f"{part}.kind={kind}"), needs=(part,))
    assert getattr(robot, f"{part}_kind") == kind
    with pytest.raises(ConfigError, match=r"no (camera|base) is configured"):
        robot_of(parse(f"{part}.kind={kind}"))
