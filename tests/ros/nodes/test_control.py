import math
import time
from dataclasses import replace

import numpy as np
import pytest

from mobile_vla.core import ZERO_TWIST, ActionContract, BaseError, MonotonicClock, Status
from mobile_vla.robot.bases.ideal import Ideal
from mobile_vla.ros import topics
from mobile_vla.ros.messages import (
    boolean,
    diagnoses,
    empty,
    header,
    joy,
    ros,
    scan_message,
    string,
    twist_from_message,
)
from mobile_vla.ros.nodes.control import ControlNode
from mobile_vla.ros.wire_time import to_wire
from mobile_vla.runtime.config import RangeConfig
from mobile_vla.runtime.mission import MissionConfig
from mobile_vla.safety import ClearanceConfig, DepthCamera, SafetyConfig, Supervisor

from .world import Deciding, Outside, Running, wait_until

GO = "go to the red cup"


class Robot:
    """A base that notes what it is sent, and can be taken away."""

    def __init__(self):
        self.base = Ideal(lag_s=0.02).build(MonotonicClock())
        self.sent = []
        self.gone = False

    command_timeout_s = 0.5
    has_feedback = True

    @property
    def feedback_ns(self):
        return self.base.feedback_ns

    @property
    def moves(self):
        return bool(self.sent) and self.sent[-1].vx != 0.0

    def open(self):
        if self.gone:
            raise BaseError("the port is gone")
        self.base.open()

    def close(self):
        self.base.close()

    def send(self, twist):
        if self.gone:
            raise BaseError("the port is gone")
        self.sent.append(twist)
        return self.base.send(twist)

    def velocity(self):
        return self.base.velocity()

    def stop(self):
        self.sent.append(ZERO_TWIST)
        self.base.stop()


@pytest.fixture
def robot():
    return Robot()


@pytest.fixture
def outside(namespace, domain):
    with Outside(namespace, domain) as outside:
        for topic in (topics.SAFETY, topics.ACTIVE_INSTRUCTION, topics.ODOM, topics.DIAGNOSTICS):
            outside.listen(topic)
        yield outside


@pytest.fixture
def control(robot, outside, namespace, domain):
    supervisor = Supervisor(config=SafetyConfig(late_step_s=5.0))  # the machine of a test may be slow

    def make(transport):
        return ControlNode(transport, robot, supervisor, MissionConfig(settle_s=0.3, time_limit_s=60.0))

    with Running("control", namespace, domain, make) as running:
        outside.contract()
        outside.wait_for(state="holding", reason="idle")
        yield running


def instruct(outside, text=GO):
    outside.publish(topics.INSTRUCTION, string(text))
    outside.wait_for(instruction=text)
    wait_until(lambda: outside.newest(topics.ACTIVE_INSTRUCTION).data == text, "the active instruction")


def test_it_drives_what_a_chunk_says_and_measures(control, outside, robot):
    instruct(outside)
    with Deciding(outside, GO):
        outside.wait_for(state="running")
        wait_until(lambda: robot.moves and robot.sent[-1].vx == pytest.approx(0.3), "full speed")
        wait_until(lambda: twist_from_message(outside.newest(topics.ODOM)).vx > 0.2, "odometry tells of it")
        wait_until(lambda: outside.newest(topics.ODOM).pose.pose.position.x > 0.1, "and of the way")


def test_without_an_instruction_nothing_moves(control, outside, robot):
    with Deciding(outside, GO):
        wait_until(lambda: control.transport.received(topics.CHUNK) > 10, "chunks came")
    assert not any(twist.vx for twist in robot.sent)


@pytest.mark.parametrize(
    "how",
    [{"text": "go to the blue cup"}, {"text": GO, "belief": False}, {"text": GO, "age_s": 30.0}],
    ids=["of another instruction", "without a belief", "from before the instruction"],
)
def test_a_chunk_that_does_not_answer_the_instruction_is_not_used(control, outside, robot, how):
    instruct(outside)
    before = control.transport.received(topics.CHUNK)
    with Deciding(outside, **how):
        wait_until(lambda: control.transport.received(topics.CHUNK) > before + 10, "chunks came")
    assert not any(twist.vx for twist in robot.sent)


def test_a_policy_for_other_axes_stops_the_robot(control, outside, robot):
    outside.contract(replace(ActionContract(), units=("m/s", "m/s", "deg/s")))
    outside.wait_for(state="protective_stop", reason="policy_failed")
    assert "deg/s" in outside.safety["sentence"]


