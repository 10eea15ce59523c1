import pytest

from mobile_vla.doctor.base import judge_base, try_base
from mobile_vla.doctor.check import State
from mobile_vla.doctor.process import Answer

from .lines import sound
from .purposes import with_robot


def test_a_base_is_opened_and_answers():
    check = judge_base(try_base(with_robot()), "ideal")
    assert check.state is State.OK
    assert "ideal answers" in check.found


def test_a_base_that_is_not_there_fails_in_its_own_words():
    check = judge_base(try_base(with_robot(base="lekiwi", base_port="/dev/ttyNOWHERE")), "lekiwi")
    assert check.state is State.FAIL
    assert "/dev/ttyNOWHERE" in check.found
    assert "Traceback" not in check.found


@pytest.mark.parametrize(("velocity", "state"), [([0.0, 0.001, 0.0], State.OK), ([0.0, 0.0, -0.4], State.WARN)])
def test_a_base_that_moves_unasked_is_told(velocity, state):
    check = judge_base(Answer({"velocity": velocity, "command_timeout_s": 0.5}), "serial")
    assert check.state is state
    sound(check)


def test_the_line_of_the_drivers_own_error_is_kept():
    said = "can0 is down: bring it up with `sudo ip link set can0 up type can bitrate 500000` (its own bit rate)"
    assert judge_base(Answer(None, said), "serbot").repairs == ("sudo ip link set can0 up type can bitrate 500000",)
