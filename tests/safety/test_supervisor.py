import math
import threading

import pytest

from mobile_vla.core import NS_PER_S, ZERO_TWIST, SafetyLatchedError, Twist
from mobile_vla.safety import Inputs, Limits, Reason, SafetyState, Supervisor

from .driver import FORWARD, PERIOD_NS, Driver

HALF_S = NS_PER_S // 2
NOT_A_NUMBER = Twist(math.nan, 0.0, 0.0)
STEPS_TO_ZERO = math.ceil(Limits().ramp_time_s * 10) + 2
STOPPING = sorted(reason for reason in Reason if reason.state.is_stop)


def test_it_begins_holding_and_moves_with_the_last_of_the_recovery_steps():
    driver = Driver(recover_steps=3)
    assert driver.supervisor.state is SafetyState.HOLDING
    first, second, third = driver.steps(3)
    assert first.twist == second.twist == ZERO_TWIST
    assert (first.reason, first.state) == (second.reason, second.state) == (Reason.RECOVERING, SafetyState.HOLDING)
    assert (first.sentence, second.sentence) == tuple(f"waiting for fresh data in a row: {n} of 3 steps" for n in "12")
    assert (third.reason, third.state, third.sentence) == (Reason.DRIVING, SafetyState.RUNNING, "driving")
    assert third.twist.vx > 0


