"""A base of numbers, for dry runs: it follows every command with a first-order lag, and touches nothing."""

from dataclasses import dataclass

from mobile_vla.core import NS_PER_S, ZERO_TWIST, BaseError, Clock, Twist
from mobile_vla.robot.bases.checks import require_finite, require_positive
from mobile_vla.robot.bases.lag import Lag
from mobile_vla.robot.odometry import Pose


@dataclass(frozen=True)
class Ideal:
    """Settings. ``lag_s``: time constant of its velocity. ConfigError for values that are not above zero."""

    lag_s: float = 0.1
    command_timeout_s: float = 0.5

    def __post_init__(self) -> None:
        require_positive("ideal", self, "lag_s", "command_timeout_s")

    def build(self, clock: Clock) -> "IdealBase":
        """A closed base that lives in the time of ``clock``."""
        return IdealBase(self, clock)


class IdealBase:
    """Measures itself without error, at any moment. It stops by itself, in the time of its clock."""

    has_feedback = True

    def __init__(self, settings: Ideal, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        self._lag: Lag | None = None

    @property
    def command_timeout_s(self) -> float:
        """See ``Base``."""
        return self._settings.command_timeout_s

    @property
    def feedback_ns(self) -> int | None:
        """Now, while it is open."""
        return None if self._lag is None else self._clock.now_ns()

    @property
    def odometry(self) -> Pose | None:
        """Where the numbers have gone since it was opened."""
        return None if self._lag is None else self._played(self._lag).pose

    def open(self) -> None:
        """At rest, at the origin of ``odom``."""
        self._lag = self._lag or Lag(self._settings.lag_s, self._clock.now_ns())

    def close(self) -> None:
        """It stands at once."""
        self._lag = None

    def send(self, twist: Twist) -> Twist:
        """All of it is sent. BaseError when closed."""
        require_finite(self, twist)
        if self._lag is None:
            raise BaseError("the ideal base is closed: open it first")
        now_ns = self._clock.now_ns()
        self._lag.want(twist, now_ns, now_ns + round(self.command_timeout_s * NS_PER_S))
        return twist

    def velocity(self) -> Twist:
        """See ``Base``."""
        return ZERO_TWIST if self._lag is None else self._played(self._lag).velocity

    def stop(self) -> None:
        """Zero is wanted from now on."""
        if self._lag is not None:
            now_ns = self._clock.now_ns()
            self._lag.want(ZERO_TWIST, now_ns, now_ns)

    def _played(self, lag: Lag) -> Lag:
        lag.play(self._clock.now_ns())
        return lag
