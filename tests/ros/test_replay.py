from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobile_vla.core import (
    ActionChunk,
    ActionContract,
    ContractMismatchError,
    DatasetError,
    Frame,
    Grounding,
    Instruction,
    Observation,
    Status,
    Step,
    Twist,
)
from mobile_vla.ros import topics
from mobile_vla.ros.bag import Recorded
from mobile_vla.ros.messages import (
    belief_message,
    chunk_message,
    compressed_message,
    deserialise,
    image_message,
    odometry,
    serialise,
    string,
)
from mobile_vla.ros.replay import replay

GO, BALL = "go to the red cup", "go to the ball"
BEGAN_NS = 1_700_000_000_000_000_000
STEP_NS = 200_000_000
LATER_NS = 30_000_000


class Remembering:
    """Its velocity tells what it saw: the shade, the words, its velocity, and how many steps it has done."""

    def __init__(self, contract=None, bias=0.0):
        self.contract, self.bias = contract or ActionContract(), bias

    def reset(self, instruction):
        return (instruction.text, 0)

    def step(self, observation, state):
        text, count = state
        shade = float(observation.frame.pixels.mean()) / 1000
        row = np.array([shade + self.bias, count / 100 + observation.velocity.vx, len(text) / 100], np.float32)
        status = Status.ARRIVED if count > 8 else Status.DRIVING
        chunk = ActionChunk(
            np.tile(row, (self.contract.horizon, 1)), observation.frame.capture_ns, self.contract.rate_hz
        )
        return Step(chunk, Grounding(1.0, 0.0, shade, (0.0, 0.0, 1.0, 1.0), status), (text, count + 1))


class Drive:
    """A drive as it would be recorded; times in steps of the policy from its beginning."""

    def __init__(self, policy, picture="raw", namespace="", accounts=False):
        self.policy, self.picture, self.namespace, self.accounts = policy, picture, namespace, accounts
        self.items, self.state, self.text = [], None, ""

    def note(self, topic, message, stamp_ns):
        read_back = deserialise(topic.type, serialise(topic.type, message))
        name = topic.name if topic.name.startswith("/") else f"{self.namespace}/{topic.name}"
        self.items.append(Recorded(name, topic.type, stamp_ns, read_back))

    def tell(self, text, when, reset=True):
        self.note(topics.ACTIVE_INSTRUCTION, string(text), BEGAN_NS + round(when * STEP_NS))
        if text and reset:
            self.text, self.state = text, self.policy.reset(Instruction(text))

    def decide(self, when, late_ns=LATER_NS, picture=True):
        stamp = BEGAN_NS + round(when * STEP_NS)
        velocity = Twist(round(0.001 * when, 3), 0.0, 0.0)
        self.note(topics.ODOM, odometry(velocity, (0.0, 0.0, 0.0), stamp - 1), stamp)
        pixels = np.full((4, 6, 3), round(when * 7) % 256, np.uint8)
        frame = Frame(pixels, stamp, "wire", "front", 1)
        if picture:
            if self.picture == "raw":
                self.note(topics.IMAGE, image_message(frame, stamp, "camera"), stamp)
            else:
                self.note(topics.IMAGE_COMPRESSED, compressed_message(frame, stamp, "camera"), stamp)
        step = self.policy.step(Observation(frame, velocity), self.state)
        self.state = step.state
        self.note(
            topics.BELIEF,
            belief_message(step.grounding, self.text, 5.0, stamp, velocity if self.accounts else None),
            stamp + late_ns,
        )
        self.note(topics.CHUNK, chunk_message(step.chunk, stamp), stamp + late_ns)

    def drive(self, text, steps):
        self.tell(text, steps.start - 0.5)
        for when in steps:
            self.decide(when)


def test_the_same_policy_decides_the_same_to_the_bit():
    drive = Drive(Remembering(), namespace="/robot_1")
    drive.drive(GO, range(1, 12))
    drive.tell("", 12)
    drive.drive(BALL, range(14, 20))
    comparison = replay(drive.items, Remembering())
    assert len(comparison.decisions) == 17
    assert comparison.same_to_the_bit == comparison.same_status == 17
    assert comparison.largest_difference() == 0.0
    assert comparison.mean_difference() == {"linear_x": 0.0, "linear_y": 0.0, "angular_z": 0.0}
    assert comparison.mean_of_zero()["angular_z"] == pytest.approx((11 * 0.17 + 6 * 0.14) / 17)
    assert (comparison.frames_missing, comparison.lossless) == (0, True)
    assert [each.instruction for each in comparison.decisions] == [GO] * 11 + [BALL] * 6


def test_another_policy_decides_otherwise_and_by_how_much():
    drive = Drive(Remembering())
    drive.drive(GO, range(1, 5))
    comparison = replay(drive.items, Remembering(bias=0.25))
    assert comparison.same_to_the_bit == 0
    assert comparison.mean_difference()["linear_x"] == pytest.approx(0.25)
    assert comparison.mean_difference()["linear_y"] == 0.0
    assert comparison.largest_difference() == pytest.approx(0.25)


