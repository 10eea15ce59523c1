"""Nothing that a control step judges may lie ahead of it, however long the machine takes between two lines."""

from mobile_vla.core import Instruction, ManualClock
from mobile_vla.runtime import DriveConfig, DriveLoop, Ending
from mobile_vla.safety import Supervisor
from robot.simple import CountingCamera, FollowingBase

from .scripted import ScriptedPolicy


class Measuring(FollowingBase):
    """Measures at every look; a look takes 20 ms, as on a machine that has other things to do."""

    has_feedback = True

    @property
    def feedback_ns(self):
        self.clock.advance(20_000_000)
        return self.clock.now_ns()


def test_a_measurement_that_comes_while_the_step_reads_is_not_from_the_future():
    clock = ManualClock()
    camera = CountingCamera(clock)
    camera.open()
    loop = DriveLoop(camera, Measuring(clock), ScriptedPolicy(), Supervisor(), clock, DriveConfig(time_limit_s=2.0))
    outcome = loop.run_blocking(Instruction("go to the red cup"))
    assert outcome.ending is Ending.TIME_LIMIT, outcome.sentence
