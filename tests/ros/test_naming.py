"""Names: what ROS allows, and what they are on the wire."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.core import ConfigError
from mobile_vla.ros import naming, topics

TOKENS = st.text(string.ascii_letters + string.digits, min_size=1, max_size=12).map(lambda text: f"a{text}_b")
RELATIVE = st.lists(TOKENS, min_size=1, max_size=4).map("/".join)


@pytest.mark.parametrize(
    ("namespace", "node"), [("/", "/n"), ("", "/n"), ("/robot", "/robot/n"), ("robot", "/robot/n"), ("/a/b/", "/a/b/n")]
)
def test_the_full_name_of_a_node(namespace, node):
    assert naming.node_name(namespace, "n") == node


@pytest.mark.parametrize("namespace", ["/1", "/a//b", "/a b", "/a__b", "/~", "/ä", "/" + "x" * 300])
def test_a_namespace_that_ros_does_not_allow_is_refused(namespace):
    with pytest.raises(ConfigError, match="name a namespace"):
        naming.node_name(namespace, "n")


@pytest.mark.parametrize("name", ["", "/", "a/", "//a", "1a", "a b", "~/a", "a__b", "a-b", "{sub}", "x" * 300])
def test_a_topic_name_that_ros_does_not_allow_is_refused(name):
    with pytest.raises(ConfigError, match="name a topic"):
        naming.topic_name(name, "/", {})


@given(RELATIVE, RELATIVE)
def test_relative_names_get_the_namespace_and_absolute_ones_stay(name, namespace):
    assert naming.topic_name(name, f"/{namespace}", {}) == f"/{namespace}/{name}"
    assert naming.topic_name(name, "/", {}) == f"/{name}"
    assert naming.topic_name(f"/{name}", f"/{namespace}", {}) == f"/{name}"


@given(RELATIVE, RELATIVE, RELATIVE)
def test_both_sides_of_a_remapping_follow_the_same_rule(old, new, namespace):
    for key in (old, f"/{namespace}/{old}"):
        assert naming.topic_name(old, f"/{namespace}", {key: new}) == f"/{namespace}/{new}"
        assert naming.topic_name(old, f"/{namespace}", {key: f"/{new}"}) == f"/{new}"


def test_what_was_renamed_is_not_renamed_again():
    assert naming.topic_name("a", "/", {"a": "b", "b": "a"}) == "/b"


def test_a_remapping_of_nothing_is_refused_with_the_nearest_name():
    names = [topic.name for topic in topics.TOPICS]
    naming.require_known({"cmd_vel": "/other", "/robot/odom": "x", "/diagnostics": "y"}, "/robot", names)
    with pytest.raises(ConfigError, match="did you mean 'camera/image_raw'"):
        naming.require_known({"camera/image": "x"}, "/robot", names)


def test_names_on_the_wire():
    assert naming.wire_topic("/robot/cmd_vel") == "rt/robot/cmd_vel"
    assert naming.wire_type("trajectory_msgs/msg/MultiDOFJointTrajectory") == (
        "trajectory_msgs::msg::dds_::MultiDOFJointTrajectory_"
    )


@pytest.mark.parametrize("name", ["String", "std_msgs/String", "std_msgs/srv/String", "std_msgs/msg/string", ""])
def test_a_type_that_is_no_message_is_refused(name):
    with pytest.raises(ConfigError, match="write it like std_msgs/msg/String"):
        naming.wire_type(name)


def test_every_topic_of_the_table_has_an_allowed_name_and_type():
    for topic in topics.TOPICS:
        assert naming.topic_name(topic.name, "/robot_1", {}).startswith("/")
        assert naming.wire_type(topic.type).endswith("_")
