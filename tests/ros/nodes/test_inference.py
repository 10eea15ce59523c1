import json
import threading
import time
from itertools import pairwise

import numpy as np
import pytest

from mobile_vla.core import ActionContract, Frame, InstructionError, MonotonicClock, Status, Twist
from mobile_vla.ros import topics
from mobile_vla.ros.messages import (
    Level,
    belief_from_message,
    chunk_from_message,
    diagnoses,
    image_message,
    measured_from_belief,
    odometry,
    stamp_ns,
    string,
)
from mobile_vla.ros.nodes.inference import InferenceNode
from mobile_vla.ros.wire_time import from_wire, to_wire
from runtime.scripted import ScriptedPolicy

from .world import LIMIT_S, Outside, Running, error_of, wait_until

GO = "go to the red cup"


class Filming:
    """Publishes pictures and odometry like a camera and a base, until the end of the ``with`` block.

    Picture ``n`` shows ``n`` and the base measures ``n`` mm/s from just before it on.
    """

    def __init__(self, outside, frozen=False):
        self._outside, self._frozen = outside, frozen
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="test-filming", daemon=True)
        self.number = 0
        self.velocity_at = {}

    def _run(self):
        while not self._over.wait(0.05):
            self.number += 1
            captured_ns = to_wire(time.monotonic_ns())
            self.velocity_at[captured_ns] = self.number / 1000
            measured = odometry(Twist(self.number / 1000, 0.0, 0.0), (0.0, 0.0, 0.0), captured_ns - 10_000_000)
            self._outside.publish(topics.ODOM, measured)
            time.sleep(0.02)  # or the picture may overtake it
            pixels = np.full((8, 16, 3), 7 if self._frozen else self.number % 256, np.uint8)
            frame = Frame(pixels, captured_ns, "wire", "front", self.number)
            self._outside.publish(topics.IMAGE, image_message(frame, captured_ns, "camera"))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join(LIMIT_S)


@pytest.fixture
def outside(namespace, domain):
    with Outside(namespace, domain) as outside:
        for topic in (topics.CHUNK, topics.BELIEF, topics.CONTRACT, topics.DIAGNOSTICS):
            outside.listen(topic)
        yield outside


@pytest.fixture
def start(namespace, domain):
    running = []

    def start(policy, **more):
        node = Running(
            "inference", namespace, domain, lambda transport: InferenceNode(transport, policy, "test", **more)
        )
        running.append(node)
        return node.__enter__()

    yield start
    for node in running:
        node.__exit__()


def tell(outside, text):
    outside.publish(topics.ACTIVE_INSTRUCTION, string(text))


def chunks(outside):
    return outside.heard[topics.CHUNK.name]


def diagnosis(outside):
    message = outside.newest(topics.DIAGNOSTICS)
    return diagnoses(message)[0] if message else None


def test_a_decision_bears_the_stamp_of_its_frame_and_the_velocity_of_then(start, outside):
    policy = ScriptedPolicy()
    start(policy)
    with Filming(outside) as filming:
        tell(outside, GO)
        wait_until(lambda: len(chunks(outside)) >= 4 and len(outside.heard[topics.BELIEF.name]) >= 4, "decisions")
    beliefs = {stamp_ns(message): belief_from_message(message) for message in outside.heard[topics.BELIEF.name]}
    pairs = 0
    for message in chunks(outside):
        chunk = chunk_from_message(message)
        assert chunk.stamp_ns in filming.velocity_at  # to the nanosecond
        assert chunk.rate_hz == policy.contract.rate_hz
        assert np.array_equal(chunk.velocities, np.tile(np.float32([0.3, 0.0, 0.0]), (8, 1)))
        if chunk.stamp_ns in beliefs:
            grounding, text, spent_ms = beliefs[chunk.stamp_ns]
            assert (grounding.status, text) == (Status.DRIVING, GO)
            assert spent_ms >= 0.0
            pairs += 1
    assert pairs >= 3
    told = {stamp_ns(message): measured_from_belief(message) for message in outside.heard[topics.BELIEF.name]}
    for observation in policy.observations:
        captured_ns = min(filming.velocity_at, key=lambda ns: abs(from_wire(ns) - observation.frame.capture_ns))
        assert abs(from_wire(captured_ns) - observation.frame.capture_ns) < 5_000_000
        assert observation.frame.clock == MonotonicClock.name
        assert observation.velocity.vx == pytest.approx(filming.velocity_at[captured_ns], abs=1.1e-3)
        if captured_ns in told:
            assert told[captured_ns] == observation.velocity
    assert any(observation.velocity.vx for observation in policy.observations)
    assert policy.states == [(GO, step) for step in range(len(policy.states))]


def test_it_decides_at_the_rate_of_the_policy_and_not_of_the_camera(start, outside):
    policy = ScriptedPolicy()
    start(policy)
    with Filming(outside):
        tell(outside, GO)
        wait_until(lambda: len(policy.observations) >= 6, "decisions")
    stamps = [observation.frame.capture_ns for observation in policy.observations]
    assert min(after - before for before, after in pairwise(stamps)) > 0.15e9