HOLDS = [
    ({"age_ns": HALF_S + 1}, Reason.FRAME_TOO_OLD, "the frame behind the command is 0.500 s old, more than 0.500 s"),
    (
        {"age_ns": NS_PER_S, "frame_repeated": True},
        Reason.FRAME_REPEATED,
        "the camera repeats one picture; it is 1.000 s old, more than 0.500 s",
    ),
    ({"age_ns": None}, Reason.NO_FRAME, "there is no camera frame yet"),
    ({"command": None}, Reason.NO_COMMAND, "there is no command for now"),
    ({"command_age_ns": HALF_S + 1}, Reason.COMMAND_TOO_OLD, "the newest command is 0.500 s old, more than 0.500 s"),
    ({"command_age_ns": -NS_PER_S}, Reason.COMMAND_TOO_OLD, "the newest command is stamped 1.000 s after now"),
    ({"manual": True}, Reason.NO_COMMAND, "there is no command for now"),
    ({"idle": True}, Reason.IDLE, "nothing is asked of the robot"),
    ({"idle": True, "command": None, "age_ns": NS_PER_S, "command_age_ns": NS_PER_S}, Reason.IDLE, "nothing is asked"),
    (
        {"tick_ns": NS_PER_S // 5 + 1},
        Reason.LOOP_LATE,
        "this step came 0.200 s, more than 0.200 s after the one before",
    ),
]


@pytest.mark.parametrize(("how", "reason", "says"), HOLDS)
def test_what_ramps_to_zero_and_recovers_only_after_enough_good_steps(how, reason, says):
    driver = Driver(recover_steps=4, hold_limit_s=60.0)
    speed = driver.run().twist.vx
    halted = driver.steps(STEPS_TO_ZERO, **how)
    assert {(safe.state, safe.reason) for safe in halted} == {(SafetyState.HOLDING, reason)}
    assert halted[0].sentence.startswith(says)
    lost = speed - halted[0].twist.vx
    assert 0 < lost <= 0.16 * how.get("tick_ns", PERIOD_NS) / PERIOD_NS  # the ramp, not the brake
    assert halted[-1].twist == ZERO_TWIST
    driver.steps(3)
    again = driver.step(**how)
    assert (again.twist, again.state) == (ZERO_TWIST, SafetyState.HOLDING)
    assert [safe.twist == ZERO_TWIST for safe in driver.steps(4)] == [True, True, True, False]


@pytest.mark.parametrize(
    "how",
    [
        {"age_ns": HALF_S, "frame_repeated": True},
        {"age_ns": -NS_PER_S // 100},
        {"command_age_ns": HALF_S},
        {"command_age_ns": -NS_PER_S // 100},
        {"feedback_age_ns": HALF_S},
        {"feedback_age_ns": -NS_PER_S // 100},
        {"heartbeat_age_ns": 60 * NS_PER_S},
        {"manual": True, "command_age_ns": HALF_S, "age_ns": None},
        {"manual": True, "command_age_ns": 0, "age_ns": -NS_PER_S},
        {"tick_ns": NS_PER_S // 5},
        {"tick_ns": 100_000},
        {"commands_received": 100},
    ],
)
def test_what_is_just_within_its_limit_drives_on(how):
    driver = Driver()
    driver.run()
    assert driver.step(**how).reason is Reason.DRIVING


def test_a_frozen_camera_holds_although_commands_keep_coming():
    driver = Driver()
    driver.run()
    frozen_ns = driver.now_ns
    states = [driver.step(age_ns=driver.now_ns + PERIOD_NS - frozen_ns).state for _ in range(8)]
    assert states == [SafetyState.RUNNING] * 5 + [SafetyState.HOLDING] * 3


@pytest.mark.parametrize("by_ns", [0, 1, -1, 50_000, 99_999, -PERIOD_NS, -100 * NS_PER_S])
def test_a_clock_that_stands_still_or_goes_back_ramps_to_zero_and_no_age_is_judged(by_ns):
    driver = Driver(heartbeat_after_s=0.5, defaults={"heartbeat_age_ns": 0})
    speed = driver.run().twist.vx
    now_ns = driver.now_ns
    for _ in range(STEPS_TO_ZERO):
        now_ns += by_ns
        ahead_ns = now_ns + NS_PER_S
        safe = driver.supervisor.step(
            now_ns, Inputs(FORWARD, ahead_ns, feedback_ns=ahead_ns, heartbeat_ns=ahead_ns, command_ns=ahead_ns)
        )
        assert (safe.state, safe.reason) == (SafetyState.HOLDING, Reason.CLOCK_NOT_ADVANCING)
        assert safe.sentence == "the clock stood still or went back since the last step"
        assert safe.twist.vx < speed
    assert safe.twist == ZERO_TWIST


def test_a_clock_that_stands_still_counts_as_a_period_a_step():
    driver = Driver(hold_limit_s=1.0)
    driver.run()
    held = driver.steps(11, tick_ns=0)
    assert [safe.state for safe in held] == [SafetyState.HOLDING] * 10 + [SafetyState.PROTECTIVE_STOP]


def require_braking_and_stopped(driver, speed, safe, state, reason):
    assert (safe.state, safe.reason) == (state, reason)
    assert safe.twist.vx == pytest.approx(speed - 0.3)  # 3 m/s^2 for 0.1 s
    after = driver.steps(30)
    assert all((s.state, s.reason, s.sentence) == (safe.state, reason, safe.sentence) for s in after)
    assert [s.twist for s in after[1:]] == [ZERO_TWIST] * 29


@pytest.mark.parametrize(
    ("how", "reason", "says"),
    [
        ({"command": NOT_A_NUMBER}, Reason.NON_FINITE_COMMAND, "nan, vy=0.0, wz=0.0) is not finite"),
        ({"command": Twist(0, -math.inf, 0)}, Reason.NON_FINITE_COMMAND, "-inf"),
        ({"command": Twist(0, 0, math.nan), "age_ns": None}, Reason.NON_FINITE_COMMAND, "nan"),
        ({"command": NOT_A_NUMBER, "idle": True}, Reason.NON_FINITE_COMMAND, "nan"),
        (
            {"age_ns": -NS_PER_S},
            Reason.FRAME_IN_THE_FUTURE,
            "the frame was captured 1.000 s after now: camera and robot do not share a clock",
        ),
        ({"age_ns": -NS_PER_S // 100 - 1, "command": None}, Reason.FRAME_IN_THE_FUTURE, "0.010 s after now"),
        ({"age_ns": -NS_PER_S, "command_age_ns": NS_PER_S}, Reason.FRAME_IN_THE_FUTURE, "1.000 s after now"),
        (
            {"feedback_age_ns": HALF_S + 1},
            Reason.FEEDBACK_LOST,
            "the base's last measured velocity is 0.500 s old, more than 0.500 s",
        ),
        ({"feedback_age_ns": -HALF_S, "idle": True}, Reason.FEEDBACK_LOST, "is stamped 0.500 s after now"),
        ({"commands_received": 101}, Reason.COMMAND_FLOOD, "101 commands came within a second, more than 100"),
        (
            {"tick_ns": 2 * NS_PER_S + 1},
            Reason.HELD_TOO_LONG,
            "the robot has not driven for 2.000 s, more than 2.000 s",
        ),
    ],
)
def test_what_is_a_protective_stop(how, reason, says):
    driver = Driver()
    speed = driver.run().twist.vx
    safe = driver.step(**how)
    assert says in safe.sentence
    if "tick_ns" in how:
        assert (safe.state, safe.reason, safe.twist) == (SafetyState.PROTECTIVE_STOP, reason, ZERO_TWIST)
    else:
        require_braking_and_stopped(driver, speed, safe, SafetyState.PROTECTIVE_STOP, reason)


@pytest.mark.parametrize(
    ("how", "reason", "says"),
    [
        ({"emergency_stop": True}, Reason.EMERGENCY_STOP, "the emergency stop is pressed"),
        ({"emergency_stop": True, "command": NOT_A_NUMBER}, Reason.EMERGENCY_STOP, "pressed"),
        ({"emergency_stop": True, "heartbeat_age_ns": NS_PER_S}, Reason.EMERGENCY_STOP, "pressed"),
        (
            {"heartbeat_age_ns": HALF_S + 1},
            Reason.HEARTBEAT_LOST,
            "the operator's last sign of life is 0.500 s old, more than 0.500 s",
        ),
        ({"heartbeat_age_ns": -NS_PER_S, "command": NOT_A_NUMBER}, Reason.HEARTBEAT_LOST, "stamped 1.000 s after now"),
    ],
)
def test_what_is_an_emergency_stop(how, reason, says):
    driver = Driver(heartbeat_after_s=0.5, defaults={"heartbeat_age_ns": 0})
    speed = driver.run().twist.vx
    safe = driver.step(**how)
    assert says in safe.sentence
    require_braking_and_stopped(driver, speed, safe, SafetyState.EMERGENCY_STOP, reason)


def test_without_a_heartbeat_yet_it_holds_and_then_drives():
    driver = Driver(heartbeat_after_s=0.5)
    waiting = driver.steps(5)
    assert {(safe.state, safe.reason) for safe in waiting} == {(SafetyState.HOLDING, Reason.NO_HEARTBEAT)}
    assert waiting[0].sentence == "there is no sign of life of the operator's station yet"
    assert driver.steps(3, heartbeat_age_ns=HALF_S)[-1].state is SafetyState.RUNNING


@pytest.mark.parametrize("reason", STOPPING)
def test_a_stop_asked_for_from_outside_stays_with_its_first_reason(reason):
    driver = Driver()
    speed = driver.run().twist.vx
    driver.supervisor.stop(reason, "because")
    assert driver.supervisor.state is reason.state
    driver.supervisor.stop(Reason.NODE_LOST, "a later one")
    if reason.state is SafetyState.EMERGENCY_STOP:
        driver.supervisor.emergency_stop("a later one")
    safe = driver.step()
    assert safe.sentence == "because"
    require_braking_and_stopped(driver, speed, safe, reason.state, reason)


def test_a_protective_stop_becomes_an_emergency_stop_and_not_the_other_way():
    driver = Driver()
    driver.run()
    driver.supervisor.stop(Reason.TAKEN_OVER, "taken over")
    assert driver.step(NOT_A_NUMBER).reason is Reason.TAKEN_OVER
    driver.supervisor.emergency_stop()
    assert driver.supervisor.state is SafetyState.EMERGENCY_STOP
    safe = driver.step(NOT_A_NUMBER)
    assert (safe.state, safe.reason) == (SafetyState.EMERGENCY_STOP, Reason.EMERGENCY_STOP)
    assert safe.sentence == "an emergency stop was asked for"


@pytest.mark.parametrize("reason", sorted(set(Reason) - set(STOPPING)))
def test_a_stop_needs_a_reason_that_stops(reason):
    driver = Driver()
    with pytest.raises(ValueError, match=f"^{reason} does not stop the robot: give one of states.PROTECTIVE or"):
        driver.supervisor.stop(reason, "because")
    assert driver.run().state is SafetyState.RUNNING


def test_resuming_needs_rest_and_waits_for_fresh_data():
    driver = Driver(recover_steps=2)
    driver.run()
    driver.supervisor.stop(Reason.POLICY_FAILED, "the policy failed")
    driver.step()
    still = r"^stopped because the policy failed: still braking; keep stepping until the robot stands, then resume$"
    with pytest.raises(SafetyLatchedError, match=still):
        driver.supervisor.resume(ZERO_TWIST)
    driver.steps(5)
    moves = r"^stopped because the policy failed: the base still moves .*-0.03\)\); wait until it stands, then resume$"
    with pytest.raises(SafetyLatchedError, match=moves):
        driver.supervisor.resume(Twist(0, 0, -0.03))
    assert driver.step().state is SafetyState.PROTECTIVE_STOP
    driver.supervisor.resume(Twist(0.006, -0.008, 0.02))
    assert driver.supervisor.state is SafetyState.HOLDING
    waiting, moving = driver.steps(2)
    assert (waiting.reason, waiting.twist) == (Reason.RECOVERING, ZERO_TWIST)
    assert moving.twist.vx > 0


def test_rearming_needs_rest_and_a_released_button_and_leaves_a_protective_stop():
    driver = Driver()
    driver.run()
    driver.step(emergency_stop=True)
    because = "^stopped because the emergency stop is pressed: "
    with pytest.raises(SafetyLatchedError, match=because + "release the emergency stop, then re-arm$"):
        driver.supervisor.rearm(ZERO_TWIST)
    driver.step(tick_ns=PERIOD_NS // 10)
    with pytest.raises(SafetyLatchedError, match=because + "still braking; .*, then re-arm$"):
        driver.supervisor.rearm(ZERO_TWIST)
    driver.step()
    with pytest.raises(SafetyLatchedError, match=because + "the base still moves .*, then re-arm$"):
        driver.supervisor.rearm(Twist(0.02, 0, 0))
    with pytest.raises(SafetyLatchedError, match=because + "re-arm the emergency stop, then resume$"):
        driver.supervisor.resume(ZERO_TWIST)
    with pytest.raises(SafetyLatchedError, match=because + "find out why, then re-arm, then resume$"):
        driver.supervisor.begin()
    driver.supervisor.rearm(ZERO_TWIST)
    assert driver.supervisor.state is SafetyState.PROTECTIVE_STOP
    safe = driver.step()
    assert (safe.state, safe.reason, safe.twist) == (SafetyState.PROTECTIVE_STOP, Reason.REARMED, ZERO_TWIST)
    assert safe.sentence == "re-armed after a stop (the emergency stop is pressed), waiting for resume"
    driver.supervisor.rearm(ZERO_TWIST)  # no second time
    with pytest.raises(SafetyLatchedError, match=r"waiting for resume: find out why, then resume$"):
        driver.supervisor.begin()
    driver.supervisor.resume(ZERO_TWIST)
    assert driver.steps(3)[-1].state is SafetyState.RUNNING


@pytest.mark.parametrize("call", ["rearm", "resume"])
def test_without_a_stop_there_is_nothing_to_end(call):
    driver = Driver()
    for steps in (1, 14):
        driver.steps(steps)
        before = driver.supervisor.state
        getattr(driver.supervisor, call)(FORWARD)
        assert driver.supervisor.state is before
    assert driver.step().state is SafetyState.RUNNING


def test_rearming_does_not_end_a_protective_stop():
    driver = Driver()
    driver.supervisor.stop(Reason.BASE_FAILED, "the base failed")
    driver.supervisor.rearm(ZERO_TWIST)
    assert driver.step().reason is Reason.BASE_FAILED


def test_a_drive_held_for_long_does_not_go_on_by_itself():
    driver = Driver(hold_limit_s=1.0)
    driver.run()
    held = driver.steps(11, age_ns=NS_PER_S)
    assert [safe.state for safe in held] == [SafetyState.HOLDING] * 10 + [SafetyState.PROTECTIVE_STOP]
    assert held[-1].sentence == "the robot has not driven for 1.100 s, more than 1.000 s"
    driver.supervisor.resume(ZERO_TWIST)
    assert {safe.state for safe in driver.steps(40, age_ns=NS_PER_S)} == {SafetyState.HOLDING}
    driver.run()
    assert driver.steps(11, age_ns=NS_PER_S)[-1].reason is Reason.HELD_TOO_LONG


def test_a_hold_that_recovers_in_time_begins_to_count_anew():
    driver = Driver(hold_limit_s=1.0, recover_steps=2)
    driver.run()
    for _ in range(3):
        driver.steps(8, age_ns=NS_PER_S)
        assert driver.steps(2)[-1].state is SafetyState.RUNNING


def test_before_the_first_drive_and_while_idle_it_holds_for_any_time():
    driver = Driver(hold_limit_s=1.0)
    assert {safe.state for safe in driver.steps(40, age_ns=None)} == {SafetyState.HOLDING}
    driver.run()
    driver.steps(8, command=None)
    assert {safe.state for safe in driver.steps(40, idle=True)} == {SafetyState.HOLDING}
    assert {safe.state for safe in driver.steps(40, command=None)} == {SafetyState.HOLDING}
    assert driver.steps(3)[-1].state is SafetyState.RUNNING


def test_a_new_drive_begins_from_rest_and_the_time_between_is_no_fault():
    driver = Driver(hold_limit_s=1.0)
    driver.run()
    driver.supervisor.begin()
    assert driver.supervisor.state is SafetyState.HOLDING
    first, second, third = driver.step(tick_ns=60 * NS_PER_S), driver.step(), driver.step()
    assert (first.twist, first.reason) == (second.twist, second.reason) == (ZERO_TWIST, Reason.RECOVERING)
    assert third.state is SafetyState.RUNNING
    driver.supervisor.begin()
    assert {safe.state for safe in driver.steps(40, age_ns=None)} == {SafetyState.HOLDING}


def test_a_flood_is_counted_over_a_sliding_second():
    driver = Driver(max_commands_per_s=20.0)
    assert driver.steps(15, commands_received=2)[-1].state is SafetyState.RUNNING
    assert driver.step(commands_received=3).reason is Reason.COMMAND_FLOOD


def test_it_says_what_it_keeps():
    limits = Limits(planar_speed=0.3)
    supervisor = Supervisor(limits)
    assert supervisor.limits is limits
    assert Supervisor().limits == Limits()


def test_a_later_emergency_stop_has_the_sentence_that_it_is_given():
    driver = Driver()
    driver.supervisor.emergency_stop("the operator pressed space")
    assert driver.step().sentence == "the operator pressed space"


def test_a_stop_may_be_asked_for_in_the_midst_of_a_step_as_a_signal_handler_does():
    driver = Driver()
    driver.run()

    class Interrupted(Inputs):
        def __getattribute__(self, name):
            if name == "idle":
                driver.supervisor.emergency_stop("SIGUSR1")
                assert driver.supervisor.state is SafetyState.EMERGENCY_STOP
            return super().__getattribute__(name)

    driver.now_ns += PERIOD_NS
    driver.supervisor.step(driver.now_ns, Interrupted(FORWARD, driver.now_ns))
    safe = driver.step()
    assert (safe.reason, safe.sentence) == (Reason.EMERGENCY_STOP, "SIGUSR1")


def test_a_stop_before_the_first_step_is_rearmed_at_rest():
    supervisor = Supervisor()
    supervisor.emergency_stop()
    supervisor.rearm(ZERO_TWIST)
    supervisor.resume(ZERO_TWIST)
    assert supervisor.state is SafetyState.HOLDING


def test_threads_that_stop_at_once_leave_the_most_severe_stop():
    for _ in range(20):
        driver = Driver()
        driver.run()
        go = threading.Barrier(3)

        def ask(reason, go=go, driver=driver):
            go.wait()
            driver.supervisor.stop(reason, reason)

        threads = [threading.Thread(target=ask, args=(r,)) for r in (Reason.NODE_LOST, Reason.HEARTBEAT_LOST)]
        for thread in threads:
            thread.start()
        go.wait()
        driver.steps(3)
        for thread in threads:
            thread.join()
        assert driver.step().reason is Reason.HEARTBEAT_LOST
