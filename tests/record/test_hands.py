import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobile_vla.core import (
    NS_PER_S,
    ZERO_TWIST,
    CameraError,
    ContractMismatchError,
    Instruction,
    ManualClock,
    Status,
)
from mobile_vla.record.drivers import Driver
from mobile_vla.record.hands import BY_HAND, HandLoop
from mobile_vla.record.pilot import PolicyPilot
from mobile_vla.safety import Reason, SafetyState, Supervisor
from mobile_vla.teleop import Button
from robot.simple import FollowingBase
from runtime.scripted import ScriptedPolicy

from .rig import CONTRACT, NoisyCamera, Rig, push, still


def sent(steps):
    return [step.tick.twist.vx for step in steps]


def test_a_push_drives_and_letting_go_comes_to_rest():
    rig = Rig([*still(5), *push(20), *still(10)])
    steps = rig.run()
    assert max(sent(steps)) == pytest.approx(0.6)
    assert sent(steps)[-1] == 0
    assert sent(steps)[5] > 0  # the first touch moves at once
    assert {step.driver for step in steps} == {Driver.OPERATOR}
    assert steps[-1].tick.instruction == BY_HAND
    assert rig.base.is_stopped
    assert rig.base.stops >= 1


def test_it_comes_to_rest_by_a_ramp_when_it_is_over_while_it_drives():
    rig = Rig([*still(5), *push(20)])
    rig.run()
    speeds = [twist.vx for twist in rig.base.sent]
    assert speeds[24] == pytest.approx(0.6)
    assert all(before - after <= 0.16 for before, after in pairwise(speeds))
    assert speeds[-1] == 0


def test_a_stick_that_goes_away_while_it_drives_ends_the_motion_and_later_stops_the_robot():
    rig = Rig([*still(5), *push(10), *[None] * 40, *push(10)])
    steps = rig.run()
    assert steps[20].tick.twist == ZERO_TWIST
    assert steps[-1].tick.state is SafetyState.PROTECTIVE_STOP
    assert steps[-1].tick.reason is Reason.HELD_TOO_LONG
    assert steps[-1].tick.twist == ZERO_TWIST


def test_an_emergency_stop_waits_for_rearm_and_resume():
    rig = Rig(
        [
            *still(5),
            *push(10),
            *push(10, Button.EMERGENCY_STOP),
            *push(3, Button.RESUME),
            *push(3, Button.REARM),
            *push(10, Button.RESUME),
        ]
    )
    steps = rig.run()
    states = [step.tick.state for step in steps]
    assert states[15] is SafetyState.EMERGENCY_STOP
    assert states[27] is SafetyState.EMERGENCY_STOP
    assert states[30] is SafetyState.PROTECTIVE_STOP
    assert states[-1] is SafetyState.RUNNING
    assert all(vx == 0 for vx in sent(steps)[18:31])
    assert sent(steps)[-1] > 0
    assert [sentence for sentence in rig.said if "re-arm the emergency stop" in sentence]


def test_an_emergency_stop_in_the_same_read_as_a_rearm_wins():
    rig = Rig([*still(5), *still(3, Button.EMERGENCY_STOP, Button.REARM, Button.RESUME)])
    assert rig.run()[-1].tick.state is SafetyState.EMERGENCY_STOP


def test_a_camera_that_fails_stops_the_robot_and_is_raised():
    rig = Rig([*still(5), *push(30)])
    rig.loop._listener = lambda step: (rig.listen(step), len(rig.steps) == 15 and fail(rig))

    def fail(rig):
        rig.camera.failure = CameraError("unplugged")

    with pytest.raises(CameraError, match="unplugged"):
        rig.run()
    assert rig.supervisor.state is SafetyState.PROTECTIVE_STOP
    assert rig.base.sent[-1] == ZERO_TWIST
    assert rig.base.is_stopped


def test_what_the_listener_raises_stops_the_base_and_passes_through():
    rig = Rig([*still(5), *push(30)])

    def listen(step):
        if len(rig.base.sent) == 20:
            raise RuntimeError("broken")

    rig.loop._listener = listen
    with pytest.raises(RuntimeError, match="broken"):
        rig.run()
    assert rig.base.is_stopped


def test_a_slow_camera_or_another_clock_is_refused():
    rig = Rig()
    with pytest.raises(ContractMismatchError, match="gives 2 frames a second"):
        HandLoop(rig.stick, rig.base, rig.supervisor, rig.clock, CONTRACT, NoisyCamera(rig.clock, 2.0))
    rig = Rig(still(5))
    rig.camera.clock = ManualClock("wall")
    with pytest.raises(ContractMismatchError, match="clock 'wall'"):
        rig.run()
    assert rig.base.is_stopped


def test_a_frame_comes_with_the_velocity_of_its_capture():
    rig = Rig([*still(5), *push(20)])
    for step in rig.run():
        if step.frame is not None:
            assert step.frame.capture_ns == step.tick.stamp_ns
            assert step.measured_then == step.tick.measured


class InlinePilot(PolicyPilot):
    """Thinks when it is offered a frame: no thread, so that a script is the same every time."""

    def start(self):
        pass

    def offer(self, frame):
        if self._drive is not None:
            try:
                self._drive[0].consider(frame)
            except Exception as error:
                self._failed = error