def test_the_contract_waits_for_whoever_comes_later(start, namespace, domain):
    policy = ScriptedPolicy()
    start(policy)
    time.sleep(0.5)
    with Outside(namespace, domain) as late:
        late.listen(topics.CONTRACT)
        wait_until(lambda: late.newest(topics.CONTRACT), "the contract")
        told = json.loads(late.newest(topics.CONTRACT).data)
    assert told["policy"] == "test"
    assert ActionContract.from_dict(told["contract"], "the wire") == policy.contract


def test_without_an_instruction_nothing_is_decided_and_after_one_nothing_more(start, outside):
    policy = ScriptedPolicy()
    node = start(policy)
    with Filming(outside):
        wait_until(lambda: node.transport.received(topics.IMAGE) > 10, "pictures came")
        assert policy.observations == []
        assert diagnosis(outside).message == "idle"
        tell(outside, GO)
        wait_until(lambda: chunks(outside), "a decision")
        tell(outside, "")
        time.sleep(0.5)
        decided, came = len(policy.observations), node.transport.received(topics.IMAGE)
        wait_until(lambda: node.transport.received(topics.IMAGE) > came + 10, "more pictures came")
        assert len(policy.observations) == decided


def test_a_new_instruction_begins_with_a_fresh_state_even_with_the_same_words(start, outside):
    policy = ScriptedPolicy()
    start(policy)
    with Filming(outside):
        tell(outside, GO)
        wait_until(lambda: len(policy.states) >= 3, "decisions")
        tell(outside, GO)
        wait_until(lambda: policy.states.count((GO, 0)) == 2, "from the beginning")
        tell(outside, "go to the ball")
        wait_until(lambda: ("go to the ball", 1) in policy.states, "for the ball")
        wait_until(lambda: belief_from_message(outside.newest(topics.BELIEF))[1] == "go to the ball", "and says so")


def test_a_picture_that_hangs_is_no_news_unless_the_camera_is_drawn(start, outside):
    policy = ScriptedPolicy()
    node = start(policy)
    with Filming(outside, frozen=True):
        tell(outside, GO)
        wait_until(lambda: node.transport.received(topics.IMAGE) > 25, "more than a second of the same picture")
        assert len(policy.observations) <= 2


def test_a_drawn_picture_may_stay_the_same(start, outside):
    policy = ScriptedPolicy()
    start(policy, identical_pixels=False)
    with Filming(outside, frozen=True):
        tell(outside, GO)
        wait_until(lambda: len(policy.observations) > 5, "decisions on the same picture")


def test_a_policy_that_raises_ends_the_process(outside, namespace, domain):
    def fail():
        raise FloatingPointError("the weights are not finite")

    policy = ScriptedPolicy(during_step=fail)
    with (
        Running("inference", namespace, domain, lambda transport: InferenceNode(transport, policy, "test")) as running,
        Filming(outside),
    ):
        tell(outside, GO)
        assert isinstance(error_of(running), FloatingPointError)
    assert chunks(outside) == []


class ShortSighted(ScriptedPolicy):
    """Reads ten letters at most, as the text encoder of a network has its length."""

    def reset(self, instruction):
        if len(instruction.text) > 10:
            raise InstructionError("more than the 10 letters that the model reads: shorten it")
        return super().reset(instruction)


def test_words_that_the_policy_cannot_read_end_nothing_and_are_told(start, outside):
    policy = ShortSighted()
    start(policy)
    with Filming(outside):
        tell(outside, "go to the very red cup")
        wait_until(lambda: "10 letters" in diagnosis(outside).message, "it says why")
        assert diagnosis(outside).level == Level.ERROR
        assert chunks(outside) == []
        tell(outside, "go")
        wait_until(lambda: chunks(outside), "shorter words are followed")
        wait_until(lambda: diagnosis(outside).level == Level.OK, "all is well again")


def test_words_that_are_no_instruction_at_all_end_nothing(start, outside):
    policy = ScriptedPolicy()
    node = start(policy)
    with Filming(outside):
        tell(outside, "x" * 5000)
        wait_until(lambda: node.transport.failures == 1, "refused")
        tell(outside, GO)
        wait_until(lambda: chunks(outside), "the next ones are followed")


def test_one_that_thinks_longer_than_its_rate_allows_says_so(start, outside):
    start(ScriptedPolicy(during_step=lambda: time.sleep(0.3)))
    with Filming(outside):
        tell(outside, GO)
        wait_until(lambda: "too slow" in diagnosis(outside).message, "it says so")
    told = diagnosis(outside)
    assert told.level == Level.WARN
    assert float(told.values["inference_p50_ms"]) >= 300.0
    assert float(told.values["period_ms"]) == 200.0
