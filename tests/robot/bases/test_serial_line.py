import math
import time

import pytest

from mobile_vla.core import BaseError, ConfigError, MonotonicClock, Twist
from mobile_vla.robot.bases.serial_line import SerialLine
from mobile_vla.safety import Standstill

from .devices import Body, SerialDevice
from .on_device import OnDevice, near

AHEAD = Twist(0.2, 0, 0)
rests = Standstill().holds

OMNI3 = {"wheels": "omni3", "wheel_radius_m": 0.05, "base_radius_m": 0.125}
OMNI4 = {"wheels": "omni4", "wheel_radius_m": 0.04, "base_radius_m": 0.15}
MECANUM = {"wheels": "mecanum", "wheel_radius_m": 0.04, "half_length_m": 0.1, "half_width_m": 0.12}


def body_of(wheels):
    if wheels == "omni4":
        return Body.omni((45, -45, 135, -135), 0.15, 0.04)
    return Body.mecanum(0.1, 0.12, 0.04) if wheels == "mecanum" else Body.omni((60, 180, -60), 0.125, 0.05)


def made(device, **more):
    """Patient, so that a machine that is busy with other tests does not look like a device that is gone."""
    return SerialLine(port=device.path, **{"silence_limit_s": 4.0, "command_timeout_s": 0.8, **more}).build(
        MonotonicClock()
    )


def fixtures(settings):
    mode = "wheels" if settings else "twist"

    class Fixtures:
        @pytest.fixture
        def device(self, tmp_path):
            device = SerialDevice(tmp_path / "ttyBase", body_of(settings.get("wheels")), mode)
            yield device
            device.close()

        @pytest.fixture
        def base(self, device):
            base = made(device, **settings)
            yield base
            base.close()

    return Fixtures


class TestTwist(fixtures({}), OnDevice):
    resolution = Twist(5e-4, 5e-4, 5e-4)


class TestMecanum(fixtures(MECANUM), OnDevice):
    resolution = Twist(1e-4, 1e-4, 1e-3)


@pytest.mark.parametrize("settings", [OMNI3, OMNI4, MECANUM], ids=lambda each: each["wheels"])
def test_kinematics_on_the_computer_moves_the_body_as_was_said_and_odometry_follows(tmp_path, settings, until):
    device = SerialDevice(tmp_path / "tty", body_of(settings["wheels"]), "wheels")
    base = made(device, **settings)
    base.open()
    wanted = Twist(0.1, -0.15, 0.7)
    assert until(
        lambda: near(base.send(wanted), wanted, 1e-3) and (time.sleep(0.02) or near(device.body.twist, wanted))
    )
    base.stop()
    assert until(lambda: rests(device.body.twist) and rests(base.velocity()))
    time.sleep(0.3)
    device.body.play()
    found = base.odometry
    assert (found.x, found.y, found.yaw) == pytest.approx((device.body.x, device.body.y, device.body.yaw), abs=0.02)
    base.close()
    device.close()


@pytest.fixture
def device(tmp_path):
    device = SerialDevice(tmp_path / "ttyBase", body_of("twist"))
    yield device
    device.close()


@pytest.fixture
def base(device):
    base = made(device)
    yield base
    base.close()


def test_odometry_begins_where_it_was_opened_whatever_the_firmware_counted_before(base, device, until):
    device.body.x, device.body.y, device.body.yaw = 3.0, -2.0, 2.5
    base.open()
    assert until(lambda: base.send(Twist(0.2, 0, 0)) and (time.sleep(0.02) or base.odometry.x > 0.08))
    base.stop()
    assert until(lambda: rests(device.body.twist) and rests(base.velocity()))
    time.sleep(0.3)
    device.body.play()
    way = math.hypot(device.body.x - 3.0, device.body.y + 2.0)
    assert way > 0.07
    assert (base.odometry.x, base.odometry.y, base.odometry.yaw) == pytest.approx((way, 0, 0), abs=0.02)


def test_the_firmwares_own_timeout_is_known_once_it_was_opened(base):
    assert base.command_timeout_s == 0.8
    base.open()
    assert base.command_timeout_s == pytest.approx(0.7)


def test_a_board_that_starts_slowly_is_waited_for(base, device):
    device.starts_after_s = 1.0
    base.open()
    assert base.send(AHEAD) == AHEAD