def policy_rig(script, policy=None, **settings):
    rig = Rig(script, **settings)
    rig.policy = policy or ScriptedPolicy()
    rig.pilot = InlinePilot(rig.policy, rig.clock, rig.loop.velocities)
    rig.loop.hand_to(rig.pilot, Instruction("go"))
    return rig


def test_the_policy_drives_until_the_stick_is_touched_and_again_only_after_resume():
    rig = policy_rig([*still(15), *push(10, shares=(0, 0, 1)), *still(20), *still(15, Button.RESUME)])
    steps = rig.run()
    drivers = [step.driver for step in steps]
    assert drivers == [Driver.POLICY] * 15 + [Driver.OPERATOR] * 10 + [Driver.NOBODY] * 20 + [Driver.POLICY] * 15
    assert steps[14].tick.twist.vx == pytest.approx(0.3)
    assert steps[24].tick.twist.wz > 0.5
    assert all(step.tick.reason is Reason.TAKEN_OVER for step in steps[25:45])
    assert all(step.tick.twist == ZERO_TWIST for step in steps[28:45])
    assert steps[-1].tick.twist.vx == pytest.approx(0.3)
    assert steps[14].tick.grounding is not None
    assert steps[20].tick.grounding is None


def test_a_second_touch_drives_on_by_hand_without_a_resume():
    rig = policy_rig([*still(15), *push(5), *still(10), *push(15, shares=(-1, 0, 0)), *still(10)])
    steps = rig.run()
    assert steps[-12].tick.twist.vx < -0.3
    assert Driver.POLICY not in [step.driver for step in steps[15:]]
    assert steps[-1].tick.state is SafetyState.PROTECTIVE_STOP


def test_another_stop_is_not_undone_by_a_touch():
    rig = policy_rig([*still(15), *push(5), *still(10, Button.EMERGENCY_STOP), *push(15)])
    steps = rig.run()
    assert steps[-1].tick.state is SafetyState.EMERGENCY_STOP
    assert steps[-1].tick.twist == ZERO_TWIST


def test_after_the_policy_is_sent_away_a_touch_drives_at_once():
    rig = policy_rig([*still(15), *push(5), *still(5), *push(15)])
    listen = rig.listen

    def take_back(step):
        listen(step)
        if len(rig.steps) == 23:
            rig.loop.take_back()

    rig.loop._listener = take_back
    steps = rig.run()
    assert steps[-1].tick.twist.vx > 0.3
    assert steps[-1].driver is Driver.OPERATOR


def test_a_policy_that_fails_stops_the_robot():
    def fail():
        if len(rig.policy.observations) == 5:
            raise ValueError("no such tensor")

    rig = policy_rig(still(60), ScriptedPolicy(during_step=fail))
    steps = rig.run()
    assert steps[-1].tick.reason is Reason.POLICY_FAILED
    assert "ValueError: no such tensor" in steps[-1].tick.sentence
    assert steps[-1].tick.twist == ZERO_TWIST


def test_a_policy_that_arrived_says_so_in_its_steps():
    rig = policy_rig(still(30), ScriptedPolicy(status=lambda step: Status.ARRIVED if step > 5 else Status.DRIVING))
    assert rig.run()[-1].tick.grounding.status is Status.ARRIVED


shares = st.tuples(*[st.sampled_from([0.0, 0.0, 1.0, -0.5])] * 3)
said = st.none() | st.tuples(shares, st.sets(st.sampled_from([*Button])).map(tuple))


@settings(max_examples=40)
@given(st.lists(st.tuples(said, st.integers(1, 6)), max_size=15), st.booleans())
def test_whatever_is_pushed_and_pressed_limits_hold_and_only_resume_gives_the_policy_the_robot(script, with_policy):
    script = [moment for moment, times in script for _ in range(times)] or [None]
    rig = (policy_rig if with_policy else Rig)(script)
    steps = rig.run()
    limits = rig.supervisor.limits
    assert all(math.hypot(step.tick.twist.vx, step.tick.twist.vy) <= limits.planar_speed + 1e-9 for step in steps)
    assert rig.base.is_stopped
    stopped = False
    for before, after in zip([None, *steps], steps, strict=False):
        pressed = after.stick.pressed
        if before is not None:
            was, now = before.tick.state, after.tick.state
            if was is SafetyState.EMERGENCY_STOP and now is not was:
                assert Button.REARM in pressed
            if before.driver in (Driver.OPERATOR, Driver.NOBODY) and after.driver is Driver.POLICY:
                assert Button.RESUME in pressed
        stopped = stopped or Button.EMERGENCY_STOP in pressed
    if stopped and not any(Button.REARM in step.stick.pressed for step in steps):
        assert steps[-1].tick.state is SafetyState.EMERGENCY_STOP


def test_the_feedback_of_the_base_is_watched():
    class Silent(FollowingBase):
        has_feedback = True
        feedback_ns = 0

    clock = ManualClock(now_ns=10 * NS_PER_S)
    rig = Rig(still(20), base=Silent(clock))
    steps = rig.run()
    assert steps[-1].tick.reason is Reason.FEEDBACK_LOST


def test_the_heartbeat_of_the_station_is_the_stick():
    config = replace(Supervisor().config, heartbeat_after_s=0.3)
    rig = Rig([*still(10), *[None] * 10], safety=config)
    steps = rig.run()
    assert steps[9].tick.state is SafetyState.RUNNING
    assert steps[-1].tick.state is SafetyState.EMERGENCY_STOP
