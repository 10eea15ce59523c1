import threading
import time

import pytest

from mobile_vla.core import Instruction, ManualClock
from mobile_vla.record.pilot import PolicyPilot
from mobile_vla.runtime.decide import VelocityLog
from runtime.scripted import ScriptedPolicy, frame_at

LIMIT_S = 60.0


def wait_until(holds):
    deadline = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def made():
    pilots = []

    def make(policy):
        pilot = PolicyPilot(policy, ManualClock(), VelocityLog(10))
        pilot.start()
        pilots.append(pilot)
        return pilot

    yield make
    for pilot in pilots:
        pilot.close()


def chunk_of(pilot):
    return pilot.plan(0)[0].twist


def test_it_thinks_beside_the_loop_only_while_it_has_an_instruction(made):
    policy = ScriptedPolicy()
    pilot = made(policy)
    pilot.offer(frame_at(0, 1))
    with pytest.raises(RuntimeError, match="engage it first"):
        pilot.plan(0)
    pilot.engage(Instruction("go"))
    assert pilot.engaged
    pilot.offer(frame_at(0, 2))
    wait_until(lambda: chunk_of(pilot) is not None)
    plan, view = pilot.plan(0)
    assert plan.twist.vx == pytest.approx(0.3)
    assert view.instruction == Instruction("go")
    pilot.disengage()
    assert len(policy.observations) == 1


def test_a_new_instruction_is_a_fresh_drive(made):
    policy = ScriptedPolicy()
    pilot = made(policy)
    for text in ("go", "stop"):
        pilot.engage(Instruction(text))
        assert pilot.plan(0)[0].twist is None
        pilot.offer(frame_at(0, 1))
        wait_until(lambda: chunk_of(pilot) is not None)
    assert policy.states == [("go", 0), ("stop", 0)]


def test_what_the_policy_raises_is_kept_until_it_is_engaged_again(made, caplog):
    def fail():
        raise ValueError("no such tensor")

    pilot = made(ScriptedPolicy(during_step=fail))
    pilot.engage(Instruction("go"))
    pilot.offer(frame_at(0, 1))
    wait_until(lambda: pilot.failure is not None)
    assert str(pilot.failure) == "no such tensor"
    assert "the policy failed" in caplog.text
    pilot.engage(Instruction("go"))
    assert pilot.failure is None


def test_closing_ends_its_thread():
    pilot = PolicyPilot(ScriptedPolicy(), ManualClock(), VelocityLog(10))
    pilot.close()
    pilot = PolicyPilot(ScriptedPolicy(), ManualClock(), VelocityLog(10))
    pilot.start()
    assert "record-policy" in [thread.name for thread in threading.enumerate()]
    pilot.close()
    assert "record-policy" not in [thread.name for thread in threading.enumerate()]