@pytest.mark.parametrize("lose", [0.002, 0.02])
def test_lost_bytes_cost_lines_and_no_more(base, device, until, lose):
    device.lose = lose
    base.open()
    assert until(lambda: base.send(AHEAD) and (time.sleep(0.02) or base.velocity().vx > 0.15))
    base.stop()
    assert until(lambda: rests(device.body.twist))


def test_late_reports_are_old_ones(base, device, until):
    base.open()
    device.late_s = 0.1
    assert until(lambda: base.send(AHEAD) and (time.sleep(0.02) or base.velocity().vx > 0.15))
    assert until(lambda: base.stop() or rests(base.velocity()))


def test_silence_is_a_fault_that_stays_until_it_is_opened_again(device, until):
    base = made(device, silence_limit_s=0.5)
    base.open()
    base.send(AHEAD)
    device.mute = True
    with pytest.raises(BaseError, match="reported nothing"):
        until(lambda: base.send(AHEAD) and time.sleep(0.02))
    device.mute = False
    with pytest.raises(BaseError, match="reported nothing"):
        base.send(AHEAD)
    base.open()
    base.close()


def test_a_base_that_reports_but_takes_no_command_is_found_out(device, until):
    base = made(device, silence_limit_s=0.5)
    base.open()
    device.obeys = False
    with pytest.raises(BaseError, match="taken no command"):
        until(lambda: base.send(AHEAD) and time.sleep(0.02))
    base.close()


def test_a_slow_loop_is_not_taken_for_a_deaf_base(device):
    base = made(device, silence_limit_s=1.0)
    base.open()
    for _ in range(3):
        base.send(AHEAD)
        time.sleep(1.2)
    base.close()


@pytest.mark.parametrize("trouble", ["estop pressed", "fault motor 2"])
def test_its_own_emergency_stop_and_faults_end_the_drive(base, device, until, trouble):
    base.open()
    base.send(AHEAD)
    device.trouble = trouble
    with pytest.raises(BaseError, match=trouble.replace(" ", ": ", 1)):
        until(lambda: base.send(AHEAD) and time.sleep(0.02))


def test_a_base_that_was_switched_on_again_waits_to_be_opened(base, device, until):
    base.open()
    base.send(AHEAD)
    time.sleep(0.2)
    device.reset()
    with pytest.raises(BaseError, match="switched on again"):
        until(lambda: base.send(AHEAD) and time.sleep(0.02))
    base.open()
    assert base.send(AHEAD) == AHEAD


def test_gone_it_says_so_and_comes_back_when_opened_again(base, device, until):
    base.open()
    base.send(AHEAD)
    device.unplug()
    with pytest.raises(BaseError):
        until(lambda: base.send(AHEAD) and time.sleep(0.02))
    base.stop()
    base.close()
    with pytest.raises(BaseError, match="there is no port"):
        base.open()
    device.plug()
    base.open()
    assert until(lambda: base.send(AHEAD) and device.body.twist.vx > 0.1)


@pytest.mark.parametrize(
    ("change", "settings", "match"),
    [
        ({"version": 2}, {}, "version 2"),
        ({"timeout_ms": 900}, {}, "within 800 ms"),
        ({"timeout_ms": 0}, {}, "stops 0 ms"),
        ({"mode": "wheels"}, {}, "takes wheels commands"),
        ({}, OMNI3, "takes twist commands"),
        ({"mode": "wheels"}, OMNI4, "has 3 wheels"),
        ({"mute": True}, {"open_limit_s": 0.6}, "nothing on"),
    ],
)
def test_a_firmware_that_does_not_fit_is_refused(device, change, settings, match):
    for name, value in change.items():
        setattr(device, name, value)
    base = made(device, **settings)
    with pytest.raises(BaseError, match=match):
        base.open()
    base.close()


def test_too_fast_a_twist_is_slowed_on_all_wheels_alike():
    settings = SerialLine(**MECANUM, max_wheel_radps=5.0)
    sent = settings.really(Twist(1.0, 0.5, 1.0))
    assert sent.vx / 1.0 == pytest.approx(sent.vy / 0.5, rel=1e-2) == pytest.approx(sent.wz, rel=1e-2)
    assert sent.vx < 0.2


@pytest.mark.parametrize(
    "wrong",
    [
        {"wheels": "five"},
        {"wheels": "omni3", "wheel_radius_m": 0.05},
        {"wheels": "omni3", "wheel_radius_m": -0.05, "base_radius_m": 0.1},
        {"command_timeout_s": 0.0},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(ConfigError):
        SerialLine(**wrong)
