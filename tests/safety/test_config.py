import math

import pytest

from mobile_vla.core import ConfigError, Twist
from mobile_vla.safety import SHORTEST_STEP_S, ClearanceConfig, SafetyConfig, Standstill

POSITIVE = ("stale_after_s", "command_after_s", "feedback_after_s", "heartbeat_after_s", "max_commands_per_s")


@pytest.mark.parametrize("name", [*POSITIVE, "hold_limit_s"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_a_time_or_a_rate_is_positive_and_finite(name, value):
    with pytest.raises(ConfigError, match=rf"^{name} is {value}; it needs to be positive and finite$"):
        SafetyConfig(**{name: value})
    assert getattr(SafetyConfig(**{name: 1e-9}), name) == 1e-9


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"future_tolerance_s": -0.1}, "future_tolerance_s is -0.1; it needs to be at least 0 and finite"),
        ({"future_tolerance_s": math.inf}, "future_tolerance_s is inf; it needs to be at least 0 and finite"),
        ({"recover_steps": 0}, "recover_steps is 0; it needs to be at least 1"),
        ({"period_s": math.nan}, "period_s is nan; it needs to be finite and at least 0.0001"),
        ({"period_s": math.inf}, "period_s is inf; it needs to be finite and at least 0.0001"),
        ({"period_s": 0.0}, "period_s is 0.0; it needs to be finite and at least 0.0001"),
        (
            {"late_step_s": 0.1},
            "late_step_s is 0.1; it needs to be finite and more than period_s, 0.1, else every step is late",
        ),
        (
            {"late_step_s": math.inf},
            "late_step_s is inf; it needs to be finite and more than period_s, 0.1, else every step is late",
        ),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(wrong, says):
    with pytest.raises(ConfigError) as error:
        SafetyConfig(**wrong)
    assert str(error.value) == says


def test_the_edges_of_what_makes_sense():
    config = SafetyConfig(future_tolerance_s=0.0, recover_steps=1, period_s=SHORTEST_STEP_S, late_step_s=0.0002)
    assert (config.future_tolerance_s, config.recover_steps, config.period_s) == (0.0, 1, SHORTEST_STEP_S)


def test_the_defaults_are_those_of_the_docs():
    config = SafetyConfig()
    assert (config.stale_after_s, config.command_after_s, config.feedback_after_s) == (0.5, 0.5, 0.5)
    assert (config.heartbeat_after_s, config.clearance) == (None, None)
    assert (config.late_step_s, config.max_commands_per_s, config.hold_limit_s) == (0.2, 100.0, 2.0)
    assert (config.future_tolerance_s, config.recover_steps, config.period_s) == (0.01, 3, 0.1)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"robot_radius_m": 0.0}, "robot_radius_m is 0.0; it needs to be positive and finite"),
        ({"robot_radius_m": math.inf}, "robot_radius_m is inf; it needs to be positive and finite"),
        ({"stale_after_s": math.nan}, "stale_after_s is nan; it needs to be positive and finite"),
        ({"stop_distance_m": -0.1}, "stop_distance_m is -0.1; it needs to be at least 0 and finite"),
        ({"stop_distance_m": math.inf}, "stop_distance_m is inf; it needs to be at least 0 and finite"),
        ({"reaction_s": -0.1}, "reaction_s is -0.1; it needs to be at least 0 and finite"),
    ],
)
def test_a_stop_distance_that_makes_no_sense_is_refused(wrong, says):
    with pytest.raises(ConfigError) as error:
        ClearanceConfig(**{"robot_radius_m": 0.2, "stop_distance_m": 0.1, **wrong})
    assert str(error.value) == says


def test_a_stop_distance_and_a_reaction_of_nothing_are_allowed():
    config = ClearanceConfig(0.2, 0.0, reaction_s=0.0)
    assert (config.stale_after_s, config.reaction_s) == (0.5, 0.0)


@pytest.mark.parametrize(
    ("measured", "stands"),
    [
        (Twist(0.006, 0.008, -0.02), True),
        (Twist(0.0, -0.01, 0.02), True),
        (Twist(0.009, 0.009, 0.0), False),
        (Twist(0.0, 0.011, 0.0), False),
        (Twist(0.0, 0.0, -0.021), False),
        (Twist(math.nan, 0.0, 0.0), False),
        (Twist(0.0, 0.0, math.nan), False),
    ],
)
def test_standstill_holds_up_to_its_thresholds(measured, stands):
    assert Standstill().holds(measured) is stands
