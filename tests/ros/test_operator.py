import threading
import time

import pytest

from mobile_vla.core import MonotonicClock, Status
from mobile_vla.robot.bases.ideal import Ideal
from mobile_vla.ros import operator as operator_module
from mobile_vla.ros import topics
from mobile_vla.ros.connect import connect
from mobile_vla.ros.messages import Level, diagnostics
from mobile_vla.ros.nodes.control import ControlNode
from mobile_vla.ros.operator import End, NoAnswerError, Operator
from mobile_vla.ros.transport import NodeConfig
from mobile_vla.ros.wire_time import to_wire
from mobile_vla.runtime.mission import MissionConfig
from mobile_vla.safety import SafetyConfig, Supervisor

from .nodes.world import LIMIT_S, Deciding, Outside, Running

GO = "go to the red cup"


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """A busy machine answers late."""
    monkeypatch.setattr(operator_module, "FOUND_WITHIN_S", LIMIT_S)
    monkeypatch.setattr(operator_module, "ANSWERED_WITHIN_S", LIMIT_S)


@pytest.fixture
def operator(namespace, domain):
    with Operator(connect(NodeConfig("operator", namespace, domain=domain, localhost_only=True))) as operator:
        yield operator


@pytest.fixture
def outside(namespace, domain):
    with Outside(namespace, domain) as outside:
        outside.listen(topics.SAFETY)
        yield outside


@pytest.fixture
def control(outside, namespace, domain):
    supervisor = Supervisor(config=SafetyConfig(late_step_s=5.0, stale_after_s=2.0))
    base = Ideal(lag_s=0.02).build(MonotonicClock())

    def make(transport):
        return ControlNode(transport, base, supervisor, MissionConfig(settle_s=0.2, time_limit_s=LIMIT_S))

    with Running("control", namespace, domain, make) as running:
        outside.contract()
        yield running


def test_it_says_where_to_go_and_is_told_how_that_ended(control, outside, operator):
    with Deciding(outside, GO, velocity=(0.0, 0.0, 0.0), status=Status.ARRIVED):
        end = operator.say(GO, LIMIT_S)
    assert (end.ending, end.status, end.done) == ("finished", "arrived", True)
    assert 0.2 < end.duration_s < LIMIT_S


def test_it_need_not_wait_and_a_new_word_ends_the_old_one(control, outside, operator):
    assert operator.say(GO, LIMIT_S, wait=False) is None
    outside.wait_for(instruction=GO)
    assert operator.say("go to the ball", LIMIT_S, wait=False) is None
    outside.wait_for(instruction="go to the ball", last_instruction=GO, last_ending="requested")


def test_it_does_not_wait_for_ever(control, operator):
    with pytest.raises(NoAnswerError, match=r"not ended within 0\.5 s; it goes on"):
        operator.say(GO, 0.5)


def test_stop_rearm_resume_in_this_order(control, outside, operator):
    operator.say(GO, LIMIT_S, wait=False)
    assert operator.emergency_stop()["state"] == "emergency_stop"
    outside.wait_for(instruction="", last_ending="stopped")
    with pytest.raises(NoAnswerError, match="re-arm the emergency stop"):
        operator.resume()
    with pytest.raises(NoAnswerError, match="is not begun: the robot is in emergency_stop"):
        operator.say(GO, LIMIT_S)
    assert operator.rearm()["state"] == "protective_stop"
    with pytest.raises(NoAnswerError, match="protective_stop"):
        operator.say(GO, LIMIT_S)
    assert operator.resume()["state"] == "holding"
    operator.say(GO, LIMIT_S, wait=False)
    outside.wait_for(instruction=GO)


class SlowControl(Outside):
    """Says ten times a second what it last said, and takes half a second to carry out an order."""

    def __init__(self, namespace, domain):
        super().__init__(namespace, domain)
        self.values = {"state": "emergency_stop", "orders": "1", "refused": "what was asked for before", "sentence": ""}
        self.told_s = None
        self._publisher = self.transport.publisher(topics.SAFETY)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="test-slow-control", daemon=True)
        self._thread.start()
        self.transport.subscribe(topics.REARM, self._on_rearm)

    def __exit__(self, *_):
        self._over.set()
        self._thread.join(LIMIT_S)
        super().__exit__()

    def _on_rearm(self, received):
        self.told_s = time.monotonic()

    def _run(self):
        while not self._over.wait(0.1):
            if self.told_s is not None and time.monotonic() > self.told_s + 0.5:
                self.values |= {"state": "protective_stop", "orders": "2", "refused": ""}
            self._publisher.publish(
                diagnostics(Level.OK, "control/safety", "", self.values, to_wire(time.monotonic_ns()))
            )


def test_the_old_refusal_of_another_order_is_not_taken_for_an_answer(operator, namespace, domain):
    with SlowControl(namespace, domain):
        assert operator.rearm()["state"] == "protective_stop"


def test_where_nobody_is_it_says_so(operator, monkeypatch):
    monkeypatch.setattr(operator_module, "FOUND_WITHIN_S", 0.3)
    for act in (operator.emergency_stop, operator.rearm, operator.resume, lambda: operator.say(GO, 1.0)):
        with pytest.raises(NoAnswerError, match="no robot is up here"):
            act()


def test_a_button_that_nobody_answers_is_told_with_the_way_out(operator, namespace, domain, monkeypatch):
    monkeypatch.setattr(operator_module, "ANSWERED_WITHIN_S", 0.3)
    with Outside(namespace, domain) as deaf:
        deaf.listen(topics.EMERGENCY_STOP)
        with pytest.raises(NoAnswerError, match="use its switch"):
            operator.emergency_stop()


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (End("finished", "arrived", 3.21), "finished, arrived, 3.2 s"),
        (End("time_limit", "", 120.0), "time_limit, the policy said nothing, 120.0 s"),
    ],
)
def test_an_end_in_words(end, words):
    assert str(end) == words
    assert end.done == (end.ending == "finished")
