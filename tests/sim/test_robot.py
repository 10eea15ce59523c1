import time
from itertools import pairwise

import pytest

from mobile_vla.core import NS_PER_S, Colour, Kind, Twist
from mobile_vla.sim.robot import COMMAND_TIMEOUT_S, SimBase, SimCamera, SimClock
from mobile_vla.sim.world import World
from robot.conformance import BaseConformance, CameraConformance
from sim.conftest import plain_scene, thing


class _InSimulation:
    @pytest.fixture(autouse=True)
    def clock(self, played):
        self._clock = SimClock(played)
        return self._clock

    def pass_time(self, seconds):
        self._clock.sleep_until(self._clock.now_ns() + round(seconds * NS_PER_S))


@pytest.fixture(scope="module", params=["planar", "rollers"])
def built(request):
    return World(base=request.param)


@pytest.fixture
def played(built):
    built.load(plain_scene())
    return built


class TestSimCamera(_InSimulation, CameraConformance):
    @pytest.fixture
    def played(self, world):
        return world

    @pytest.fixture
    def camera(self, played):
        camera = SimCamera(played, 5.0, 48, 96)
        yield camera
        camera.close()

    def test_it_never_waits_and_keeps_its_rate(self, camera):
        camera.open()
        stamps = []
        for _ in range(30):
            frame = camera.read(1.0)
            if frame is not None:
                stamps.append(frame.capture_ns)
            self.pass_time(0.05)
        assert {later - earlier for earlier, later in pairwise(stamps)} == {NS_PER_S // 5}


class TestSimBase(_InSimulation, BaseConformance):
    @pytest.fixture
    def base(self, clock, played):
        base = SimBase(clock, played)
        yield base
        base.close()


def test_the_clock_is_the_worlds_and_sleeping_plays_it(world):
    clock = SimClock(world)
    SimBase(clock, world).send(Twist(0.3, 0.0, 0.0))
    clock.sleep_until(NS_PER_S // 2)
    assert clock.now_ns() == world.time_ns == NS_PER_S // 2
    assert world.pose.x == pytest.approx(0.13, abs=0.03)
    clock.sleep_until(0)
    assert clock.now_ns() == NS_PER_S // 2


def test_the_clock_remembers_what_was_touched(world):
    world.load(plain_scene((thing(Kind.BOX, Colour.RED, 0.6, 0.0),)))
    clock = SimClock(world)
    base = SimBase(clock, world)
    for step in range(1, 31):
        base.send(Twist(0.4 if step < 20 else -0.4, 0.0, 0.0))
        clock.sleep_until(step * NS_PER_S // 10)
    assert world.touching() is None
    assert clock.touched == "red box"


def test_at_pace_one_it_plays_no_faster_than_life(world):
    clock = SimClock(world, pace=10.0)
    began_s = time.monotonic()
    clock.sleep_until(NS_PER_S)
    assert time.monotonic() - began_s >= 0.1


def test_the_timeout_is_that_of_the_clock(world):
    clock = SimClock(world)
    assert SimBase(clock, world).command_timeout_s == COMMAND_TIMEOUT_S
