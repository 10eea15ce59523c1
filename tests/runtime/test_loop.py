import logging
import threading
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from mobile_vla.core import (
    NS_PER_S,
    ZERO_TWIST,
    ActionContract,
    CameraError,
    ConfigError,
    ContractMismatchError,
    Instruction,
    ManualClock,
    MonotonicClock,
    SafetyLatchedError,
    Status,
    Twist,
)
from mobile_vla.runtime import DriveConfig, DriveLoop, Ending
from mobile_vla.safety import Clearance, ClearanceConfig, Reason, SafetyConfig, SafetyState, Supervisor
from robot.simple import CountingCamera, FollowingBase

from .scripted import ScriptedPolicy

GO = Instruction("go")
LIMIT_S = 30.0
"""Of a wait for another thread: reached only when something is broken."""


def arrive_after(steps):
    return lambda step: Status.ARRIVED if step >= steps else Status.DRIVING


class Rig:
    """A loop with all its parts, on a simulation's clock unless told otherwise."""

    def __init__(self, policy=None, clock=None, safety=None, observer=lambda tick: None, camera=None, **config):
        self.clock = clock or ManualClock()
        self.policy = policy or ScriptedPolicy(status=arrive_after(5))
        self.camera = camera or CountingCamera(self.clock)
        self.camera.open()
        self.base = FollowingBase(self.clock)
        self.supervisor = Supervisor(config=safety or SafetyConfig())
        self.ticks = []

        def observe(tick):
            self.ticks.append(tick)
            observer(tick)

        self.loop = DriveLoop(
            self.camera, self.base, self.policy, self.supervisor, self.clock, DriveConfig(**config), observe
        )

    def require_stopped(self):
        assert self.base.is_stopped
        assert self.base.stops >= 1


def test_it_drives_until_the_policy_has_arrived_and_the_base_stands():
    rig = Rig(settle_s=0.5)
    outcome = rig.loop.run_blocking(GO)
    assert (outcome.ending, outcome.status, outcome.error, outcome.at_rest) == (
        Ending.FINISHED,
        Status.ARRIVED,
        None,
        True,
    )
    assert outcome.ticks == len(rig.ticks)
    assert outcome.decisions == len(rig.policy.observations)
    assert max(tick.twist.vx for tick in rig.ticks) == pytest.approx(0.3)
    assert all(tick.grounding.status is Status.ARRIVED for tick in rig.ticks[-5:])
    assert rig.ticks[-1].measured == ZERO_TWIST
    assert outcome.duration_s == pytest.approx((len(rig.ticks) - 1) / 10)
    rig.require_stopped()


