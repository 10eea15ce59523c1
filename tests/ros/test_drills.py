"""Three of the fault drills of ``benchmarks/drills.py``, once each, on the whole robot of processes.

Times are those of the drills themselves, measured on a quiet machine; here a stop may take as long as a busy one needs.
"""

import random

import pytest

import drills
from drill_systems import Simulated

pytestmark = [pytest.mark.realtime, pytest.mark.needs("torch")]  # torch: in the inference process

AT_LAST_S = 10.0
FAULTS = ("inference stopped", "NaN commands", "control killed")


@pytest.fixture(scope="module")
def robot(domain):
    with Simulated(domain) as robot:
        yield robot


@pytest.mark.realtime
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", FAULTS)
def test_the_robot_stops_and_stays_so(robot, name, monkeypatch):
    monkeypatch.setattr(drills, "WATCH_S", 1.5)
    drill = next(drill for drill in drills.DRILLS if drill.name == name)
    run = drills.run_once(drill, robot, random.Random(name))
    assert run.problem == ""
    assert run.stop_s is not None
    assert run.stop_s < AT_LAST_S
    assert not run.resumed
    assert run.state == drill.ends
