from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.core import NS_PER_S, ZERO_TWIST, Instruction, Status, Twist
from mobile_vla.runtime.mission import Ended, Mission, MissionConfig
from mobile_vla.runtime.records import Ending
from mobile_vla.safety import SafetyState

GO = Instruction("go to the red cup")
STEP_NS = NS_PER_S // 50
MOVING = Twist(0.3, 0.0, 0.0)
CONFIG = MissionConfig(settle_s=0.5, time_limit_s=10.0)


@dataclass
class Drive:
    """Turns a mission step by step."""

    mission: Mission
    now_ns: int = 0

    def turn(self, seconds=STEP_NS / NS_PER_S, state=SafetyState.RUNNING, status=Status.DRIVING, measured=ZERO_TWIST):
        ended = None
        for _ in range(round(seconds * NS_PER_S / STEP_NS)):
            self.now_ns += STEP_NS
            ended = self.mission.turn(self.now_ns, state, status, measured)
            if ended is not None:
                break
        return ended


@pytest.fixture
def drive():
    mission = Mission(CONFIG)
    mission.begin(GO, 0)
    return Drive(mission)


def test_without_an_instruction_nothing_ends():
    mission = Mission(CONFIG)
    assert mission.turn(5 * NS_PER_S, SafetyState.EMERGENCY_STOP, Status.ARRIVED, ZERO_TWIST) is None
    assert mission.instruction is mission.last is None


@pytest.mark.parametrize("status", [status for status in Status if status.is_final])
def test_it_finishes_when_the_policy_has_said_so_for_a_while_and_the_robot_stands(drive, status):
    assert drive.turn(3.0) is None
    assert drive.turn(0.5, status=status) is None
    ended = drive.turn(1.0, status=status)
    assert ended == Ended(GO, Ending.FINISHED, status, pytest.approx(3.52))
    assert drive.mission.instruction is None
    assert drive.mission.last is ended
    assert drive.turn(1.0, status=status) is None  # told once


def test_a_final_word_that_is_taken_back_begins_anew(drive):
    assert drive.turn(0.4, status=Status.ARRIVED) is None
    assert drive.turn(status=Status.DRIVING) is None
    assert drive.turn(0.5, status=Status.ARRIVED) is None
    assert drive.turn(0.1, status=Status.ARRIVED).ending is Ending.FINISHED


def test_a_robot_that_still_rolls_has_not_finished(drive):
    assert drive.turn(3.0, status=Status.ARRIVED, measured=MOVING) is None
    assert drive.turn(status=Status.ARRIVED).ending is Ending.FINISHED


def test_what_is_measured_as_no_number_is_no_standing(drive):
    assert drive.turn(3.0, status=Status.ARRIVED, measured=Twist(float("nan"), 0.0, 0.0)) is None


@pytest.mark.parametrize("state", [SafetyState.HOLDING, SafetyState.PROTECTIVE_STOP])
def test_a_hold_or_a_protective_stop_suspends_it(drive, state):
    assert drive.turn(5.0, state=state, status=Status.ARRIVED) is None
    assert drive.mission.instruction is GO
    assert drive.turn(0.5, status=Status.ARRIVED) is None  # counted from when it runs again
    assert drive.turn(0.1, status=Status.ARRIVED).ending is Ending.FINISHED


def test_an_emergency_stop_ends_it(drive):
    drive.turn(1.0)
    ended = drive.turn(state=SafetyState.EMERGENCY_STOP, status=None)
    assert (ended.ending, ended.status) == (Ending.STOPPED, Status.DRIVING)  # the last word


def test_time_is_limited_even_in_a_stop(drive):
    assert drive.turn(9.9, state=SafetyState.PROTECTIVE_STOP, status=None) is None
    ended = drive.turn(1.0, state=SafetyState.PROTECTIVE_STOP, status=None)
    assert ended == Ended(GO, Ending.TIME_LIMIT, None, pytest.approx(10.0))


def test_another_instruction_ends_the_one_before_as_requested(drive):
    drive.turn(2.0)
    other = Instruction("go to the ball")
    drive.mission.begin(other, drive.now_ns)
    assert drive.mission.last == Ended(GO, Ending.REQUESTED, Status.DRIVING, pytest.approx(2.0))
    assert drive.mission.instruction is other
    assert drive.mission.began_ns == drive.now_ns
    assert drive.turn(state=SafetyState.EMERGENCY_STOP, status=None).status is None  # no word of the one before


def test_a_final_word_for_one_instruction_is_none_for_the_next(drive):
    drive.turn(0.5, status=Status.ARRIVED)
    drive.mission.begin(GO, drive.now_ns)
    assert drive.turn(0.4, status=Status.ARRIVED) is None


def test_ending_what_is_not_there_changes_nothing(drive):
    drive.mission.end(Ending.REQUESTED, NS_PER_S)
    last = drive.mission.last
    drive.mission.end(Ending.STOPPED, 2 * NS_PER_S)
    assert drive.mission.last is last


steps = st.lists(
    st.tuples(
        st.integers(1, NS_PER_S),
        st.sampled_from(SafetyState),
        st.sampled_from([None, *Status]),
        st.sampled_from([ZERO_TWIST, MOVING]),
    ),
    max_size=60,
)


@given(steps)
def test_whatever_happens_it_ends_once_within_its_time_and_for_a_reason_that_holds(steps):
    mission = Mission(CONFIG)
    mission.begin(GO, 0)
    now_ns, ends = 0, []
    for elapsed_ns, state, status, measured in steps:
        now_ns += elapsed_ns
        ended = mission.turn(now_ns, state, status, measured)
        if ended is not None:
            ends.append(ended)
            if ended.ending is Ending.FINISHED:
                assert (state, measured) == (SafetyState.RUNNING, ZERO_TWIST)
                assert status.is_final
                assert now_ns >= 0.5 * NS_PER_S
            if ended.ending is Ending.STOPPED:
                assert state is SafetyState.EMERGENCY_STOP
            if ended.ending is Ending.TIME_LIMIT:
                assert now_ns >= 10 * NS_PER_S
    assert len(ends) <= 1
    assert bool(ends) == (mission.instruction is None)
    if now_ns >= 10 * NS_PER_S or any(step[1] is SafetyState.EMERGENCY_STOP for step in steps):
        assert ends
