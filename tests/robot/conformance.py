"""What every camera and base is tested for. Inherit, give the fixture, and override ``pass_time`` for another clock.

class TestMyCamera(CameraConformance):
    @pytest.fixture
    def camera(self): ...
"""

import math
import os
import threading
import time
from itertools import pairwise

import numpy as np
import pytest

from mobile_vla.core import ZERO_TWIST, CameraError, Twist
from mobile_vla.robot.protocols import Feedback, HasOdometry
from mobile_vla.safety import Standstill


class _Conformance:
    def pass_time(self, seconds):
        """Let the device live for ``seconds``; a simulated one overrides this to step its world."""
        time.sleep(seconds)


class CameraConformance(_Conformance):
    """Needs a fixture ``camera``: a closed camera, closed again afterwards."""

    read_limit_s = 1.0

    def frames(self, camera, count):
        frames = []
        for _ in range(20 * count):
            frame = camera.read(self.read_limit_s)
            if frame is not None:
                frames.append(frame)
            if len(frames) == count:
                return frames
            self.pass_time(1 / camera.rate_hz)
        raise AssertionError(f"{camera.name} gave {len(frames)} frames, not {count}")

    def test_it_has_a_name_and_a_rate(self, camera):
        assert camera.name
        assert 0 < camera.rate_hz < math.inf

    def test_its_frames_bear_its_name_one_clock_and_one_shape(self, camera):
        camera.open()
        frames = self.frames(camera, 3)
        assert {frame.camera for frame in frames} == {camera.name}
        assert len({frame.clock for frame in frames}) == len({frame.pixels.shape for frame in frames}) == 1

    def test_sequence_and_capture_time_rise(self, camera):
        camera.open()
        for before, after in pairwise(self.frames(camera, 4)):
            assert after.sequence > before.sequence
            assert after.capture_ns > before.capture_ns

    def test_pixels_of_a_frame_do_not_change_at_the_next_read(self, camera):
        camera.open()
        (first,) = self.frames(camera, 1)
        kept = first.pixels.copy()
        (second,) = self.frames(camera, 1)
        assert not np.shares_memory(first.pixels, second.pixels)
        assert np.array_equal(first.pixels, kept)

    def test_no_frame_is_given_twice(self, camera):
        camera.open()
        (frame,) = self.frames(camera, 1)
        again = camera.read(0.0)
        assert again is None or again.sequence > frame.sequence

    def test_opened_twice_it_is_open_and_closed_twice_closed(self, camera):
        camera.open()
        camera.open()
        assert self.frames(camera, 1)
        camera.close()
        camera.close()

    def test_closed_it_gives_no_frame_and_opened_again_it_does(self, camera):
        with pytest.raises(CameraError):
            camera.read(0.0)
        camera.open()
        camera.close()
        with pytest.raises(CameraError):
            camera.read(0.0)
        camera.open()
        assert self.frames(camera, 1)

    def test_closed_it_leaves_no_thread_and_no_descriptor(self, camera):
        def held():
            return threading.active_count() + len(os.listdir("/proc/self/fd"))

        def open_and_close():
            camera.open()
            self.frames(camera, 1)
            camera.close()

        open_and_close()  # what is made once for all stays
        before = held()
        for _ in range(3):
            open_and_close()
        for _ in range(200):
            if held() <= before:
                return
            time.sleep(0.05)
        assert held() <= before


