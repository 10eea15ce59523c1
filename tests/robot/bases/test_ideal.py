import pytest

from mobile_vla.core import NS_PER_S, BaseError, ConfigError, ManualClock, Twist
from mobile_vla.robot.bases.ideal import Ideal
from mobile_vla.robot.protocols import Feedback, HasOdometry

from ..conformance import BaseConformance


class TestIdeal(BaseConformance):
    @pytest.fixture
    def base(self):
        self.clock = ManualClock()
        base = Ideal().build(self.clock)
        yield base
        base.close()

    def pass_time(self, seconds):
        self.clock.advance(round(seconds * NS_PER_S))

    def test_it_measures_at_any_moment(self, base):
        assert isinstance(base, Feedback)
        assert isinstance(base, HasOdometry)
        assert base.feedback_ns is base.odometry is None
        base.open()
        self.pass_time(1.5)
        assert base.feedback_ns == self.clock.now_ns()

    def test_closed_it_refuses_to_move(self, base):
        with pytest.raises(BaseError, match="closed"):
            base.send(Twist(0.1, 0, 0))

    def test_after_one_lag_it_is_at_63_percent(self, base):
        base.open()
        base.send(Twist(1.0, 0, 0))
        self.pass_time(0.1)
        assert base.velocity().vx == pytest.approx(0.632, abs=1e-3)


@pytest.mark.parametrize("wrong", [{"lag_s": 0.0}, {"command_timeout_s": float("inf")}])
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(ConfigError):
        Ideal(**wrong)
