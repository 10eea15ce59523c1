import errno
import math
import os
import subprocess
import sys
import time

import pytest

from mobile_vla.core import ZERO_TWIST, BaseError, ConfigError, MonotonicClock, Twist
from mobile_vla.robot.bases.lekiwi import Lekiwi
from mobile_vla.robot.protocols import Feedback, HasOdometry
from mobile_vla.safety import Standstill

from .devices import LekiwiDevice
from .on_device import OnDevice

AHEAD = Twist(0.2, 0, 0)
rests = Standstill().holds


@pytest.fixture
def device(tmp_path):
    device = LekiwiDevice(tmp_path / "ttyLekiwi")
    yield device
    device.close()


def made(device, **more):
    """Patient, so that a machine that is busy with other tests does not look like a device that is gone."""
    settings = {"answer_limit_s": 0.1, "silence_limit_s": 4.0, "command_timeout_s": 0.8, **more}
    return Lekiwi(port=device.path, **settings).build(MonotonicClock())


@pytest.fixture
def base(device):
    base = made(device)
    yield base
    base.close()


class TestLekiwi(OnDevice):
    resolution = Twist(1e-4, 1e-4, 1e-3)


def test_it_measures_and_tells_when(base, until):
    assert isinstance(base, Feedback)
    assert isinstance(base, HasOdometry)
    assert base.feedback_ns is None
    base.open()
    first = base.feedback_ns
    assert until(lambda: base.feedback_ns > first)
    assert base.feedback_ns <= time.monotonic_ns()


def test_odometry_says_where_the_body_is(base, device, until):
    base.open()
    assert until(lambda: base.send(Twist(0.15, 0.1, 0.8)) and (time.sleep(0.02) or device.body.yaw > 0.8))
    base.stop()
    assert until(lambda: rests(device.body.twist) and rests(base.velocity()))
    time.sleep(0.3)
    body, odometry = device.body, base.odometry
    assert (odometry.x, odometry.y, odometry.yaw) == pytest.approx((body.x, body.y, body.yaw), abs=0.08)


def test_wheel_mode_is_written_once_and_never_again(base, device):
    base.open()
    assert device.eeprom_writes == 3
    base.close()
    base.open()
    assert device.eeprom_writes == 3
    assert all(memory[55] == 1 for memory in device.memory.values())


def test_closed_the_wheels_have_no_torque(base, device, until):
    base.open()
    assert all(memory[40] == 1 for memory in device.memory.values())
    base.close()
    assert until(lambda: all(memory[40] == 0 for memory in device.memory.values()))


def test_a_velocity_that_a_dead_program_left_is_ended_by_opening(base, device):
    for memory in device.memory.values():
        memory[33], memory[40], memory[46:48] = 1, 1, (500).to_bytes(2, "little")
    base.open()
    assert base.velocity().wz < 5
    assert all(memory[46:48] == bytes(2) for memory in device.memory.values())


def test_too_fast_a_twist_is_slowed_on_all_axes_alike(base):
    base.open()
    sent = base.send(Twist(2.0, 1.0, 3.0))
    assert sent.vx / 2.0 == pytest.approx(sent.vy / 1.0, rel=1e-3)
    assert sent.vx / 2.0 == pytest.approx(sent.wz / 3.0, rel=1e-3)
    assert 0.05 < sent.vx < 0.3


@pytest.mark.parametrize("lose", [0.01, 0.03])
def test_lost_bytes_are_asked_for_again(device, until, lose):
    device.lose = lose
    base = made(device, answer_limit_s=0.02)
    _open_patiently(base)
    for _ in range(10):
        base.send(AHEAD)
        time.sleep(0.05)
    assert until(lambda: base.send(AHEAD) and device.body.twist.vx > 0.15)
    assert until(lambda: base.send(AHEAD) and base.velocity().vx > 0.15)
    base.stop()
    assert until(lambda: rests(device.body.twist))
    base.close()


def _open_patiently(base):
    for _ in range(20):
        try:
            return base.open()
        except BaseError:
            pass
    raise AssertionError("it never opened")


def test_answers_that_come_late_are_not_taken_for_others(base, device, until):
    base.open()
    device.late_s = 0.015
    for _ in range(10):
        base.send(AHEAD)
        time.sleep(0.05)
    assert until(lambda: base.send(AHEAD) and base.velocity().vx == pytest.approx(0.2, abs=0.02))
    device.late_s = 0.0
    base.stop()
    assert until(lambda: rests(base.velocity()))


def test_silence_is_a_fault_that_stays_until_it_is_opened_again(device, until):
    base = made(device, silence_limit_s=0.5)
    base.open()
    base.send(AHEAD)
    device.mute = True
    with pytest.raises(BaseError, match="does not answer"):
        until(lambda: base.send(AHEAD) is None)
    assert until(lambda: rests(device.body.twist))  # the stop gets through though no answer does
    last = base.feedback_ns
    device.mute = False
    with pytest.raises(BaseError, match="does not answer"):
        base.send(AHEAD)
    assert base.feedback_ns == last
    base.open()
    base.close()


