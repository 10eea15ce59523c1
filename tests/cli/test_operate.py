import json
import signal
import threading

import pytest

from mobile_vla.core import MonotonicClock, Status
from mobile_vla.robot.bases.ideal import Ideal
from mobile_vla.ros import operator, topics
from mobile_vla.ros.nodes.control import ControlNode
from mobile_vla.runtime.mission import MissionConfig
from mobile_vla.safety import Reason, SafetyConfig, Supervisor
from ros.nodes.world import Deciding, Outside, Running

from .wire import DOMAIN, LIMIT_S, command, new_namespace, on, wait_until

GO = "go to the red cup"


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    monkeypatch.setattr(operator, "FOUND_WITHIN_S", LIMIT_S)
    monkeypatch.setattr(operator, "STOP_FOUND_WITHIN_S", LIMIT_S)
    monkeypatch.setattr(operator, "ANSWERED_WITHIN_S", LIMIT_S)


@pytest.fixture
def namespace():
    return new_namespace()


@pytest.fixture
def supervisor():
    return Supervisor(config=SafetyConfig(late_step_s=5.0, stale_after_s=2.0))


@pytest.fixture
def robot(supervisor, namespace):
    """A control node with a base of numbers, and who speaks with it."""
    base = Ideal(lag_s=0.02).build(MonotonicClock())

    def make(transport):
        return ControlNode(transport, base, supervisor, MissionConfig(settle_s=0.2, time_limit_s=LIMIT_S))

    with Outside(namespace, DOMAIN) as outside, Running("control", namespace, DOMAIN, make):
        outside.listen(topics.SAFETY)
        outside.contract()
        yield outside


def test_say_waits_for_the_end_and_tells_it(robot, namespace, call):
    with Deciding(robot, GO, velocity=(0.0, 0.0, 0.0), status=Status.ARRIVED):
        code, out, err = call("say", GO, *on(namespace))
        assert (code, err) == (0, "")
        assert out.startswith("finished, arrived, ")
        code, out, _ = call("say", GO, *on(namespace), "--json")
    assert code == 0
    answer = json.loads(out)
    assert (answer["ending"], answer["status"]) == ("finished", "arrived")


def test_an_end_of_another_kind_is_no_success(robot, namespace, call):
    code, out, _ = call("say", GO, "--no-wait", "--json", *on(namespace))
    assert (code, json.loads(out)) == (0, {"ending": None, "accepted": True})
    assert call("say", GO, "--no-wait", *on(namespace)) == (0, "accepted\n", "")
    code, out, _ = call("stop", *on(namespace))
    assert code == 0
    assert out.startswith("emergency_stop: ")
    robot.wait_for(last_instruction=GO, last_ending="stopped")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_brings_the_robot_to_rest_and_says_whether_it_has(robot, namespace, tmp_path, number):
    with Deciding(robot, GO), command(tmp_path, "say", GO, "--json", *on(namespace)) as say:
        wait_until(lambda: float(robot.safety.get("vx_mps", 0)) > 0.2, lambda: say.err)
        assert say.end(number) == 130
        assert say.err == "mobile-vla: told the robot to come to rest: it has\n"
        assert json.loads(say.out) == {"ending": "requested", "at_rest": True}
        robot.wait_for(instruction="", last_instruction=GO, last_ending="requested")
        wait_until(lambda: float(robot.safety["vx_mps"]) == 0.0, "it was told to stand")


def test_ctrl_c_before_anything_was_said_tells_the_robot_nothing(namespace, tmp_path):
    with Outside(namespace, DOMAIN) as nobody, command(tmp_path, "say", GO, *on(namespace)) as say:
        heard = nobody.transport.publisher(topics.SAFETY)
        wait_until(lambda: heard.readers, "it looks for a robot")
        assert say.end(signal.SIGINT) == 130
        assert say.err == "mobile-vla: stopped\n"


@pytest.mark.parametrize("json_too", [(), ("--json",)])
def test_a_stop_under_way_is_told_at_once(robot, supervisor, namespace, call, json_too):
    def hang():
        robot.wait_for(instruction=GO)
        supervisor.stop(Reason.BASE_FAILED, "the camera hangs")

    thread = threading.Thread(target=hang, daemon=True)
    thread.start()
    code, out, err = call("say", GO, *on(namespace), *json_too)
    thread.join(LIMIT_S)
    assert (code, err) == (1, "")
    if not json_too:
        assert out == "protective_stop: the camera hangs; the instruction stays in force: mobile-vla resume goes on\n"
        return
    told = json.loads(out)
    assert (told["ending"], told["state"], told["sentence"]) == (None, "protective_stop", "the camera hangs")
    assert told["in_force"] is True


def test_stop_rearm_and_resume_tell_the_state(robot, namespace, call, refuse):
    code, out, _ = call("stop", "--json", *on(namespace))
    assert (code, json.loads(out)["state"]) == (0, "emergency_stop")
    assert "re-arm" in refuse("resume", *on(namespace))
    assert "emergency_stop" in refuse("say", GO, *on(namespace))
    assert call("rearm", *on(namespace))[1].startswith("protective_stop: ")
    assert call("resume", *on(namespace))[1].startswith("holding: ")


@pytest.mark.parametrize("command", [("say", GO), ("stop",), ("rearm",), ("resume",)])
def test_where_no_robot_is_up_it_says_so(command, refuse, namespace, monkeypatch):
    monkeypatch.setattr(operator, "FOUND_WITHIN_S", 0.3)
    monkeypatch.setattr(operator, "STOP_FOUND_WITHIN_S", 0.3)
    assert "no robot is up here" in refuse(*command, *on(namespace))


@pytest.mark.parametrize("text", ["", "go to the red unicorn", "go " * 100])
def test_words_that_cannot_be_followed_are_refused_before_they_are_said(text, refuse, namespace):
    refuse("say", text, *on(namespace))
