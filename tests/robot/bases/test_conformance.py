"""The suite of bases finds out those that claim what they do not do."""

import pytest

from mobile_vla.core import NS_PER_S, ManualClock, Twist
from mobile_vla.robot.bases.ideal import Ideal, IdealBase
from mobile_vla.robot.odometry import Pose

from ..conformance import BaseConformance


class OldFeedback(IdealBase):
    feedback_ns = 7


class FeedbackThatIsNone(IdealBase):
    has_feedback = False


class OdometryBackwards(IdealBase):
    @property
    def odometry(self):
        pose = super().odometry
        return None if pose is None else Pose(-pose.x, pose.y, pose.yaw)


class OdometryFromElsewhere(IdealBase):
    @property
    def odometry(self):
        return Pose(1.0).at(super().odometry or Pose())


class SendsMore(IdealBase):
    def send(self, twist):
        return super().send(Twist(1.01 * twist.vx, twist.vy, twist.wz))


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (OldFeedback, "test_what_it_measures_is_new_while_it_is_open_or_it_says_that_it_measures_nothing"),
        (FeedbackThatIsNone, "test_what_it_measures_is_new_while_it_is_open_or_it_says_that_it_measures_nothing"),
        (OdometryBackwards, "test_its_odometry_begins_where_it_was_opened_and_goes_where_it_drove"),
        (OdometryFromElsewhere, "test_its_odometry_begins_where_it_was_opened_and_goes_where_it_drove"),
        (SendsMore, "test_what_was_sent_is_no_more_than_what_was_asked"),
    ],
)
def test_a_base_that_breaks_its_promise_fails_the_suite(broken, test):
    clock = ManualClock()
    suite = BaseConformance()
    suite.pass_time = lambda seconds: clock.advance(round(seconds * NS_PER_S))
    getattr(suite, test)(Ideal().build(clock))
    with pytest.raises(AssertionError):
        getattr(suite, test)(broken(Ideal(), clock))