def test_it_steps_at_the_rate_of_the_contract_and_ages_are_true():
    rig = Rig()
    rig.loop.run_blocking(GO)
    assert {b.stamp_ns - a.stamp_ns for a, b in pairwise(rig.ticks)} == {NS_PER_S // 10}
    assert {tick.frame_age_ns for tick in rig.ticks} == {0, NS_PER_S // 10}  # 5 Hz frames, 10 Hz steps
    assert all(tick.frame_age_ns == tick.stamp_ns - tick.frame.capture_ns for tick in rig.ticks)
    assert [tick.twist for tick in rig.ticks] == rig.base.sent


def test_a_blocking_drive_is_the_same_every_time():
    def story():
        rig = Rig(ScriptedPolicy(Twist(0.4, 0.2, -0.7), status=arrive_after(9)))
        outcome = rig.loop.run_blocking(GO)
        return outcome, [replace(tick, frame=None, inference_ms=None) for tick in rig.ticks]

    assert story() == story()


def test_a_policy_that_says_arrived_but_drives_on_is_not_finished():
    policy = ScriptedPolicy(status=lambda step: Status.ABSENT)
    step = policy.step

    def moving(observation, state):
        made = step(observation, state)
        made.chunk.velocities[:, 2] = 0.5
        return made

    policy.step = moving
    rig = Rig(policy, time_limit_s=3.0)
    outcome = rig.loop.run_blocking(GO)
    assert (outcome.ending, outcome.status, outcome.at_rest) == (Ending.TIME_LIMIT, Status.ABSENT, True)


def test_a_final_status_has_to_last():
    flicker = ScriptedPolicy(ZERO_TWIST, status=lambda step: Status.ARRIVED if step % 2 else Status.SEARCHING)
    assert Rig(flicker, time_limit_s=3.0, settle_s=0.3).loop.run_blocking(GO).ending is Ending.TIME_LIMIT
    assert Rig(flicker, time_limit_s=3.0, settle_s=0.2).loop.run_blocking(GO).ending is Ending.FINISHED


def require_ramp(ticks):
    """No step slows down by more than the acceleration limit: a ramp, not a brake."""
    assert all(a.twist.vx - b.twist.vx <= 0.15 + 1e-9 for a, b in pairwise(ticks))


def test_the_time_limit_ramps_to_rest():
    rig = Rig(ScriptedPolicy(), time_limit_s=2.0)
    outcome = rig.loop.run_blocking(GO)
    assert (outcome.ending, outcome.status, outcome.at_rest) == (Ending.TIME_LIMIT, Status.DRIVING, True)
    assert rig.ticks[20].twist.vx == pytest.approx(0.3)
    assert [tick.wanted for tick in rig.ticks[21:]] == [ZERO_TWIST] * (len(rig.ticks) - 21)
    require_ramp(rig.ticks)
    rig.require_stopped()


def test_a_stop_on_request_ramps_to_rest():
    rig = Rig(ScriptedPolicy(), observer=lambda tick: len(rig.ticks) == 12 and rig.loop.request_stop())
    outcome = rig.loop.run_blocking(GO)
    assert (outcome.ending, outcome.at_rest, outcome.reason) == (Ending.REQUESTED, True, Reason.DRIVING)
    require_ramp(rig.ticks)
    rig.require_stopped()


def test_a_request_to_stop_when_nothing_drives_does_not_end_the_next_drive():
    rig = Rig()
    rig.loop.request_stop()
    assert rig.loop.run_blocking(GO).ending is Ending.FINISHED


def test_a_base_that_keeps_rolling_is_waited_for_a_bounded_time_and_reported():
    rig = Rig(ScriptedPolicy(), time_limit_s=1.0, rest_limit_s=1.0)
    rig.base.velocity = lambda: Twist(0.2, 0.0, 0.0)
    outcome = rig.loop.run_blocking(GO)
    assert not outcome.at_rest
    assert outcome.duration_s < 1.0 + rig.supervisor.limits.ramp_time_s + 1.0 + 0.4
    rig.require_stopped()


def test_what_the_policy_raises_brakes_stops_and_is_in_the_outcome(caplog):
    def fail():
        if len(rig.policy.observations) == 6:
            raise RuntimeError("out of memory")

    rig = Rig(ScriptedPolicy(during_step=fail))
    outcome = rig.loop.run_blocking(GO)
    assert (outcome.ending, outcome.reason, outcome.at_rest) == (Ending.POLICY_FAILED, Reason.POLICY_FAILED, True)
    assert str(outcome.error) == "out of memory"
    assert "RuntimeError: out of memory" in outcome.sentence
    assert "out of memory" in caplog.text
    assert rig.supervisor.state is SafetyState.PROTECTIVE_STOP
    rig.require_stopped()
    with pytest.raises(SafetyLatchedError, match=r"out of memory: find out why, then resume"):
        rig.loop.run_blocking(GO)
    rig.supervisor.resume(rig.base.velocity())
    rig.policy.observations.extend([None] * 9)
    assert rig.loop.run_blocking(GO).ending is Ending.TIME_LIMIT


def test_a_camera_that_fails_brakes_stops_and_is_in_the_outcome():
    rig = Rig(observer=lambda tick: len(rig.ticks) == 8 and rig.camera.close())
    outcome = rig.loop.run_blocking(GO)
    assert (outcome.ending, outcome.reason, outcome.at_rest) == (Ending.CAMERA_FAILED, Reason.CAMERA_FAILED, True)
    assert isinstance(outcome.error, CameraError)
    rig.require_stopped()


def test_a_policy_that_wants_nan_is_stopped():
    rig = Rig(ScriptedPolicy(Twist(float("nan"), 0.0, 0.0)))
    outcome = rig.loop.run_blocking(GO)
    assert (outcome.ending, outcome.reason) == (Ending.STOPPED, Reason.NON_FINITE_COMMAND)
    rig.require_stopped()


def test_an_emergency_stop_ends_the_drive():
    rig = Rig(ScriptedPolicy(), observer=lambda tick: len(rig.ticks) == 12 and rig.supervisor.emergency_stop())
    outcome = rig.loop.run_blocking(GO)
    assert (outcome.ending, outcome.reason, outcome.at_rest) == (Ending.STOPPED, Reason.EMERGENCY_STOP, True)
    rig.require_stopped()
    with pytest.raises(SafetyLatchedError, match="re-arm, then resume"):
        rig.loop.run_blocking(GO)
    rig.supervisor.rearm(rig.base.velocity())
    with pytest.raises(SafetyLatchedError, match="then resume"):
        rig.loop.run_blocking(GO)
    rig.supervisor.resume(rig.base.velocity())
    rig.loop._observer = None
    assert rig.loop.run_blocking(GO).ending is Ending.TIME_LIMIT


def freeze(rig, after):
    """From that tick on the camera gives its last picture, newly numbered and stamped."""
    read = rig.camera.read

    def frozen(timeout_s):
        frame = read(timeout_s)
        return replace(frame, pixels=rig.ticks[-1].frame.pixels) if frame and len(rig.ticks) >= after else frame

    rig.camera.read = frozen


@pytest.mark.parametrize(("identical_pixels", "reason"), [(True, Reason.FRAME_REPEATED), (False, Reason.DRIVING)])
def test_a_frozen_camera_stops_the_robot_unless_pictures_may_be_identical(identical_pixels, reason):
    rig = Rig(ScriptedPolicy(), time_limit_s=4.0, identical_pixels=identical_pixels)
    freeze(rig, after=15)
    outcome = rig.loop.run_blocking(GO)
    assert outcome.ending is (Ending.STOPPED if identical_pixels else Ending.TIME_LIMIT)
    assert rig.ticks[35].reason is reason
    assert (rig.ticks[35].twist == ZERO_TWIST) == identical_pixels


def test_a_drive_that_was_held_for_long_does_not_go_on_by_itself():
    rig = Rig(ScriptedPolicy(), time_limit_s=8.0)
    read = rig.camera.read
    rig.camera.read = lambda timeout_s: None if 15 <= len(rig.ticks) < 45 else read(timeout_s)
    outcome = rig.loop.run_blocking(GO)
    assert (outcome.ending, outcome.reason, outcome.at_rest) == (Ending.STOPPED, Reason.HELD_TOO_LONG, True)


def test_the_time_between_two_drives_is_no_fault_and_the_second_begins_as_the_first():
    rig = Rig(time_limit_s=3.0)
    rig.loop.run_blocking(GO)
    first = [(tick.state, tick.reason) for tick in rig.ticks]
    rig.ticks.clear()
    rig.clock.advance(60 * NS_PER_S)
    rig.policy.observations.clear()
    rig.loop.run_blocking(GO)
    assert [(tick.state, tick.reason) for tick in rig.ticks] == first


def test_a_camera_gone_silent_stops_the_robot_and_frames_that_come_back_set_it_going():
    rig = Rig(ScriptedPolicy(), time_limit_s=5.0)
    read = rig.camera.read
    rig.camera.read = lambda timeout_s: None if 15 <= len(rig.ticks) < 30 else read(timeout_s)
    rig.loop.run_blocking(GO)
    states = [tick.state for tick in rig.ticks[:51]]
    assert states[14] is SafetyState.RUNNING
    assert rig.ticks[29].reason is Reason.FRAME_TOO_OLD
    assert rig.ticks[29].twist == ZERO_TWIST
    assert states[30] is SafetyState.HOLDING
    assert states[50] is SafetyState.RUNNING


@pytest.mark.parametrize("part", ["observer", "send", "velocity", "interrupt"])
def test_whatever_else_is_raised_passes_through_with_the_base_stopped(part):
    def fail(*_):
        if len(rig.ticks) == 10:
            raise KeyboardInterrupt if part == "interrupt" else OSError(part)
        return ZERO_TWIST

    rig = Rig(ScriptedPolicy(during_step=fail if part == "interrupt" else lambda: None))
    if part == "observer":
        rig.loop._observer = lambda tick: (rig.ticks.append(tick), fail())
    elif part != "interrupt":
        setattr(rig.base, part, fail)
    with pytest.raises(KeyboardInterrupt if part == "interrupt" else OSError):
        rig.loop.run_blocking(GO)
    rig.require_stopped()


def test_a_new_instruction_in_mid_drive_gets_a_fresh_state_and_ends_the_old_motion():
    rig = Rig(
        ScriptedPolicy(status=lambda step: Status.DRIVING),
        observer=lambda tick: len(rig.ticks) == 15 and rig.loop.reset(Instruction("stop")),
        time_limit_s=3.0,
    )
    outcome = rig.loop.run_blocking(GO)
    assert ("stop", 0) in rig.policy.states
    assert outcome.instruction == Instruction("stop")
    assert {tick.instruction.text for tick in rig.ticks[15:]} == {"stop"}
    slowing = [tick.twist.vx for tick in rig.ticks[14:]]
    assert slowing == sorted(slowing, reverse=True)


def test_a_new_instruction_needs_a_drive():
    with pytest.raises(RuntimeError, match="no drive"):
        Rig().loop.reset(GO)


def test_a_loop_drives_once_at_a_time():
    errors = []

    def again(tick):
        try:
            rig.loop.run_blocking(GO)
        except RuntimeError as error:
            errors.append(error)

    rig = Rig(observer=again)
    assert rig.loop.run_blocking(GO).ending is Ending.FINISHED
    assert len(errors) == len(rig.ticks)


def test_missed_periods_are_left_out_and_never_caught_up():
    rig = Rig(ScriptedPolicy(), observer=lambda tick: len(rig.ticks) == 5 and rig.clock.advance(NS_PER_S // 4))
    rig.loop._config = replace(rig.loop._config, time_limit_s=2.0)
    rig.loop.run_blocking(GO)
    tenths = [tick.stamp_ns * 10 // NS_PER_S for tick in rig.ticks]
    assert tenths[:8] == [0, 1, 2, 3, 4, 7, 8, 9]


def test_a_camera_slower_than_the_policy_needs_is_refused():
    clock = ManualClock()
    with pytest.raises(ContractMismatchError, match="front gives 2"):
        Rig(clock=clock, camera=CountingCamera(clock, rate_hz=2.0))


@pytest.mark.parametrize("wrong", [{"time_limit_s": 0.0}, {"rest_limit_s": float("nan")}, {"settle_s": 0.0}])
def test_a_config_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        DriveConfig(**wrong)


# The threaded loop runs on the machine's clock. Its tests wait for events, and their ages are generous, so that what
# they assert holds on a machine of any speed.

PATIENT = SafetyConfig(stale_after_s=LIMIT_S, late_step_s=LIMIT_S, hold_limit_s=LIMIT_S, recover_steps=1, period_s=0.02)
CONTRACT = ActionContract(rate_hz=50.0, frame_rate_hz=20.0, horizon=round(50 * LIMIT_S))


def threaded_rig(policy, observer=lambda tick: None, **config):
    clock = MonotonicClock()
    camera = CountingCamera(clock, rate_hz=20.0)
    return Rig(policy, clock, PATIENT, observer, camera, time_limit_s=LIMIT_S, **config)


def test_threaded_it_arrives_too():
    rig = threaded_rig(ScriptedPolicy(status=arrive_after(4), contract=CONTRACT))
    outcome = rig.loop.run_threaded(GO)
    assert (outcome.ending, outcome.at_rest) == (Ending.FINISHED, True)
    assert max(tick.twist.vx for tick in rig.ticks) > 0
    rig.require_stopped()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("drive-")]


def test_threaded_control_does_not_wait_for_inference_and_inference_takes_the_newest_frame():
    ticked = threading.Event()

    def slow():
        if len(rig.policy.observations) == 2:
            rig.ticks.clear()
            assert ticked.wait(LIMIT_S)

    def observer(tick):
        if len(rig.policy.observations) == 2 and len(rig.ticks) >= 20:
            ticked.set()
        if len(rig.policy.observations) >= 3:
            rig.loop.request_stop()

    rig = threaded_rig(ScriptedPolicy(during_step=slow, contract=CONTRACT), observer)
    assert rig.loop.run_threaded(GO).ending is Ending.REQUESTED
    second, third = (observation.frame.sequence for observation in rig.policy.observations[1:3])
    assert third > second + 1  # 20 control steps of 20 ms at 20 frames a second: those in between were dropped


def test_threaded_what_the_policy_raises_stops_the_robot_and_is_reported(caplog):
    def fail():
        if len(rig.policy.observations) == 3:
            raise RuntimeError("device lost")

    rig = threaded_rig(ScriptedPolicy(during_step=fail, contract=CONTRACT))
    with caplog.at_level(logging.ERROR):
        outcome = rig.loop.run_threaded(GO)
    assert (outcome.ending, str(outcome.error), outcome.at_rest) == (Ending.POLICY_FAILED, "device lost", True)
    assert "device lost" in caplog.text
    assert rig.supervisor.state is SafetyState.PROTECTIVE_STOP
    rig.require_stopped()


def test_threaded_a_policy_that_never_returns_is_left_behind_stopped_and_no_drive_begins_beside_it():
    release = threading.Event()
    rig = threaded_rig(
        ScriptedPolicy(during_step=lambda: release.wait(LIMIT_S), contract=CONTRACT),
        observer=lambda tick: rig.policy.observations and rig.loop.request_stop(),
        join_limit_s=0.05,
    )
    try:
        assert rig.loop.run_threaded(GO).ending is Ending.REQUESTED
        rig.require_stopped()
        with pytest.raises(RuntimeError, match="still busy"):
            rig.loop.run_threaded(GO)
    finally:
        release.set()


def test_threaded_an_interrupt_stops_the_base_and_the_threads():
    def interrupt(tick):
        if tick.twist.vx > 0:
            raise KeyboardInterrupt

    rig = threaded_rig(ScriptedPolicy(contract=CONTRACT), interrupt)
    with pytest.raises(KeyboardInterrupt):
        rig.loop.run_threaded(GO)
    rig.require_stopped()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("drive-")]


def test_it_heeds_the_range_sensor():
    rig = Rig(safety=SafetyConfig(clearance=ClearanceConfig(0.15, 0.2)), policy=ScriptedPolicy(), time_limit_s=3.0)
    assert rig.loop.run_blocking(GO).reason is Reason.RANGE_TOO_OLD
    assert {tick.twist for tick in rig.ticks} == {ZERO_TWIST}

    def free():
        return Clearance(np.zeros(1), np.full(1, 5.0), rig.clock.now_ns())

    loop = DriveLoop(
        rig.camera, rig.base, rig.policy, rig.supervisor, rig.clock, DriveConfig(time_limit_s=3.0), clearance=free
    )
    assert loop.run_blocking(GO).reason is Reason.DRIVING