def test_it_ends_when_the_policy_says_so_and_the_robot_stands(control, outside, robot):
    instruct(outside)
    with Deciding(outside, GO):
        wait_until(lambda: robot.moves, "it drives")
    with Deciding(outside, GO, velocity=(0.0, 0.0, 0.0), status=Status.ARRIVED):
        outside.wait_for(instruction="", last_ending="finished", last_status="arrived")
    assert not robot.moves
    wait_until(lambda: outside.newest(topics.ACTIVE_INSTRUCTION).data == "", "inference is told")


@pytest.mark.parametrize("words", ["stop", "멈춰"])
def test_words_that_mean_stop_are_obeyed_without_the_policy(words, control, outside, robot):
    instruct(outside)
    with Deciding(outside, GO):
        wait_until(lambda: robot.moves, "it drives")
        with Deciding(outside, words):
            outside.publish(topics.INSTRUCTION, string(words))
            outside.wait_for(instruction=words)
            outside.wait_for(instruction="", last_instruction=words, last_ending="finished")
            assert not robot.moves
    assert {message.data for message in outside.heard[topics.ACTIVE_INSTRUCTION.name]} == {"", GO}


def test_when_chunks_end_it_comes_to_rest_and_later_waits_for_a_person(control, outside, robot):
    instruct(outside)
    with Deciding(outside, GO):
        outside.wait_for(state="running")
        wait_until(lambda: robot.moves, "it drives")
    wait_until(lambda: not robot.moves, "it stands")
    outside.wait_for(state="protective_stop", reason="held_too_long")
    with Deciding(outside, GO):
        before = len(robot.sent)
        wait_until(lambda: len(robot.sent) > before + 50, "a second passes")
        assert not robot.moves
        outside.publish(topics.RESUME, empty())
        wait_until(lambda: robot.moves, "resumed, it drives on")


def test_a_command_that_is_not_finite_stops_and_stays_so(control, outside, robot):
    instruct(outside)
    with Deciding(outside, GO) as deciding:
        wait_until(lambda: robot.moves, "it drives")
        deciding.how["velocity"] = (math.nan, 0.0, 0.0)
        outside.wait_for(state="protective_stop", reason="non_finite_command")
        deciding.how.clear()
        wait_until(lambda: not robot.moves, "it stands")
    assert all(twist.is_finite for twist in robot.sent)


def test_an_emergency_stop_ends_the_instruction_and_takes_two_acts_to_undo(control, outside, robot):
    instruct(outside)
    with Deciding(outside, GO):
        wait_until(lambda: robot.moves, "it drives")
        outside.publish(topics.EMERGENCY_STOP, boolean(True))
        outside.wait_for(state="emergency_stop", instruction="", last_ending="stopped")
        wait_until(lambda: not robot.moves, "it stands")
        outside.publish(topics.REARM, empty())
        wait_until(lambda: "release" in outside.safety["refused"], "refused while the button is pressed")
        outside.publish(topics.EMERGENCY_STOP, boolean(False))

        def refused_to_resume():
            outside.publish(topics.RESUME, empty())
            time.sleep(0.2)
            return "re-arm the emergency stop, then resume" in outside.safety["refused"]

        wait_until(refused_to_resume, "resume alone is refused, once the button is known to be released")
        outside.publish(topics.REARM, empty())
        outside.wait_for(state="protective_stop")
        outside.publish(topics.INSTRUCTION, string(GO))
        wait_until(lambda: GO in outside.safety["refused"], "no instruction in a stop")
        outside.publish(topics.RESUME, empty())
        outside.wait_for(state="holding", instruction="")
    assert not robot.moves


def test_a_base_that_goes_away_stops_the_drive_and_comes_back_at_rest(control, outside, robot):
    instruct(outside)
    with Deciding(outside, GO):
        wait_until(lambda: robot.moves, "it drives")
        robot.gone = True
        outside.wait_for(state="protective_stop", reason="base_failed")
        assert "the port is gone" in outside.safety["sentence"]
        outside.publish(topics.RESUME, empty())
        wait_until(lambda: outside.safety["refused"], "no resume while it is away")
        robot.gone = False
        before = len(robot.sent)
        wait_until(lambda: len(robot.sent) > before + 10, "it is opened again")
        assert not any(twist.vx for twist in robot.sent[before:])
        outside.publish(topics.RESUME, empty())
        wait_until(lambda: robot.moves, "resumed, it drives on")