class BaseConformance(_Conformance):
    """Needs a fixture ``base``: a closed base with room to move half a metre, closed again afterwards.

    ``resolution``: how much more than asked may be sent on each axis, because the motors take whole numbers.
    """

    standstill = Standstill()
    resolution = ZERO_TWIST
    command = Twist(0.1, 0.05, 0.2)
    period_s = 0.1

    def drive(self, base, twist, seconds):
        for _ in range(round(seconds / self.period_s)):
            sent = base.send(twist)
            self.pass_time(self.period_s)
        return sent

    def require_rest(self, base):
        assert self.standstill.holds(base.velocity())

    def test_it_opens_at_rest(self, base):
        base.open()
        self.require_rest(base)

    @pytest.mark.parametrize("axis", ["vx", "vy", "wz"])
    @pytest.mark.parametrize("sign", [1, -1])
    def test_each_axis_moves_as_rep_103_says(self, base, axis, sign):
        wanted = sign * getattr(self.command, axis)
        base.open()
        sent = self.drive(base, Twist(**{"vx": 0.0, "vy": 0.0, "wz": 0.0, axis: wanted}), 0.8)
        assert getattr(sent, axis) * sign > 0
        measured = base.velocity()
        assert getattr(measured, axis) == pytest.approx(getattr(sent, axis), rel=0.3)
        for other in {"vx", "vy", "wz"} - {axis}:
            assert abs(getattr(measured, other)) < 0.3 * abs(getattr(self.command, other))

    def test_what_was_sent_is_no_more_than_what_was_asked(self, base):
        base.open()
        sent = base.send(self.command)
        for axis in ("vx", "vy", "wz"):
            most = getattr(self.command, axis) * (1 + 1e-6) + getattr(self.resolution, axis)
            assert 0 <= getattr(sent, axis) <= most

    @pytest.mark.parametrize("wrong", [math.nan, math.inf])
    def test_a_twist_that_is_not_finite_is_refused_and_stops(self, base, wrong):
        base.open()
        self.drive(base, self.command, 0.5)
        with pytest.raises(ValueError, match="finite"):
            base.send(Twist(0.0, wrong, 0.0))
        self.pass_time(self.settle_s(base))
        self.require_rest(base)

    def test_stop_brings_it_to_rest_and_it_moves_again_when_asked(self, base):
        base.open()
        self.drive(base, self.command, 0.5)
        base.stop()
        self.pass_time(self.settle_s(base))
        self.require_rest(base)
        self.drive(base, self.command, 0.8)
        assert not self.standstill.holds(base.velocity())

    def test_what_it_measures_is_new_while_it_is_open_or_it_says_that_it_measures_nothing(self, base):
        if not isinstance(base, Feedback):
            return  # it says nothing about feedback, and no watchdog can judge it
        base.open()
        stamps = []
        for _ in range(6):
            self.drive(base, self.command, self.period_s)
            stamps.append(base.feedback_ns)
        if not base.has_feedback:
            assert stamps == [None] * len(stamps)
        else:
            assert stamps == sorted(stamps)
            assert stamps[-1] > stamps[0]

    def test_its_odometry_begins_where_it_was_opened_and_goes_where_it_drove(self, base):
        if not isinstance(base, HasOdometry):
            return  # no encoders
        base.open()
        began = base.odometry
        assert (began.x, began.y, began.yaw) == pytest.approx((0, 0, 0), abs=0.01)
        self.drive(base, Twist(self.command.vx, 0.0, 0.0), 1.0)
        base.stop()
        self.pass_time(self.settle_s(base))
        assert base.odometry.x == pytest.approx(self.command.vx, rel=0.3)
        assert abs(base.odometry.y) < 0.3 * self.command.vx

    def test_it_stops_by_itself_when_nothing_is_sent(self, base):
        assert 0 < base.command_timeout_s <= 1.0
        base.open()
        self.drive(base, self.command, 0.5)
        self.pass_time(base.command_timeout_s + self.settle_s(base))
        self.require_rest(base)

    def test_stop_never_raises_and_closing_twice_is_closed(self, base):
        base.stop()
        base.open()
        base.open()
        base.stop()
        base.stop()
        assert base.send(ZERO_TWIST) == ZERO_TWIST
        base.close()
        base.close()
        base.stop()

    def test_opened_again_it_stands(self, base):
        base.open()
        self.drive(base, self.command, 0.5)
        base.close()
        self.pass_time(self.settle_s(base))
        base.open()
        self.require_rest(base)

    def settle_s(self, base):
        """How long the base may take to stand; less than its timeout, else a stop that does nothing goes unnoticed."""
        return base.command_timeout_s / 2
