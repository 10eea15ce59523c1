"""A robot driven in one process: by a person at a terminal, and watched over the wire."""

import contextlib
import json
import re
import signal
import threading
import time

import numpy as np
import pytest

from mobile_vla.cli import drive_robot
from mobile_vla.cli.main import main
from mobile_vla.core import Instruction, Status, Twist
from mobile_vla.ros import topics
from mobile_vla.ros.messages import boolean, pixels_from_compressed, scan_message
from mobile_vla.ros.wire_time import to_wire
from mobile_vla.runtime import Ending, Outcome
from mobile_vla.runtime.realtime import attainable
from mobile_vla.safety import Reason
from ros.nodes.world import Outside

from .program import program
from .wire import DOMAIN, Graph, command, new_namespace, on, wait_until

ROBOT = ("camera.kind=pattern", "camera.width=192", "camera.height=96", "base.kind=ideal")
CLEARANCE = ("safety.clearance.robot_radius_m=0.15", "safety.clearance.stop_distance_m=0.2")
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


@pytest.mark.needs("torch")
def test_the_space_bar_is_an_emergency_stop(namespace, outside):
    with program(*driving(namespace, "--max-seconds", 100)) as here:
        here.wait_for("robot: camera pattern, base ideal")
        here.wait_for("understood: go to the red cup")
        here.wait_for("space: emergency stop; k or Ctrl-C: come to rest")
        here.wait_for(f"control thread: {attainable()}")
        until_it_runs(here, outside)
        here.type(b" ")
        assert here.end() == 1
        assert "stopped: the space bar was pressed" in here.said
        assert "Traceback" not in here.said


def test_a_terminal_that_hangs_holds_up_nobody(monkeypatch):
    hangs, release, shown = threading.Event(), threading.Event(), []

    class Hanging:
        def show(self, tick):
            shown.append(tick)
            hangs.set()
            release.wait(60)

    monkeypatch.setattr(drive_robot, "DISPLAY_LIMIT_S", 0.05)
    display = drive_robot._Display(Hanging())
    try:
        with display:
            for tick in range(1000):
                display.newest = tick
            assert hangs.wait(60)
        assert shown == [999]
    finally:
        release.set()
        display._thread.join(60)
    assert not display._thread.is_alive()


@pytest.mark.needs("torch")
def test_the_key_to_stop_ramps_to_rest(namespace, outside):
    with program(*driving(namespace, "--max-seconds", 100)) as here:
        until_it_runs(here, outside)
        here.type(b"k")
        assert here.end() == 1
        assert "stopped on request" in here.said


@pytest.mark.parametrize(
    ("key", "ending"), [(b" ", "stopped: the space bar was pressed"), (b"k", "stopped on request")]
)
@pytest.mark.needs("torch")
def test_a_key_pressed_while_it_starts_is_heard_and_nothing_moves(namespace, outside, key, ending):
    outside.listen(topics.CMD_VEL)
    with program(*GO, *ROBOT[:-1], "base.kind=cmd_vel", *on(namespace)) as here:
        here.wait_for("space: emergency stop")
        here.type(key)
        assert here.end() == 1
        assert ending in here.said
    assert outside.heard[topics.CMD_VEL.name] == []  # the base was not even opened
    assert outside.heard[topics.SAFETY.name] == []


@pytest.mark.needs("torch")
def test_a_key_pressed_when_the_devices_are_open_is_heard_before_the_first_motion(monkeypatch, namespace, capsys):
    from mobile_vla.robot.bases.ideal import IdealBase

    sent = []
    monkeypatch.setattr(IdealBase, "send", lambda self, twist: sent.append(twist))
    began = drive_robot._Person.outcome

    def press(person, instruction):
        if person.drives:
            person.emergency_stop("the space bar was pressed")
        return began(person, instruction)

    monkeypatch.setattr(drive_robot._Person, "outcome", press)
    assert main([*map(str, driving(namespace, "--no-ros", "--json"))]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["ending"], told["reason"]) == ("stopped", "emergency_stop")
    assert sent == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.needs("torch")
def test_a_signal_ends_a_start_at_once(namespace, tmp_path, number):
    with command(tmp_path, *driving(namespace)) as running:
        wait_until(lambda: "no terminal" in running.err, lambda: running.err)
        # the second is 130 too for a shell: Python ends so when the signal came while it made a dataclass
        assert running.end(number) in (130, -signal.SIGINT)
        assert running.err.endswith("mobile-vla: stopped\n")


@pytest.mark.needs("torch")
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


@pytest.mark.needs("torch")
def test_an_emergency_stop_over_the_wire_stops_it_and_it_says_so_last(namespace, outside, tmp_path):
    with command(tmp_path, *driving(namespace, "--max-seconds", 100)) as running:
        wait_until(lambda: outside.safety.get("state") == "running", lambda: running.err)
        outside.publish(topics.EMERGENCY_STOP, boolean(True))
        assert running.end() == 1
        assert running.out == "stopped: an emergency stop came over the wire\n"
    wait_until(lambda: outside.safety["state"] == "emergency_stop", "the wire was told")


@pytest.mark.needs("torch")
def test_without_ros_nothing_is_published(namespace, outside, tmp_path):
    graph = Graph()
    with command(tmp_path, *driving(namespace, "--no-ros", "--max-seconds", 1)) as running:
        assert running.end() == 1
        assert running.out.startswith("not done: time limit of 1 s, the policy ")
    assert outside.heard[topics.SAFETY.name] == []
    assert f"{namespace}/drive" not in graph.nodes()


