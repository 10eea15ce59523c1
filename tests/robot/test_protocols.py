"""The conformance suites hold for the simplest devices, and find out devices that break the protocol."""

import math

import numpy as np
import pytest

from mobile_vla.core import NS_PER_S, CameraError, Frame, ManualClock, Twist
from mobile_vla.robot import Base, Camera

from .conformance import BaseConformance, CameraConformance
from .simple import CountingCamera, FollowingBase


class _OnManualClock:
    @pytest.fixture
    def clock(self):
        self._clock = ManualClock()
        return self._clock

    def pass_time(self, seconds):
        self._clock.advance(round(seconds * NS_PER_S))


class TestCountingCamera(_OnManualClock, CameraConformance):
    @pytest.fixture
    def camera(self, clock):
        camera: Camera = CountingCamera(clock)
        yield camera
        camera.close()


class TestFollowingBase(_OnManualClock, BaseConformance):
    @pytest.fixture
    def base(self, clock):
        base: Base = FollowingBase(clock)
        yield base
        base.close()


class FrozenCamera(CountingCamera):
    def read(self, timeout_s):
        frame = super().read(timeout_s)
        return frame and Frame(frame.pixels, 7, frame.clock, frame.camera, frame.sequence)


class ReusingCamera(CountingCamera):
    buffer = np.zeros((2, 2, 3), dtype=np.uint8)

    def read(self, timeout_s):
        frame = super().read(timeout_s)
        if frame is None:
            return None
        self.buffer[:] = frame.pixels
        return Frame(self.buffer, frame.capture_ns, frame.clock, frame.camera, frame.sequence)


class ReadsWhenClosed(CountingCamera):
    def read(self, timeout_s):
        try:
            return super().read(timeout_s)
        except CameraError:
            return None


class GivesTwice(CountingCamera):
    kept = None

    def read(self, timeout_s):
        self.kept = super().read(timeout_s) or self.kept
        return self.kept


class NeverTimesOut(FollowingBase):
    def velocity(self):
        return self._velocity


class InvertedYaw(FollowingBase):
    def velocity(self):
        moving = super().velocity()
        return Twist(moving.vx, moving.vy, -moving.wz)


class KeepsItsVelocityOnNan(FollowingBase):
    def send(self, twist):
        return super().send(twist) if math.isfinite(twist.vy) else twist


class DoesNotStop(FollowingBase):
    def stop(self):
        pass


@pytest.mark.parametrize("broken", [FrozenCamera, ReusingCamera, ReadsWhenClosed, GivesTwice])
def test_a_camera_that_breaks_the_protocol_fails_the_suite(broken):
    assert failures(TestCountingCamera, broken)


@pytest.mark.parametrize("broken", [NeverTimesOut, InvertedYaw, KeepsItsVelocityOnNan, DoesNotStop])
def test_a_base_that_breaks_the_protocol_fails_the_suite(broken):
    assert failures(TestFollowingBase, broken)


def failures(suite_class, device_class):
    """Names of the tests of a suite that a fresh device fails, run without pytest."""
    arguments = {
        "test_each_axis_moves_as_rep_103_says": [("wz", 1)],
        "test_a_twist_that_is_not_finite_is_refused_and_stops": [(math.nan,)],
    }
    failed = []
    for name in (name for name in dir(suite_class) if name.startswith("test_")):
        for rest in arguments.get(name, [()]):
            suite = suite_class()
            suite._clock = ManualClock()
            try:
                getattr(suite, name)(device_class(suite._clock), *rest)
            except (AssertionError, pytest.fail.Exception):
                failed.append(name)
    return failed
