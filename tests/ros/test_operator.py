import threading
import time

import pytest

from mobile_vla.core import Instruction, MonotonicClock, Status, Twist
from mobile_vla.robot.bases.ideal import Ideal
from mobile_vla.ros import operator as operator_module
from mobile_vla.ros import topics
from mobile_vla.ros.connect import connect
from mobile_vla.ros.messages import Level, diagnostics, odometry
from mobile_vla.ros.nodes.control import ControlNode
from mobile_vla.ros.operator import End, NoAnswerError, Operator, Rest, Stopped
from mobile_vla.ros.preview import Preview
from mobile_vla.ros.transport import NodeConfig
from mobile_vla.ros.wire_time import to_wire
from mobile_vla.runtime import Tick
from mobile_vla.runtime.mission import MissionConfig
from mobile_vla.safety import Reason, SafetyConfig, SafetyState, Supervisor

from .nodes.world import LIMIT_S, Deciding, Outside, Running, wait_until

GO = "go to the red cup"


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """A busy machine answers late."""
    monkeypatch.setattr(operator_module, "FOUND_WITHIN_S", LIMIT_S)
    monkeypatch.setattr(operator_module, "STOP_FOUND_WITHIN_S", LIMIT_S)
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
def supervisor():
    return Supervisor(config=SafetyConfig(late_step_s=5.0, stale_after_s=2.0))


@pytest.fixture
def control(outside, supervisor, namespace, domain):
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


def saying(operator, answers, **how):
    """In a thread, as the test has to act under way."""
    thread = threading.Thread(target=lambda: answers.append(operator.say(GO, LIMIT_S, **how)), daemon=True)
    thread.start()
    return thread


def test_a_protective_stop_under_way_is_told_at_once_and_the_words_stay_in_force(
    control, supervisor, outside, operator
):
    answers = []
    thread = saying(operator, answers)
    outside.wait_for(instruction=GO)
    supervisor.stop(Reason.BASE_FAILED, "the camera hangs")
    thread.join(LIMIT_S)
    (stopped,) = answers
    assert isinstance(stopped, Stopped)
    assert (stopped.state, stopped.sentence, stopped.in_force) == ("protective_stop", "the camera hangs", True)
    assert str(stopped) == (
        "protective_stop: the camera hangs; the instruction stays in force: mobile-vla resume goes on"
    )
    assert outside.safety["instruction"] == GO
    with Deciding(outside, GO):
        operator.resume()
        outside.wait_for(state="running")


def test_an_emergency_stop_under_way_ends_the_words(control, supervisor, outside, operator):
    answers = []
    thread = saying(operator, answers)
    outside.wait_for(instruction=GO)
    supervisor.emergency_stop("the button")
    thread.join(LIMIT_S)
    (stopped,) = answers
    assert (stopped.state, stopped.sentence, stopped.in_force) == ("emergency_stop", "the button", False)
    assert "the instruction is ended: mobile-vla rearm" in str(stopped)


def test_who_wants_the_end_alone_is_not_held_up_by_a_protective_stop(control, supervisor, outside, operator):
    answers = []
    thread = saying(operator, answers, through_stops=True)
    outside.wait_for(instruction=GO)
    supervisor.stop(Reason.BASE_FAILED, "the camera hangs")
    outside.wait_for(state="protective_stop")
    time.sleep(0.5)
    assert answers == []
    supervisor.emergency_stop("the button")
    thread.join(LIMIT_S)
    assert [(type(end), end.ending) for end in answers] == [(End, "stopped")]


def test_what_was_said_can_be_taken_back(control, outside, operator):
    assert operator.come_to_rest() is None
    with Deciding(outside, GO):
        operator.say(GO, LIMIT_S, wait=False)
        wait_until(lambda: float(outside.safety.get("vx_mps", 0)) > 0.2, "it drives")
        assert operator.come_to_rest() is Rest.STANDS
        outside.wait_for(instruction="", last_ending="requested")
        wait_until(lambda: float(outside.safety["vx_mps"]) == 0.0, "it was told to stand")