@pytest.mark.needs("torch")  # it is loaded before the devices are opened
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
        (("camera.kind=pattern", "base.kind=ideal", "--policy", "nowhere", "--no-ros"), "nowhere"),
        ((*ROBOT, *CLEARANCE, "--no-ros"), "leave out --no-ros"),
    ],
)
def test_what_cannot_drive_is_one_sentence_at_the_end(call, arguments, words):
    code, out, err = call(*GO, *arguments)
    assert (code, out) == (2, "")
    *before, last = err.splitlines()
    assert last.startswith("mobile-vla: ")
    assert words in last
    assert all(line.startswith(("robot: ", "understood: ", "space: ", "no terminal: ")) for line in before)


@pytest.mark.parametrize(
    ("option", "value"),
    [("--scene", "absent"), ("--seed", "0"), ("--base", "rollers"), ("--out", "here"), ("--pace", "0")],
)
def test_options_of_the_simulation_are_refused(refuse, option, value):
    assert f"{option} is for the simulated robot" in refuse(*GO, *ROBOT, option, value)


def test_told_to_stop_it_stops_the_base_and_asks_no_policy(call, monkeypatch):
    from mobile_vla.robot.bases.ideal import IdealBase

    stops, stop = [], IdealBase.stop
    monkeypatch.setattr(IdealBase, "stop", lambda self: (stops.append(1), stop(self))[1])
    code, out, _ = call("drive", "--say", "stop", *ROBOT, "--policy", "nowhere", "--no-ros")
    assert (code, out) == (0, "nothing to do: the robot stands\n")
    assert stops


def test_a_base_that_is_told_to_stop_and_goes_on_is_no_success(call, monkeypatch):
    from mobile_vla.robot.bases.ideal import IdealBase

    monkeypatch.setattr(IdealBase, "velocity", lambda self: Twist(0.3, 0.0, 0.0))
    code, out, _ = call("drive", "--say", "멈춰", *ROBOT, "--no-ros")
    assert code == 1
    assert "still moves: use its switch" in out


@pytest.mark.needs("torch")
def test_two_on_one_robot_are_refused(namespace, outside, tmp_path):
    with (
        command(tmp_path, *driving(namespace, "--max-seconds", 100)) as first,
        contextlib.ExitStack() as stack,
    ):
        wait_until(lambda: outside.safety.get("state") == "running", lambda: first.err)
        second = stack.enter_context(command(tmp_path, *driving(namespace)))
        assert second.end() == 2
        assert f"a control node or drive is up here already ({namespace}/drive)" in second.err
        assert first.end(signal.SIGTERM) == 1


@pytest.mark.needs("torch")
def test_it_heeds_a_range_sensor_on_the_wire(namespace, outside, tmp_path):
    with command(tmp_path, *GO, *ROBOT, *CLEARANCE, *on(namespace), "--max-seconds", 100) as running:
        wait_until(lambda: outside.safety.get("reason") == "range_too_old", lambda: f"{outside.safety} {running.err}")

        def it_runs():
            scan = scan_message(
                np.full(100, 5.0),
                angle_min_rad=-3.1,
                angle_step_rad=0.062,
                range_min_m=0.1,
                range_max_m=10.0,
                stamp_ns=to_wire(time.monotonic_ns()),
                frame_id="laser",
            )
            outside.publish(topics.SCAN, scan)
            return outside.safety["state"] == "running"

        wait_until(it_runs, lambda: f"{outside.safety} {running.err}")
        assert running.end(signal.SIGTERM) == 1
        assert running.out == "stopped on request\n"
    assert "holding" in running.err


@pytest.mark.parametrize("words", [("teleop",), ("record", "--out", "none")])
def test_commands_that_hear_no_range_sensor_refuse_a_robot_that_is_to_heed_one(refuse, words):
    assert "safety.clearance needs the range sensor on the wire" in refuse(*words, *ROBOT, *CLEARANCE)


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        ((Ending.FINISHED, Status.ARRIVED, Reason.DRIVING, "driving"), "done: the policy says arrived, 8.2 s"),
        (
            (Ending.TIME_LIMIT, Status.DRIVING, Reason.DRIVING, "driving"),
            "not done: time limit of 4 s, the policy was driving",
        ),
        (
            (Ending.TIME_LIMIT, None, Reason.NO_FRAME, "no observation yet"),
            "not done: time limit of 4 s, the policy said nothing, the robot held: no observation yet",
        ),
        ((Ending.STOPPED, None, Reason.OBSTACLE, "in the way"), "stopped: in the way"),
        ((Ending.CAMERA_FAILED, None, Reason.CAMERA_FAILED, "camera failed: x"), "stopped: camera failed: x"),
        ((Ending.REQUESTED, None, Reason.DRIVING, "driving"), "stopped on request"),
    ],
)
@pytest.mark.parametrize("at_rest", [True, False])
def test_the_outcome_in_words(outcome, words, at_rest):
    ended = Outcome(*outcome, Instruction("go to the red cup"), 8.2, 80, 40, at_rest, None)
    assert drive_robot._in_words(ended, 4.0) == words + (
        "" if at_rest else "; it was not seen to stand: use its switch"
    )


def test_words_that_cannot_be_followed_are_refused_first(refuse):
    assert "unicorn" in refuse("drive", "--say", "go to the red unicorn", *ROBOT)
