from dataclasses import replace

import pytest
from hypothesis import given, settings

from mobile_vla.core import NS_PER_S, ZERO_TWIST, Twist
from mobile_vla.safety import Envelope, SafetyState, Supervisor
from mobile_vla.safety.judge import Judge
from safety_steps import ALL_LIMITS, CONFIGS, SEQUENCES, Step, Tally, drive

GO = Step(NS_PER_S // 10, Twist(0.5, 0.0, 0.1))


@settings(max_examples=60)
@given(*SEQUENCES)
def test_random_steps_keep_every_limit_and_every_state_is_what_a_second_account_says(limits, config, run):
    drive(limits, config, run, Tally())


def test_the_tally_counts_what_it_sees():
    tally = Tally()
    drive(ALL_LIMITS[0], CONFIGS[0], [(GO, 20)], tally)
    assert (tally.steps, tally.sequences, tally.moving) == (20, 1, 18)
    assert tally.states == {SafetyState.HOLDING: 2, SafetyState.RUNNING: 18}
    assert tally.worst["acceleration x"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("part", "name", "wrong", "says"),
    [
        (Envelope, "step", lambda self, command, dt_s: Twist(0.7, 0.0, 0.0), "^speed x: 0.7 is more than 0.6"),
        (Envelope, "step", lambda self, command, dt_s: command or ZERO_TWIST, "^acceleration x: 5.0 is more than 1.5"),
        (Judge, "worst", lambda self, moment, inputs: None, r"^running \(driving\), not holding"),
        (Supervisor, "resume", lambda self, measured: None, "^protective_stop after 'resume', not holding$"),
    ],
)
def test_the_second_account_notices_what_is_wrong(monkeypatch, part, name, wrong, says):
    monkeypatch.setattr(part, name, wrong)
    blind, stop = replace(GO, age_ns=None), replace(GO, call="stop")
    with pytest.raises(AssertionError, match=says):
        drive(ALL_LIMITS[0], CONFIGS[0], [(GO, 5), (blind, 5), (GO, 5), (stop, 20)], Tally())
