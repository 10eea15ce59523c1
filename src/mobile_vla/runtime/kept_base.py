"""A base that may go away and come back, for a program that must outlive it."""

import logging
import threading
from collections.abc import Callable

from mobile_vla.core import NS_PER_S, ZERO_TWIST, Clock, Twist
from mobile_vla.robot import Base
from mobile_vla.robot.odometry import Pose
from mobile_vla.robot.protocols import Feedback, HasOdometry

CLOSE_LIMIT_S = 2.0

_log = logging.getLogger(__name__)


class KeptBase:
    """Passes everything to ``base``. What it raises is told to ``failed`` once, as a sentence, instead of passed on.

    While it is away nothing is sent, ``velocity`` is not finite (so that nobody takes it for standing), and it is
    opened again every ``retry_s``, at rest, in a thread of its own: opening may take seconds, and the control step goes
    on. That it is back starts nothing: whoever was told of the failure has stopped the robot.
    """

    def __init__(self, base: Base, clock: Clock, failed: Callable[[str], None], retry_s: float = 1.0) -> None:
        self._base, self._clock, self._failed = base, clock, failed
        # asked once: to ask takes 10 us
        self._feedback = base if isinstance(base, Feedback) else None
        self._has_odometry = base if isinstance(base, HasOdometry) else None
        self._retry_ns = round(retry_s * NS_PER_S)
        self._away_since_ns: int | None = None
        self._retry_due_ns = 0
        self._opening: threading.Thread | None = None
        self._opened = False

    @property
    def is_away(self) -> bool:
        """It failed and has not been opened again since."""
        return self._away_since_ns is not None

    @property
    def command_timeout_s(self) -> float:
        """Of the base."""
        return self._base.command_timeout_s

    @property
    def feedback_ns(self) -> int | None:
        """When it last measured its velocity; None where it cannot tell."""
        return self._feedback.feedback_ns if self._feedback is not None else None

    @property
    def odometry(self) -> Pose | None:
        """Where it is by its encoders; None where it has none."""
        return self._has_odometry.odometry if self._has_odometry is not None else None

    def open(self) -> None:
        """Of the base; here errors pass through, because a base that never was there is a mistake of the set-up."""
        self._base.open()

    def close(self) -> None:
        """Of the base. One that hangs while it is being opened again is left to the end of the process."""
        if self._opening is not None:
            self._opening.join(CLOSE_LIMIT_S)
            if self._opening.is_alive():
                _log.warning("the base is not closed: it is being opened again, and hangs")
                return
        self._base.close()

    def send(self, twist: Twist) -> Twist:
        """What was really sent: zero while the base is away."""
        if self.is_away:
            self._try_again()
            return ZERO_TWIST
        try:
            return self._base.send(twist)
        except Exception as error:
            self._lose(error)
            return ZERO_TWIST

    def velocity(self) -> Twist:
        """As measured; NaN while the base is away."""
        if not self.is_away:
            try:
                return self._base.velocity()
            except Exception as error:
                self._lose(error)
        return Twist(float("nan"), float("nan"), float("nan"))

    def stop(self) -> None:
        """Of the base. One that is away stands, or stops by itself."""
        if not self.is_away:
            self._base.stop()

    def _lose(self, error: Exception) -> None:
        self._away_since_ns = self._clock.now_ns()
        self._retry_due_ns = self._away_since_ns + self._retry_ns
        sentence = f"the base failed: {type(error).__name__}: {error}"
        _log.error(sentence)
        self._base.stop()
        self._failed(sentence)

    def _try_again(self) -> None:
        """Look whether it is back; else, when it is time, begin to open it."""
        if self._opening is not None and not self._opening.is_alive():
            self._opening = None
            self._retry_due_ns = self._clock.now_ns() + self._retry_ns
            if self._opened:
                _log.warning("the base is back; it waits for somebody to resume")
                self._away_since_ns = None
        elif self._opening is None and self._clock.now_ns() >= self._retry_due_ns:
            self._opened = False
            self._opening = threading.Thread(target=self._reopen, name="base-again", daemon=True)
            self._opening.start()

    def _reopen(self) -> None:
        try:
            self._base.close()
            self._base.open()
            self._opened = True
        except Exception as error:
            _log.warning("the base is still away: %s", error)