def test_gone_it_says_so_and_comes_back_when_opened_again(base, device, until):
    base.open()
    base.send(AHEAD)
    device.unplug()
    began = time.monotonic()
    with pytest.raises(BaseError):
        until(lambda: base.send(AHEAD) is None)
    assert time.monotonic() - began < 5
    base.stop()
    base.velocity()
    base.close()
    with pytest.raises(BaseError, match="there is no port"):
        base.open()
    device.plug()
    base.open()
    assert until(lambda: base.send(AHEAD) and device.body.twist.vx > 0.1)


def test_a_servo_that_is_absent_is_named(base, device):
    device.absent = {8}
    with pytest.raises(BaseError, match=r"servo 8 on .* does not answer"):
        base.open()
    device.absent = set()
    base.open()


def test_complaints_of_the_servos_are_logged_once(base, device, until, caplog):
    base.open()
    device.error = 1 << 5 | 1
    assert until(lambda: "reports voltage and overload" in caplog.text)
    before = caplog.text.count("servo 7")
    time.sleep(0.2)
    assert caplog.text.count("servo 7") == before == 1


def test_two_drivers_do_not_share_a_port(base, device):
    base.open()
    with pytest.raises(BaseError, match="in use by another program"):
        made(device).open()


def test_no_port_no_rights_and_no_terminal_are_told_apart(tmp_path):
    with pytest.raises(BaseError, match="there is no port"):
        Lekiwi(port=str(tmp_path / "none")).build(MonotonicClock()).open()
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(BaseError, match="cannot be opened as a serial port"):
        Lekiwi(port=str(file)).build(MonotonicClock()).open()


DRIVER = """
import sys, time
from mobile_vla.core import MonotonicClock, Twist
from mobile_vla.robot.bases.lekiwi import Lekiwi
base = Lekiwi(port=sys.argv[1], silence_limit_s=4.0).build(MonotonicClock())
base.open()
while True:
    base.send(Twist(0.2, 0.0, 0.0))
    print("sent", flush=True)
    time.sleep(0.02)
"""


@pytest.mark.parametrize("signal", ["KILL", "STOP"])
def test_the_guard_stops_the_wheels_of_a_program_that_was_killed_or_stopped(device, until, signal):
    import signal as signals

    with subprocess.Popen([sys.executable, "-c", DRIVER, device.path], stdout=subprocess.PIPE) as driver:
        try:
            for _ in range(10):
                assert driver.stdout.readline()
            assert until(lambda: device.body.twist.vx > 0.15)
            driver.send_signal(getattr(signals, f"SIG{signal}"))
            assert until(lambda: rests(device.body.twist))
        finally:
            driver.kill()
    base = made(device)
    base.open()  # the lock of the dead program is gone with its guard
    base.close()


def test_without_its_guard_nothing_is_driven(base, device, until):
    base.open()
    base.send(AHEAD)
    os.kill(base._link._guard.pid, 9)
    with pytest.raises(BaseError, match="guard process"):
        until(lambda: base.send(AHEAD) is None)
    assert until(lambda: rests(device.body.twist))


def test_no_thread_and_no_file_is_left_behind(base):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        base.open()
        base.send(AHEAD)
        base.close()
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize(
    "wrong",
    [
        {"servos": (7, 7, 8)},
        {"servos": (7, 8)},
        {"servos": (7, 8, 254)},
        {"wheel_radius_m": 0.0},
        {"max_steps_per_s": 40000},
        {"poll_hz": float("nan")},
        {"command_timeout_s": -1.0},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(ConfigError):
        Lekiwi(**wrong)


def test_a_port_without_rights_names_the_group():
    from mobile_vla.robot.bases.serial_port import _why

    assert "dialout" in _why("/dev/ttyACM0", 9600, errno.EACCES, OSError())


def test_zero_is_sent_as_zero(base):
    base.open()
    assert base.send(ZERO_TWIST) == ZERO_TWIST


def test_a_speed_that_cannot_be_is_not_believed(base, device, until):
    base.open()
    last = base.feedback_ns
    assert until(lambda: base.feedback_ns > last)
    device.body.drive([40.0, 0.0, 0.0])  # 26 000 steps/s
    time.sleep(0.3)
    assert base.velocity().wz < 8.0  # half of it is believed, and may be met on the way
    assert abs(base.odometry.yaw) < math.pi


def test_when_not_even_the_thread_notices_send_does(device, until):
    base = made(device, silence_limit_s=0.5)
    base.open()
    base.send(AHEAD)
    base._link._poll.close()
    with pytest.raises(BaseError, match="hangs"):
        until(lambda: base.send(AHEAD) is None)
    base.close()
