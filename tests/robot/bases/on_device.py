"""What every driver is tested for beyond the conformance of its base: what its device really does.

A machine that is busy with other tests makes both the driver and the device slow. So these wait for what has to come,
for a generous time, instead of expecting it at a moment.
"""

import time

import pytest

from mobile_vla.core import BaseError, Twist
from mobile_vla.robot.protocols import HasOdometry

from ..conformance import BaseConformance

LIMIT_S = 20.0


def near(one, other, tolerance=0.02):
    return all(abs(getattr(one, axis) - getattr(other, axis)) < tolerance for axis in ("vx", "vy", "wz"))


class OnDevice(BaseConformance):
    """Needs the fixtures ``base`` and ``device``; the device has a ``body`` that moves."""

    def drive(self, base, twist, seconds, follows=None):
        """At least so long, and until what is measured, or ``follows()``, is what was sent."""
        follows = follows or base.velocity
        began = time.monotonic()
        while True:
            sent = base.send(twist)
            time.sleep(0.03)
            passed = time.monotonic() - began
            if passed > LIMIT_S or (passed >= seconds and near(follows(), sent)):
                return sent

    def require_rest(self, base):
        end_s = time.monotonic() + LIMIT_S
        while not self.standstill.holds(base.velocity()) and time.monotonic() < end_s:
            time.sleep(0.01)
        super().require_rest(base)

    @pytest.mark.parametrize(
        ("twist", "axis", "sign"),
        [
            (Twist(0.12, 0, 0), "vx", 1),
            (Twist(-0.12, 0, 0), "vx", -1),
            (Twist(0, 0.12, 0), "vy", 1),
            (Twist(0, -0.12, 0), "vy", -1),
            (Twist(0, 0, 0.6), "wz", 1),
            (Twist(0, 0, -0.6), "wz", -1),
        ],
    )
    def test_the_body_itself_moves_as_rep_103_says(self, base, device, twist, axis, sign):
        base.open()
        bodies = []
        sent = self.drive(base, twist, 0.2, lambda: bodies.append(device.body.twist) or bodies[-1])
        assert sign * getattr(sent, axis) > 0
        assert near(bodies[-1], sent)

    def test_a_mixed_motion_moves_the_body_as_was_said_to_be_sent(self, base, device):
        base.open()
        bodies = []
        sent = self.drive(base, Twist(0.1, -0.12, 0.5), 0.2, lambda: bodies.append(device.body.twist) or bodies[-1])
        assert near(bodies[-1], sent)
        assert near(sent, Twist(0.1, -0.12, 0.5), 0.05)

    def test_its_odometry_begins_where_it_was_opened_and_goes_where_it_drove(self, base, device):
        if not isinstance(base, HasOdometry):
            return  # no encoders
        base.open()
        assert (base.odometry.x, base.odometry.y, base.odometry.yaw) == pytest.approx((0, 0, 0), abs=0.01)
        self.drive(base, Twist(0.12, 0.06, 0), 1.5)
        base.stop()
        self.require_rest(base)
        time.sleep(0.2)
        device.body.play()
        assert device.body.x > 0.1
        assert base.odometry.x == pytest.approx(device.body.x, rel=0.25)
        assert base.odometry.y == pytest.approx(device.body.y, rel=0.25)

    def test_a_stop_is_what_stops_it_and_not_its_timeout(self, base, device, caplog, until):
        base.open()
        self.drive(base, self.command, 0.2)
        base.stop()
        assert until(lambda: not device.body.goals.any())
        assert "no command for" not in caplog.text
        assert not getattr(device, "timed_out", False)

    def test_closed_it_does_not_move_nor_pretend_to(self, base, device):
        with pytest.raises(BaseError, match="closed"):
            base.send(Twist(0.1, 0, 0))
        base.open()
        base.close()
        with pytest.raises(BaseError, match="closed"):
            base.send(Twist(0.1, 0, 0))
        assert base.velocity() == Twist(0, 0, 0)
        assert not device.body.goals.any()

    def test_closing_under_way_stops_the_body(self, base, device, until):
        base.open()
        self.drive(base, self.command, 0.2)
        base.close()
        assert until(lambda: self.standstill.holds(device.body.twist))