def test_the_same_words_said_again_begin_with_a_fresh_state():
    drive = Drive(Remembering())
    drive.drive(GO, range(1, 4))
    drive.drive(GO, range(4, 8))
    assert replay(drive.items, Remembering()).same_to_the_bit == 7


def test_a_frame_from_before_the_words_that_was_decided_on_under_them_belongs_to_them():
    drive = Drive(Remembering())
    drive.tell(GO, 1.1)
    drive.decide(1.0)  # captured before, but told before it came to that
    for when in range(2, 6):
        drive.decide(when)
    assert replay(drive.items, Remembering()).same_to_the_bit == 5


def test_a_decision_that_comes_after_its_instruction_ended_begins_nothing_anew():
    drive = Drive(Remembering())
    drive.drive(GO, range(1, 5))
    drive.tell("", 5.1)
    drive.decide(5, late_ns=60_000_000)
    drive.items.sort(key=lambda item: item.stamp_ns)
    assert replay(drive.items, Remembering()).same_to_the_bit == 5


def test_a_recording_without_the_beginning_is_one_era():
    drive = Drive(Remembering())
    drive.tell(GO, 0.5)
    drive.items.clear()
    for when in range(1, 5):
        drive.decide(when)
    assert replay(drive.items, Remembering()).same_to_the_bit == 4


def test_of_jpegs_only_the_pictures_differ():
    drive = Drive(Remembering(), picture="jpeg")
    drive.drive(GO, range(1, 10))
    comparison = replay(drive.items, Remembering())
    assert not comparison.lossless
    assert 0.0 <= comparison.largest_difference() < 0.005
    assert comparison.same_status == 9
    assert comparison.mean_difference()["linear_y"] == 0.0


def test_where_both_kinds_of_picture_are_there_the_exact_ones_are_taken():
    drive, jpegs = Drive(Remembering()), Drive(Remembering(), picture="jpeg")
    for each in (drive, jpegs):
        each.drive(GO, range(1, 5))
    both = drive.items + [item for item in jpegs.items if item.topic.endswith("compressed")]
    comparison = replay(sorted(both, key=lambda item: item.stamp_ns), Remembering())
    assert comparison.lossless
    assert (len(comparison.decisions), comparison.same_to_the_bit) == (4, 4)


def test_frames_that_are_missing_are_counted():
    drive = Drive(Remembering())
    drive.tell(GO, 0.5)
    for when in range(1, 8):
        drive.decide(when, picture=when not in (2, 3))
    comparison = replay(drive.items, Remembering())
    assert (len(comparison.decisions), comparison.frames_missing) == (5, 2)
    assert comparison.same_to_the_bit == 1  # the state of the rest lacks two steps


def test_what_the_policy_was_told_counts_and_not_what_odometry_the_recorder_had():
    drive = Drive(Remembering(), accounts=True)
    drive.drive(GO, range(1, 8))
    drive.items = [item for item in drive.items if not item.topic.endswith("odom")]
    assert replay(drive.items, Remembering()).same_to_the_bit == 7


def test_a_recording_that_is_read_anew_each_time_is_as_good(tmp_path):
    drive = Drive(Remembering())
    drive.drive(GO, range(1, 5))

    class Bag:
        def __iter__(self):
            yield from drive.items

    assert replay(Bag(), Remembering()).same_to_the_bit == 4


@pytest.mark.parametrize(
    "contract", [replace(ActionContract(), horizon=4), replace(ActionContract(), rate_hz=20.0)], ids=["horizon", "rate"]
)
def test_a_policy_of_another_form_is_refused(contract):
    drive = Drive(Remembering())
    drive.drive(GO, range(1, 3))
    with pytest.raises(ContractMismatchError, match="of the same form"):
        replay(drive.items, Remembering(contract))


def test_a_recording_without_decisions_or_without_their_frames_is_refused():
    with pytest.raises(DatasetError, match="no decisions"):
        replay([], Remembering())
    drive = Drive(Remembering())
    drive.tell(GO, 0.5)
    drive.decide(1, picture=False)
    with pytest.raises(DatasetError, match="lacks the frames"):
        replay(drive.items, Remembering())


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.sampled_from([GO, BALL]), st.integers(1, 4), st.booleans()), min_size=1, max_size=5))
def test_whatever_was_said_in_between_the_same_policy_decides_the_same(parts):
    drive, when = Drive(Remembering()), 0
    for text, steps, ends in parts:
        drive.drive(text, range(when + 1, when + 1 + steps))
        when += steps + 1
        if ends:
            drive.tell("", when)
            when += 1
    comparison = replay(drive.items, Remembering())
    assert comparison.same_to_the_bit == len(comparison.decisions) == sum(steps for _, steps, _ in parts)
