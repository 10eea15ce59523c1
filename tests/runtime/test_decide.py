import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.core import NS_PER_S, ZERO_TWIST, ContractMismatchError, Frame, Instruction, Twist
from mobile_vla.runtime.chunks import ChunkQueue
from mobile_vla.runtime.decide import Decider, Mailbox, VelocityLog
from mobile_vla.safety import FrameWatch

from .scripted import ScriptedPolicy, frame_at

MS = NS_PER_S // 1000


def decider(policy, velocities=None):
    queue = ChunkQueue()
    made = Decider(
        policy,
        Instruction("go"),
        queue,
        velocities or VelocityLog(20),
        FrameWatch(),
        clock="simulation",
    )
    return made, queue


def test_the_policy_sees_the_velocity_of_the_capture():
    velocities = VelocityLog(20)
    for k in range(5):
        velocities.add(100 * k, Twist(float(k), 0, 0))
    policy = ScriptedPolicy()
    made, _ = decider(policy, velocities=velocities)
    made.consider(frame_at(250, 1))
    assert policy.observations[0].velocity.vx == 2.0


@given(st.lists(st.integers(0, 1000), unique=True).map(sorted), st.integers(0, 1000), st.integers(1, 10))
def test_the_velocity_log_gives_the_last_one_before(stamps, at, length):
    log = VelocityLog(length)
    for stamp in stamps:
        log.add(stamp, Twist(float(stamp), 0, 0))
    kept = stamps[-length:]
    before = [stamp for stamp in kept if stamp <= at]
    expected = before[-1] if before else kept[0] if kept else None
    assert log.at(at) == (ZERO_TWIST if expected is None else Twist(float(expected), 0, 0))


def test_the_mailbox_gives_the_newest_frame_once():
    mailbox = Mailbox()
    assert mailbox.take(0.0) is None
    mailbox.put(frame_at(0, 1))
    mailbox.put(frame_at(1, 2))
    assert mailbox.take(0.0).sequence == 2
    assert mailbox.take(0.0) is None


def test_the_mailbox_wakes_who_waits():
    mailbox = Mailbox()
    threading.Timer(0.01, mailbox.put, [frame_at(0, 1)]).start()
    assert mailbox.take(30.0).sequence == 1


def test_repeats_never_reach_the_policy():
    policy = ScriptedPolicy()
    made, queue = decider(policy)
    made.consider(frame_at(0, 1))
    made.consider(Frame(policy.observations[0].frame.pixels, 200 * MS, "simulation", "front", 2))
    assert len(policy.observations) == 1
    assert made.view().frame_repeated
    assert queue.plan(0).capture_ns == 0
    made.consider(frame_at(400 * MS, 3))
    assert not made.view().frame_repeated
    assert made.decisions == 2


def test_a_faster_camera_is_thinned_to_the_rate_of_the_contract_in_spite_of_jitter():
    policy = ScriptedPolicy()
    made, _ = decider(policy)
    for k in range(60):
        made.consider(frame_at(k * 100 * MS // 3 + (-1) ** k * 3 * MS + 3 * MS, k))
    assert len(policy.observations) == 10


def test_a_frame_on_another_clock_is_refused():
    made, _ = decider(ScriptedPolicy())
    with pytest.raises(ContractMismatchError, match=r"'monotonic'.*'simulation'"):
        made.consider(frame_at(0, 1, clock="monotonic"))


@pytest.mark.parametrize("lie", [{"stamp_offset_ns": 1}, {"chunk_rate_hz": 5.0}])
def test_a_chunk_that_hides_its_age_or_rate_is_refused(lie):
    made, queue = decider(ScriptedPolicy(**lie))
    with pytest.raises(ContractMismatchError, match="chunk"):
        made.consider(frame_at(0, 1))
    assert queue.plan(0).capture_ns is None


def test_a_reset_drops_the_chunk_and_gives_the_policy_a_fresh_state():
    policy = ScriptedPolicy()
    made, queue = decider(policy)
    made.consider(frame_at(0, 1))
    made.consider(frame_at(200 * MS, 2))
    made.reset(Instruction("stop"))
    assert queue.plan(200 * MS).capture_ns is None
    assert made.view().decision is None
    made.consider(frame_at(210 * MS, 3))  # not due yet under the old instruction, but under the new
    assert policy.states == [("go", 0), ("go", 1), ("stop", 0)]
    assert made.view().instruction == Instruction("stop")


def test_a_decision_under_a_replaced_instruction_is_thrown_away():
    policy = ScriptedPolicy(during_step=lambda: made.reset(Instruction("stop")))
    made, queue = decider(policy)
    made.consider(frame_at(0, 1))
    assert queue.plan(0).capture_ns is None
    assert (made.view().decision, made.decisions) == (None, 0)