FORWARD = ([0.0, 1.0, 0.0, 0.0, 0.0, 0.0], [0] * 9 + [1] + [0] * 12)
LET_GO = ([0.0] * 6, [0] * 22)


class Holding(Deciding):
    """A stick, held; a message every 50 ms."""

    def _run(self):
        while not self._over.wait(self._period_s):
            axes, buttons = self.how["held"]
            self._outside.publish(topics.JOY, joy(axes, buttons, 0))


def test_a_touch_of_the_stick_takes_over_and_letting_go_waits_for_resume(control, outside, robot):
    instruct(outside)
    with Deciding(outside, GO, velocity=(-0.2, 0.0, 0.0)), Holding(outside, "", held=LET_GO) as stick:
        wait_until(lambda: robot.moves and robot.sent[-1].vx < -0.1, "the policy drives back")
        stick.how["held"] = FORWARD
        wait_until(lambda: robot.sent[-1].vx > 0.3, "the operator drives forward")
        outside.wait_for(hands="operator")
        stick.how["held"] = LET_GO
        outside.wait_for(state="protective_stop", reason="taken_over", hands="released")
        wait_until(lambda: not robot.moves, "it stands")
        before = len(robot.sent)
        wait_until(lambda: len(robot.sent) > before + 50, "a second passes")
        assert not any(twist.vx for twist in robot.sent[before:])
        outside.publish(topics.RESUME, empty())
        wait_until(lambda: robot.sent[-1].vx < -0.1, "resumed, the policy drives")


def test_it_says_how_it_does(control, outside):
    def told():
        found = [each for message in outside.heard[topics.DIAGNOSTICS.name] for each in diagnoses(message)]
        return [each for each in found if each.name.endswith("/control") and each.values.get("late_p99_ms")]

    wait_until(told, "a diagnosis of control")
    assert told()[0].message == "holding"


def test_told_to_end_while_it_drives_it_ramps_to_rest(robot, outside, namespace, domain):
    supervisor = Supervisor(config=SafetyConfig(late_step_s=5.0))
    with Running("control", namespace, domain, lambda transport: ControlNode(transport, robot, supervisor)):
        outside.contract()
        instruct(outside)
        with Deciding(outside, GO):
            wait_until(lambda: robot.moves and robot.sent[-1].vx == pytest.approx(0.3), "full speed")
    assert not robot.moves
    steps = [abs(b.vx - a.vx) for a, b in zip(robot.sent, robot.sent[1:], strict=False)]
    assert max(steps) < 0.3  # a ramp, no jump to zero


@pytest.mark.parametrize("sensor", ["scan", "depth"])
def test_it_stops_before_what_a_range_sensor_sees_and_goes_on_when_it_is_gone(
    sensor, robot, outside, namespace, domain
):
    room = ClearanceConfig(robot_radius_m=0.15, stop_distance_m=0.2, stale_after_s=5.0)
    supervisor = Supervisor(config=SafetyConfig(late_step_s=5.0, hold_limit_s=600.0, clearance=room))
    depth = DepthCamera(horizontal_fov_rad=1.2, height_m=0.2) if sensor == "depth" else None

    def see(distance_m):
        now_ns = to_wire(time.monotonic_ns())
        if depth is None:
            ranges = np.full(90, distance_m)
            reach = {"range_min_m": 0.05, "range_max_m": 10.0}
            message = scan_message(
                ranges, angle_min_rad=-0.5, angle_step_rad=1 / 90, stamp_ns=now_ns, frame_id="laser", **reach
            )
            outside.publish(topics.SCAN, message)
        else:
            pixels = np.full((48, 64), distance_m, dtype="<f4").view(np.uint8).reshape(-1)
            message = ros.sensor_msgs__msg__Image(header(now_ns), 48, 64, "32FC1", 0, 256, pixels)
            outside.publish(topics.DEPTH, message)

    def make(transport):
        return ControlNode(transport, robot, supervisor, ranges=RangeConfig(depth=depth))

    with Running("control", namespace, domain, make):
        outside.contract()
        instruct(outside)
        with Deciding(outside, GO):
            outside.wait_for(reason="range_too_old")
            see(5.0)
            wait_until(lambda: see(5.0) or robot.moves, "free, it drives")
            wait_until(lambda: see(0.3) or outside.safety["reason"] == "obstacle", "it sees the obstacle")
            wait_until(lambda: see(0.3) or not robot.moves, "it stands")
            wait_until(lambda: see(5.0) or robot.moves, "free again, it drives on")
