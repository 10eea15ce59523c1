import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.core import NS_PER_S, ZERO_TWIST, ConfigError, SafetyLatchedError, Twist
from mobile_vla.safety import Limits, Reason, SafetyConfig, SafetyState, Standstill, Supervisor
from mobile_vla.safety.supervisor import LATCHING

PERIOD_NS = NS_PER_S // 10
FORWARD = Twist(0.5, 0.0, 0.1)
NOT_A_NUMBER = Twist(math.nan, 0.0, 0.0)
STEPS_TO_ZERO = math.ceil(Limits().ramp_time_s * 10) + 2


class Driver:
    """Steps a supervisor at its rate with fresh data unless told otherwise."""

    def __init__(self, **config):
        self.supervisor = Supervisor(config=SafetyConfig(**config))
        self.now_ns = 0

    def step(self, command=FORWARD, age_ns=0, **how):
        self.now_ns += PERIOD_NS
        capture_ns = None if age_ns is None else self.now_ns - age_ns
        return self.supervisor.step(self.now_ns, command, capture_ns, **how)

    def steps(self, count, *arguments, **how):
        return [self.step(*arguments, **how) for _ in range(count)]

    def run(self):
        return self.steps(15)[-1]


def test_it_begins_starved_and_moves_with_the_last_of_the_recovery_steps():
    driver = Driver(recover_steps=3)
    assert driver.supervisor.state is SafetyState.STARVED
    first, second, third = driver.steps(3)
    assert first.twist == second.twist == ZERO_TWIST
    assert (second.reason, second.state) == (Reason.RECOVERING, SafetyState.STARVED)
    assert "2 of 3" in second.sentence
    assert (third.reason, third.state) == (Reason.DRIVING, SafetyState.RUNNING)
    assert third.twist.vx > 0


