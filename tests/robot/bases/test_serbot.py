import contextlib
import math
import os
import socket
import time
import uuid
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.core import ZERO_TWIST, BaseError, ConfigError, MonotonicClock, Twist
from mobile_vla.robot.bases import can_bus
from mobile_vla.robot.bases.calibration import Driven
from mobile_vla.robot.bases.serbot import Serbot
from mobile_vla.robot.protocols import Feedback, HasOdometry
from mobile_vla.safety import Standstill

from .devices import Body, SerbotDevice
from .on_device import OnDevice

SETTINGS = Serbot(
    wheel_radius_m=0.05,
    base_radius_m=0.12,
    units_per_radps=6.0,
    interface="virtual",
    lag_s=0.05,
    command_timeout_s=0.8,
)
AHEAD = Twist(0.2, 0, 0)
rests = Standstill().holds


@pytest.fixture
def channel():
    return uuid.uuid4().hex


@pytest.fixture
def device(channel):
    device = SerbotDevice(channel)
    yield device
    device.close()


@pytest.fixture
def base(device, channel):
    base = made(channel)
    yield base
    base.close()


def made(channel, **more):
    return replace(SETTINGS, channel=channel, **more).build(MonotonicClock())


class TestSerbot(OnDevice):
    resolution = Twist(0.006, 0.006, 0.05)


def test_the_frame_is_the_one_that_is_known():
    """Forward at 60 units: left 40, right 160, rear at rest, as 100 -+ sqrt(3)/2 w with w chosen so."""
    speed = 40 / 6 * 0.05 / math.cos(math.radians(30))
    message = SETTINGS.message(SETTINGS.wheel_bytes(Twist(speed, 0, 0)))
    assert message.arbitration_id == 0x010
    assert not message.is_extended_id
    assert list(message.data) == [7, 40, 160, 100]


@pytest.mark.parametrize("degrees", range(0, 360, 15))
def test_the_wheels_turn_as_in_the_makers_formulas(degrees):
    """Direction a and speed w, clockwise from forward: Vx = sin(a) w, Vy = cos(a) w; compared without the dead band."""
    settings = Serbot(0.05, 0.12, 6.0, dead_band=0.0)
    a, w = math.radians(degrees), 40.0
    vx_maker, vy_maker = math.sin(a) * w, math.cos(a) * w
    left = 100 - (vx_maker / 2 + math.sqrt(3) / 2 * vy_maker)
    right = 100 - (vx_maker / 2 - math.sqrt(3) / 2 * vy_maker)
    rear = 100 + vx_maker
    metres = 0.05 / 6.0
    found = settings.wheel_bytes(Twist(vy_maker * metres, -vx_maker * metres, 0.0))
    assert found == pytest.approx((left, right, rear), abs=0.51)


def test_all_bytes_above_rest_turn_it_left():
    assert all(byte > 100 for byte in SETTINGS.wheel_bytes(Twist(0, 0, 0.5)))


@given(st.builds(Twist, *[st.floats(-3, 3)] * 3), st.floats(0, 40))
def test_bytes_stay_within_what_the_motors_take_and_say_what_was_sent(twist, dead_band):
    settings = Serbot(0.05, 0.12, 6.0, dead_band=dead_band)
    wheel_bytes = settings.wheel_bytes(twist)
    assert all(20 <= byte <= 180 for byte in wheel_bytes)
    sent = settings.twist(wheel_bytes)
    assert settings.really(twist) == sent
    wanted = settings.kinematics.wheel_speeds(twist)
    fastest = max(abs(wanted)) or 1.0
    scale = settings.max_wheel_radps / fastest if fastest > settings.max_wheel_radps else 1.0
    assert settings.kinematics.wheel_speeds(sent) == pytest.approx(wanted * scale, abs=0.52 / 6.0)


@given(st.floats(-0.49, 0.49))
def test_less_than_half_a_unit_is_rest_and_not_the_dead_band(units):
    speed = units / 6.0 * 0.05
    assert SETTINGS.wheel_bytes(Twist(0, speed, 0)) == (100, 100, 100)


def test_it_measures_nothing_and_says_so(base):
    assert isinstance(base, Feedback)
    assert not isinstance(base, HasOdometry)
    base.open()
    base.send(AHEAD)
    assert not base.has_feedback
    assert base.feedback_ns is None


def test_its_estimate_takes_time_to_come_to_rest(channel, device, until):
    base = made(channel, lag_s=0.5)
    base.open()
    assert until(lambda: base.send(AHEAD) and (time.sleep(0.02) or base.velocity().vx > 0.15))
    base.stop()
    assert base.velocity().vx > 0.0
    assert until(lambda: rests(base.velocity()))
    base.close()


def test_lost_frames_leave_the_next_ones_to_say_it(base, device, until):
    base.open()
    device.lose = 0.3
    assert until(lambda: base.send(AHEAD) and (time.sleep(0.01) or device.body.twist.vx > 0.15))
    assert until(lambda: base.stop() or rests(device.body.twist))


