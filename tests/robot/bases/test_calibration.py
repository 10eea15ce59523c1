import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.core import ConfigError, Twist
from mobile_vla.robot.bases.calibration import Calibratable, Driven, Run
from mobile_vla.robot.bases.lekiwi import Lekiwi
from mobile_vla.robot.bases.serbot import Serbot
from mobile_vla.robot.bases.serial_line import SerialLine
from mobile_vla.robot.kinematics import omni3, omni4

SERIAL = SerialLine(wheels="omni4", wheel_radius_m=0.04, base_radius_m=0.15)


def test_bases_with_wheels_of_their_own_can_be_calibrated():
    assert isinstance(Lekiwi(), Calibratable)
    assert isinstance(SERIAL, Calibratable)
    assert isinstance(Serbot(0.05, 0.1, 5.0), Calibratable)


@pytest.mark.parametrize(("settings", "made"), [(Lekiwi(), omni3), (SERIAL, omni4)])
@given(ratio=st.floats(0.7, 1.4), other=st.floats(0.8, 1.3))
def test_the_radii_of_the_robot_that_was_driven_are_found(settings, made, ratio, other):
    true = made(settings.wheel_radius_m * ratio, settings.base_radius_m * other)
    measured = {}
    for run in settings.runs():
        sent = settings.really(run.twist)
        moved = true.twist(settings.kinematics.wheel_speeds(sent))
        way = math.degrees(moved.wz) if run.name == "yaw" else moved.vx
        measured[run.name] = Driven(sent, run.duration_s, way * run.duration_s)
    found = settings.calibrated(measured)
    assert found["wheel_radius_m"] == pytest.approx(true.wheel_radius_m, abs=2e-6)
    assert found["base_radius_m"] == pytest.approx(true.base_radius_m, abs=2e-6)


@pytest.mark.parametrize("measured", [0.1, 5.0, -0.9, 0.0])
def test_a_way_that_cannot_be_is_not_hidden_in_a_radius(measured):
    turn = Driven(Twist(0, 0, 0.5), 4.0, math.degrees(2.0))
    with pytest.raises(ConfigError, match="order of the wheels"):
        Lekiwi().calibrated({"x": Driven(Twist(0.2, 0, 0), 4.0, measured), "yaw": turn})


@pytest.mark.parametrize("wheels", ["twist", "mecanum"])
def test_what_cannot_be_calibrated_here_says_where(wheels):
    settings = SerialLine(wheels=wheels, wheel_radius_m=0.04, half_length_m=0.1, half_width_m=0.1)
    with pytest.raises(ConfigError, match=r"firmware|half lengths"):
        settings.runs()


def test_runs_say_what_they_do():
    assert "forward for 6 s, about 0.90 m" in Run("x", Twist(0.15, 0, 0), 6.0).what
    assert "left on the spot for 2 s, about 115 degrees" in Run("yaw", Twist(0, 0, 1.0), 2.0).what
    assert "right" in Run("yaw", Twist(0, 0, -1.0), 2.0).what
    assert Run("x_fast", Twist(1, 0, 0), 1.0).unit == "m"