@pytest.mark.parametrize(
    ("how", "state", "reason", "says"),
    [
        ({"age_ns": NS_PER_S // 2 + 1}, SafetyState.STALE, Reason.FRAME_TOO_OLD, "0.500 s old"),
        ({"age_ns": NS_PER_S, "frame_repeated": True}, SafetyState.STALE, Reason.FRAME_REPEATED, "1.000 s old"),
        ({"age_ns": None}, SafetyState.STALE, Reason.NO_FRAME, "no camera frame"),
        ({"command": None}, SafetyState.STARVED, Reason.NO_COMMAND, "no command"),
    ],
)
def test_what_ramps_to_zero_and_recovers_only_after_enough_fresh_steps(how, state, reason, says):
    driver = Driver(recover_steps=4)
    speed = driver.run().twist.vx
    halted = driver.steps(STEPS_TO_ZERO, **how)
    assert {(safe.state, safe.reason) for safe in halted} == {(state, reason)}
    assert says in halted[0].sentence
    assert speed - 0.16 <= halted[0].twist.vx < speed  # the ramp, not the brake
    assert halted[-1].twist == ZERO_TWIST
    driver.steps(3)
    again = driver.step(**how)
    assert (again.twist, again.state) == (ZERO_TWIST, state)
    assert [safe.twist == ZERO_TWIST for safe in driver.steps(4)] == [True, True, True, False]


def test_a_frame_of_just_the_allowed_age_is_fresh_and_a_repeat_within_it_too():
    driver = Driver()
    driver.run()
    assert driver.step(age_ns=NS_PER_S // 2, frame_repeated=True).state is SafetyState.RUNNING


def test_a_frozen_camera_is_stale_although_commands_keep_coming():
    driver = Driver()
    driver.run()
    frozen_ns = driver.now_ns
    states = [driver.step(age_ns=driver.now_ns + PERIOD_NS - frozen_ns).state for _ in range(8)]
    assert states == [SafetyState.RUNNING] * 5 + [SafetyState.STALE] * 3


@pytest.mark.parametrize("by_ns", [0, 1, -1, 50_000, -PERIOD_NS, -100 * NS_PER_S])
def test_a_clock_that_stands_still_or_goes_back_ramps_to_zero(by_ns):
    driver = Driver()
    speed = driver.run().twist.vx
    now_ns = driver.now_ns
    for _ in range(STEPS_TO_ZERO):
        now_ns += by_ns
        safe = driver.supervisor.step(now_ns, FORWARD, now_ns)
        assert (safe.state, safe.reason) == (SafetyState.STALE, Reason.CLOCK_NOT_ADVANCING)
        assert safe.twist.vx < speed
    assert safe.twist == ZERO_TWIST


def require_braking_and_latched(driver, speed, safe, reason):
    assert (safe.state, safe.reason) == (SafetyState.LATCHED, reason)
    assert safe.twist.vx == pytest.approx(speed - 0.3)  # 3 m/s^2 for 0.1 s
    after = driver.steps(30)
    assert all((s.state, s.reason, s.sentence) == (safe.state, reason, safe.sentence) for s in after)
    assert [s.twist for s in after[1:]] == [ZERO_TWIST] * 29


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"command": NOT_A_NUMBER}, Reason.NON_FINITE_COMMAND),
        ({"command": Twist(0, -math.inf, 0)}, Reason.NON_FINITE_COMMAND),
        ({"command": Twist(0, 0, math.nan), "age_ns": None}, Reason.NON_FINITE_COMMAND),
        ({"age_ns": -NS_PER_S}, Reason.FRAME_IN_THE_FUTURE),
        ({"age_ns": -NS_PER_S // 100 - 1, "command": None}, Reason.FRAME_IN_THE_FUTURE),
        ({"emergency_stop": True}, Reason.EMERGENCY_STOP),
        ({"emergency_stop": True, "command": NOT_A_NUMBER}, Reason.EMERGENCY_STOP),
    ],
)
def test_what_brakes_and_latches(how, reason):
    driver = Driver()
    speed = driver.run().twist.vx
    require_braking_and_latched(driver, speed, driver.step(**how), reason)


def test_a_frame_from_within_the_tolerance_of_now_is_fresh():
    driver = Driver()
    driver.run()
    assert driver.step(age_ns=-NS_PER_S // 100).state is SafetyState.RUNNING


@pytest.mark.parametrize("reason", sorted(LATCHING))
def test_a_stop_asked_for_from_outside_latches(reason):
    driver = Driver()
    speed = driver.run().twist.vx
    driver.supervisor.stop(reason, "because")
    driver.supervisor.emergency_stop()  # a later reason does not replace the first
    assert driver.supervisor.state is SafetyState.LATCHED
    safe = driver.step()
    assert safe.sentence == "because"
    require_braking_and_latched(driver, speed, safe, reason)


def test_the_emergency_stop_has_its_reason():
    driver = Driver()
    driver.supervisor.emergency_stop()
    assert driver.step().reason is Reason.EMERGENCY_STOP


@pytest.mark.parametrize("reason", sorted(set(Reason) - LATCHING))
def test_a_stop_needs_a_reason_that_latches(reason):
    with pytest.raises(ValueError, match="does not latch"):
        Supervisor().stop(reason, "because")


def test_rearming_needs_rest_and_a_released_button_and_waits_for_fresh_data():
    driver = Driver(recover_steps=2)
    driver.run()
    driver.step(emergency_stop=True)
    with pytest.raises(SafetyLatchedError, match="release"):
        driver.supervisor.rearm(ZERO_TWIST)
    driver.step()
    driver.supervisor.stop(Reason.POLICY_FAILED, "later")
    with pytest.raises(SafetyLatchedError, match=r"the emergency stop is pressed.*still moves"):
        driver.supervisor.rearm(Twist(0.02, 0, 0))
    with pytest.raises(SafetyLatchedError, match="still moves"):
        driver.supervisor.rearm(Twist(0, 0, math.nan))
    with pytest.raises(SafetyLatchedError, match="still moves"):
        driver.supervisor.rearm(Twist(0, 0, -0.03))
    assert driver.step().state is SafetyState.LATCHED
    driver.supervisor.rearm(Twist(0.006, -0.008, 0.02))
    assert driver.supervisor.state is SafetyState.STARVED
    waiting, moving = driver.steps(2)
    assert (waiting.reason, waiting.twist) == (Reason.RECOVERING, ZERO_TWIST)
    assert moving.twist.vx > 0


def test_rearming_is_refused_while_braking():
    driver = Driver()
    driver.run()
    driver.step(NOT_A_NUMBER)
    with pytest.raises(SafetyLatchedError, match=r"not finite.*still braking"):
        driver.supervisor.rearm(ZERO_TWIST)


def test_rearming_what_is_not_latched_changes_nothing():
    driver = Driver()
    driver.run()
    driver.supervisor.rearm(FORWARD)
    assert driver.step().state is SafetyState.RUNNING


ages = st.sampled_from([0, 0, 0, NS_PER_S // 5, NS_PER_S // 2, NS_PER_S // 2 + 1, 2 * NS_PER_S, -NS_PER_S, None])
wanted = st.sampled_from([FORWARD, FORWARD, FORWARD, Twist(-0.3, 0.6, 9.0), ZERO_TWIST, None, NOT_A_NUMBER])
ticks = st.sampled_from([PERIOD_NS] * 4 + [PERIOD_NS // 10, 5 * PERIOD_NS, 0, -PERIOD_NS])
events = st.sampled_from(["", "", "", "", "button", "stop", "rearm"])


@given(st.lists(st.tuples(ages, wanted, ticks, events), max_size=60), st.integers(1, 4))
def test_whatever_happens_it_moves_only_on_fresh_data_and_never_again_from_a_latch(story, recover_steps):
    supervisor = Supervisor(config=SafetyConfig(recover_steps=recover_steps))
    now_ns, fresh_in_a_row, latched, since_running = 0, 0, False, 0
    began = True
    for age_ns, command, tick_ns, event in story:
        now_ns += tick_ns
        if event == "stop":
            supervisor.emergency_stop()
            latched = True
        if event == "rearm":
            try:
                supervisor.rearm(ZERO_TWIST)
                fresh_in_a_row, latched = (0, False) if latched else (fresh_in_a_row, False)
            except SafetyLatchedError:
                assert latched
        capture_ns = None if age_ns is None else now_ns - age_ns
        safe = supervisor.step(now_ns, command, capture_ns, emergency_stop=event == "button")
        clock_fault = tick_ns <= 0 and not began
        began = False
        from_future = age_ns is not None and age_ns < 0 and not clock_fault
        latched = latched or event == "button" or command is NOT_A_NUMBER or from_future
        fresh = not clock_fault and command is not None and age_ns is not None and age_ns <= NS_PER_S // 2
        fresh_in_a_row = fresh_in_a_row + 1 if fresh and not latched else 0

        assert (safe.state is SafetyState.LATCHED) == latched == (safe.reason in LATCHING)
        assert (safe.state is SafetyState.RUNNING) == (fresh_in_a_row >= recover_steps)
        assert (safe.reason is Reason.DRIVING) == (safe.state is SafetyState.RUNNING)
        assert safe.sentence
        assert all(map(math.isfinite, (safe.twist.vx, safe.twist.vy, safe.twist.wz)))
        assert math.hypot(safe.twist.vx, safe.twist.vy) <= 0.6 + 1e-9
        since_running = 0 if safe.state is SafetyState.RUNNING else since_running + (tick_ns >= PERIOD_NS)
        assert since_running <= STEPS_TO_ZERO or safe.twist == ZERO_TWIST


@pytest.mark.parametrize(
    "wrong",
    [
        {"stale_after_s": 0.0},
        {"stale_after_s": math.inf},
        {"future_tolerance_s": -0.1},
        {"recover_steps": 0},
        {"period_s": math.nan},
        {"period_s": 0.0},
    ],
)
def test_a_config_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        SafetyConfig(**wrong)


def test_standstill_holds_up_to_its_thresholds():
    assert Standstill().holds(Twist(0.006, 0.008, -0.02))
    assert not Standstill().holds(Twist(0.009, 0.009, 0.0))
    assert not Standstill().holds(Twist(math.nan, 0.0, 0.0))