def test_a_program_that_forgets_the_base_is_stopped_by_its_thread(base, device, until):
    base.open()
    base.send(AHEAD)
    assert until(lambda: device.body.twist.vx > 0.15)
    assert until(lambda: rests(device.body.twist))


def test_a_bus_that_fails_is_said_and_works_again_when_opened_again(base, device, until):
    base.open()
    base.send(AHEAD)
    base._link._bus._bus.shutdown()
    with pytest.raises(BaseError, match="takes no frame"):
        base.send(AHEAD)
    base.stop()
    base.velocity()
    with pytest.raises(BaseError, match="takes no frame"):
        base.send(AHEAD)
    base.open()
    base.send(AHEAD)
    assert until(lambda: device.body.twist.vx > 0.15)


def test_can_fd_is_sent_where_it_is_wanted(channel, device, until):
    base = made(channel, fd=True)
    base.open()
    base.close()
    assert until(lambda: device.frames)
    assert all(frame.is_fd for frame in device.frames)


def test_zero_is_rest(base):
    base.open()
    assert base.send(ZERO_TWIST) == ZERO_TWIST


@pytest.mark.parametrize("interface", ["no_such", "serial"])
def test_an_interface_that_cannot_be_opened_is_named(interface):
    with pytest.raises(BaseError, match=f"of {interface} cannot be opened"):
        made("/dev/none", interface=interface).open()


@pytest.mark.parametrize(
    "wrong",
    [
        {"units_per_radps": 0.0},
        {"dead_band": 80.0},
        {"dead_band": math.nan},
        {"can_id": 0x800},
        {"wheel_radius_m": -1.0},
        {"lag_s": 0.0},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(ConfigError):
        replace(SETTINGS, **wrong)


@given(st.floats(3, 15), st.floats(5, 30), st.floats(0.08, 0.2))
def test_calibration_finds_the_robot_that_was_driven(gain, dead_band, base_radius_m):
    """The bytes of each run, played on a body that the settings do not know."""
    settings = Serbot(0.05, 0.12, **Serbot.UNCALIBRATED)
    body = Body.omni((60, -60, 180), base_radius_m, 0.05)
    measured = {}
    for run in settings.runs():
        units = [byte - 100 for byte in settings.wheel_bytes(run.twist)]
        vx, _, wz = body.at([math.copysign(max(0, abs(u) - dead_band) / gain, u) for u in units])
        way = math.degrees(wz) * run.duration_s if run.name == "yaw" else vx * run.duration_s
        measured[run.name] = Driven(settings.really(run.twist), run.duration_s, float(way))
    if measured["x"].measured <= 0:
        with pytest.raises(ConfigError):
            settings.calibrated(measured)
        return
    found = settings.calibrated(measured)
    assert found["units_per_radps"] == pytest.approx(gain, rel=0.01)
    assert found["dead_band"] == pytest.approx(dead_band, abs=0.1)
    assert found["base_radius_m"] == pytest.approx(base_radius_m, rel=0.01)


class SocketOfTheKernel:
    """In place of a CAN socket: takes frames as the kernel does, from us and from whoever inherits its file."""

    def __init__(self, interface, channel, fd):
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.theirs.settimeout(10)
        SocketOfTheKernel.last = self

    def send(self, message):
        self.ours.send(can_bus.kernel_frame(message))

    def fileno(self):
        return self.ours.fileno()

    def close(self):
        self.ours.close()

    def next(self):
        frame = self.theirs.recv(100)
        assert (len(frame), frame[:5]) == (16, b"\x10\0\0\0\x04")
        return list(frame[8:12])


@pytest.fixture
def guarded(monkeypatch):
    monkeypatch.setattr(can_bus, "CanBus", SocketOfTheKernel)
    base = replace(SETTINGS, interface="socketcan", command_timeout_s=0.3).build(MonotonicClock())
    base.open()
    yield base
    base.close()
    SocketOfTheKernel.last.theirs.close()


REST = [7, 100, 100, 100]


def test_with_socketcan_a_guard_stops_the_wheels_when_this_program_hangs(guarded):
    bus = SocketOfTheKernel.last
    assert bus.next() == REST
    guarded._link._watch.close()  # as if all of this program hung
    guarded.send(AHEAD)
    assert bus.next() != REST
    assert [bus.next() for _ in range(3)] == [REST] * 3


def test_with_socketcan_nothing_is_driven_without_the_guard(guarded, until):
    os.kill(guarded._link._guard.pid, 9)
    with pytest.raises(BaseError, match="guard process"):
        until(lambda: guarded.send(AHEAD) is None)
    bus = SocketOfTheKernel.last
    guarded.close()
    bus.theirs.settimeout(0)
    frames = []
    with contextlib.suppress(BlockingIOError):
        while True:
            frames.append(bus.next())
    assert frames[-1] == REST
