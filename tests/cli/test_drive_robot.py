"""A robot driven in one process: by a person at a terminal, and watched over the wire."""

import json
import re
import signal

import pytest

from mobile_vla.ros import topics
from mobile_vla.ros.messages import boolean, pixels_from_compressed
from ros.nodes.world import Outside

from .program import program
from .wire import DOMAIN, Graph, command, new_namespace, on, wait_until

ROBOT = ("camera.kind=pattern", "camera.width=192", "camera.height=96", "base.kind=ideal")
GO = ("drive", "--say", "go to the red cup")


@pytest.fixture
def namespace():
    return new_namespace()


def driving(namespace, *more):
    """The command line of a drive with the shipped policy, which sees no cup in a test pattern and looks for one."""
    return (*GO, *ROBOT, *on(namespace), *more)


@pytest.fixture
def outside(namespace):
    with Outside(namespace, DOMAIN) as outside:
        for topic in (topics.SAFETY, topics.IMAGE_COMPRESSED, topics.ODOM):
            outside.listen(topic)
        yield outside


def until_it_runs(here, outside):
    """A dumb terminal shows no live line: the wire tells."""
    here.hold(b"", lambda: outside.safety.get("state") == "running", "running")


def test_the_space_bar_is_an_emergency_stop(namespace, outside):
    with program(*driving(namespace, "--max-seconds", 100)) as here:
        until_it_runs(here, outside)
        here.type(b" ")
        assert here.end() == 1
        assert "stopped: the space bar was pressed" in here.said
        assert "Traceback" not in here.said


def test_the_key_to_stop_ramps_to_rest(namespace, outside):
    with program(*driving(namespace, "--max-seconds", 100)) as here:
        until_it_runs(here, outside)
        here.type(b"k")
        assert here.end() == 1
        assert "requested: " in here.said


def test_others_see_it_and_sigterm_brings_it_to_rest(namespace, outside, tmp_path):
    graph = Graph()
    with command(tmp_path, *driving(namespace, "--max-seconds", 100, "--json")) as running:
        wait_until(lambda: outside.safety.get("state") == "running", lambda: running.err)
        assert outside.safety["instruction"] == "go to the red cup"
        wait_until(lambda: outside.newest(topics.IMAGE_COMPRESSED), "the picture")
        assert pixels_from_compressed(outside.newest(topics.IMAGE_COMPRESSED)).shape == (96, 192, 3)
        wait_until(lambda: outside.newest(topics.ODOM), "odometry")
        wait_until(lambda: f"{namespace}/drive" in graph.nodes(), "its node")
        wait_until(lambda: abs(float(outside.safety["wz_radps"])) > 0.1, "it moves")
        assert running.end(signal.SIGTERM) == 1
        told = json.loads(running.out)
    assert (told["ending"], told["at_rest"]) == ("requested", True)
    assert told["decisions"] > 0
    assert outside.safety["vx_mps"] in ("0.0000", "-0.0000")
    assert outside.safety["wz_radps"] in ("0.0000", "-0.0000")
    turns = [float(each) for each in re.findall(r"wz ([+-]\d\.\d\d)", running.err)]
    assert turns == []  # with --json nothing is said but the object
    assert "no terminal: the keyboard cannot stop the robot" in running.err


def test_an_emergency_stop_over_the_wire_stops_it_and_it_says_so_last(namespace, outside, tmp_path):
    with command(tmp_path, *driving(namespace, "--max-seconds", 100)) as running:
        wait_until(lambda: outside.safety.get("state") == "running", lambda: running.err)
        outside.publish(topics.EMERGENCY_STOP, boolean(True))
        assert running.end() == 1
        assert running.out.startswith("stopped: an emergency stop came over the wire, ")
    wait_until(lambda: outside.safety["state"] == "emergency_stop", "the wire was told")


def test_without_ros_nothing_is_published(namespace, outside, tmp_path):
    graph = Graph()
    with command(tmp_path, *driving(namespace, "--no-ros", "--max-seconds", 1)) as running:
        assert running.end() == 1
        assert running.out.startswith("time_limit: ")
    assert outside.heard[topics.SAFETY.name] == []
    assert f"{namespace}/drive" not in graph.nodes()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("camera.kind=usb", "base.kind=idael"), "ideal"),
        (("camera.kind=patern", "base.kind=ideal"), "pattern"),
        (("camera.kind=pattern",), "no base is configured"),
        (("camera.kind=pattern", "base.kind=ideal", "base.lag=1"), "lag_s"),
        (("camera.kind=pattern", "camera.rate_hz=2", "base.kind=ideal", "--no-ros"), "2.0 frames a second"),
        (("camera.kind=pattern", "base.kind=serial", "base.port=/dev/no-such-port", "--no-ros"), "/dev/no-such-port"),
        (("camera.kind=usb", "camera.device=/dev/video77", "base.kind=ideal", "--no-ros"), "/dev/video77"),
        (("camera.kind=pattern", "base.kind=ideal", "--policy", "nowhere"), "nowhere"),
    ],
)
def test_what_cannot_drive_is_one_sentence(refuse, arguments, words):
    assert words in refuse(*GO, *arguments)


def test_words_that_cannot_be_followed_are_refused_first(refuse):
    assert "unicorn" in refuse("drive", "--say", "go to the red unicorn", *ROBOT)