def test_a_robot_that_does_not_answer_or_does_not_stand_is_told_so(operator, namespace, domain, monkeypatch):
    with SlowControl(namespace, domain) as control:
        control.values["state"] = "running"
        operator.say(GO, LIMIT_S, wait=False)
        with monkeypatch.context() as hasty:
            hasty.setattr(operator_module, "ANSWERED_WITHIN_S", 1.0)
            control.is_deaf = True
            assert operator.come_to_rest() is Rest.SILENT
    with SlowControl(namespace, domain) as control:
        control.values["state"] = "running"
        operator.say(GO, LIMIT_S, wait=False)
        control.velocity = 0.3
        wait_until(lambda: operator._measured is not None and operator._measured.vx == 0.3, "it is measured")
        with monkeypatch.context() as hasty:
            hasty.setattr(operator_module, "ANSWERED_WITHIN_S", 3.0)
            assert operator.come_to_rest() is Rest.MOVES
        control.velocity = 0.0
        assert operator.come_to_rest() is Rest.STANDS


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
    """Says ten times a second what it last said, and takes half a second to re-arm. ``velocity`` is measured."""

    def __init__(self, namespace, domain):
        super().__init__(namespace, domain)
        self.values = {"state": "emergency_stop", "orders": "1", "refused": "what was asked for before", "sentence": ""}
        self.values |= {"instruction": "", "vx_mps": "0.0000", "vy_mps": "-0.0000", "wz_radps": "0.0000"}
        self.velocity, self.is_deaf = 0.0, False
        self.told_s = None
        self._publisher = self.transport.publisher(topics.SAFETY)
        self._odometry = self.transport.publisher(topics.ODOM)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="test-slow-control", daemon=True)
        self._thread.start()
        self.transport.subscribe(topics.REARM, self._on_rearm)
        self.transport.subscribe(topics.INSTRUCTION, self._on_instruction)

    def __exit__(self, *_):
        self._over.set()
        self._thread.join(LIMIT_S)
        super().__exit__()

    def _on_instruction(self, received):
        if not self.is_deaf:
            orders = str(int(self.values["orders"]) + 1)
            self.values |= {"instruction": received.message.data, "orders": orders, "refused": ""}

    def _on_rearm(self, received):
        self.told_s = time.monotonic()

    def _run(self):
        while not self._over.wait(0.1):
            if self.told_s is not None and time.monotonic() > self.told_s + 0.5:
                self.values |= {"state": "protective_stop", "orders": "2", "refused": ""}
            now_ns = to_wire(time.monotonic_ns())
            self._publisher.publish(diagnostics(Level.OK, "control/safety", "", self.values, now_ns))
            self._odometry.publish(odometry(Twist(self.velocity, 0.0, 0.0), (0.0, 0.0, 0.0), now_ns))


def test_the_old_refusal_of_another_order_is_not_taken_for_an_answer(operator, namespace, domain):
    with SlowControl(namespace, domain):
        assert operator.rearm()["state"] == "protective_stop"


class OneProcess:
    """What ``mobile-vla drive --robot`` lets others see, without the robot: it drives until it is stopped."""

    def __init__(self, namespace, domain):
        transport = connect(NodeConfig("drive", namespace, domain=domain, localhost_only=True))
        self._preview = Preview(transport, self._stop)
        self._state, self._sentence = SafetyState.RUNNING, "driving"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="test-drive", daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join(LIMIT_S)

    def _stop(self, sentence):
        self._state, self._sentence = SafetyState.EMERGENCY_STOP, sentence
        self._over.set()

    def _run(self):
        with self._preview:
            over = False
            while not over:
                over = self._over.wait(0.02)
                self._preview.show(self._tick())

    def _tick(self):
        zero, nothing = Twist(0.0, 0.0, 0.0), (None, None, None, None)
        now_ns, said = time.monotonic_ns(), (Reason.DRIVING, self._sentence)
        return Tick(now_ns, self._state, *said, zero, zero, zero, Instruction(GO), *nothing)


def test_a_drive_in_one_process_takes_no_words(operator, namespace, domain):
    with OneProcess(namespace, domain):
        for act in (operator.rearm, operator.resume, lambda: operator.say(GO, 1.0)):
            with pytest.raises(NoAnswerError, match="takes no words; mobile-vla stop reaches it"):
                act()


def test_a_drive_in_one_process_can_be_stopped(operator, namespace, domain):
    with OneProcess(namespace, domain) as drive:
        assert operator.emergency_stop()["state"] == "emergency_stop"
        drive._thread.join(LIMIT_S)
        assert not drive._thread.is_alive()


def test_where_nobody_is_it_says_so(operator, monkeypatch):
    monkeypatch.setattr(operator_module, "FOUND_WITHIN_S", 0.3)
    monkeypatch.setattr(operator_module, "STOP_FOUND_WITHIN_S", 0.3)
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
