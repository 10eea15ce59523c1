"""The envelope: how fast, how suddenly and how jerkily the base may be asked to move, whatever is commanded.

A driving step has two parts. First a *ramp* walks straight towards the command, all axes by one factor, no faster than
the acceleration limits of every axis and wheel. Then the output is the mean of the ramp over a sliding window of
``2 * acceleration / jerk`` seconds. A mean of allowed velocities is allowed, a mean of allowed accelerations is allowed
(every limit here is a convex set that holds zero), and the window bounds the jerk: the acceleration of the output
changes at most by ``(a(t) - a(t - window)) / window``. So no sequence of commands can lead into a corner from which a
limit must be broken.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mobile_vla.core import AXES, ZERO_TWIST, ConfigError, Twist

SHORTEST_STEP_S = 1e-4
"""A shorter step is refused: it is a fault of the clock, and would make the window arbitrarily long in steps."""

_Vector = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one base. Triples are (x, y, yaw) in ``base_link``; all values finite and positive.

    ``speed`` in m/s, m/s, rad/s; ``planar_speed`` bounds hypot(vx, vy) in m/s. ``acceleration`` (per s) holds while
    driving and while ramping to zero; ``braking`` (per s), at least as strong, holds for a stop. ``jerk`` (per s^2)
    holds while driving and ramping; a stop is not jerk-limited, because it must not wait.

    ``wheel_matrix`` (n_wheels x 3) gives wheel speeds as matrix @ (vx, vy, wz), in the units of the ``wheel_*`` limits,
    which have one value a wheel. All four are empty for a base whose wheels need no watching; ``wheel_braking`` may be
    left out and is then ``wheel_acceleration``.

    A step longer than ``longest_step_s`` counts as that long, so a loop that slept does not jump when it wakes.
    """

    speed: _Vector = (0.6, 0.6, 1.5)
    planar_speed: float = 0.6
    acceleration: _Vector = (1.5, 1.5, 4.0)
    jerk: _Vector = (30.0, 30.0, 80.0)
    braking: _Vector = (3.0, 3.0, 8.0)
    wheel_matrix: tuple[_Vector, ...] = ()
    wheel_speed: tuple[float, ...] = ()
    wheel_acceleration: tuple[float, ...] = ()
    wheel_braking: tuple[float, ...] = ()
    longest_step_s: float = 0.2

    def __post_init__(self) -> None:
        if not self.wheel_braking:
            object.__setattr__(self, "wheel_braking", self.wheel_acceleration)
        for name in ("speed", "acceleration", "jerk", "braking"):
            _require_positive(name, getattr(self, name), len(AXES))
        for name in ("wheel_speed", "wheel_acceleration", "wheel_braking"):
            _require_positive(name, getattr(self, name), len(self.wheel_matrix))
        _require_positive("planar_speed", (self.planar_speed,), 1)
        _require_positive("longest_step_s", (self.longest_step_s,), 1)
        if self.longest_step_s < SHORTEST_STEP_S:
            raise ConfigError(f"longest_step_s is {self.longest_step_s}, shorter than the shortest, {SHORTEST_STEP_S}")
        if not all(len(row) == len(AXES) and all(map(math.isfinite, row)) for row in self.wheel_matrix):
            raise ConfigError(f"every row of wheel_matrix needs three finite numbers, got {self.wheel_matrix}")
        for weak, strong in ((self.acceleration, self.braking), (self.wheel_acceleration, self.wheel_braking)):
            if any(brake < drive for drive, brake in zip(weak, strong, strict=True)):
                raise ConfigError(f"braking {strong} is weaker than acceleration {weak}: give at least the same values")

    @property
    def window_s(self) -> float:
        """The time over which the ramp is averaged so that the jerk limits hold."""
        return max(2 * a / j for a, j in zip(self.acceleration, self.jerk, strict=True))

    @property
    def ramp_time_s(self) -> float:
        """From any allowed motion, a command of zero is reached in at most this time and two steps.

        Counted in steps no longer than ``longest_step_s``.
        """
        axes, wheels = _gauge(self.speed, self.acceleration), _gauge(self.wheel_speed, self.wheel_acceleration)
        return max(axes, wheels) + self.window_s

    @property
    def stop_time_s(self) -> float:
        """From any allowed motion, a stop (``Envelope.step(None, ...)``) is done in at most this time and one step."""
        return max(_gauge(self.speed, self.braking), _gauge(self.wheel_speed, self.wheel_braking))

    def wheel_speeds(self, twist: Twist) -> tuple[float, ...]:
        """``wheel_matrix @ (vx, vy, wz)``."""
        return self._wheels((twist.vx, twist.vy, twist.wz))

    def fit(self, twist: Twist) -> Twist:
        """The fastest allowed velocity in the direction of a finite ``twist``, no faster than it."""
        within = _scaled((twist.vx, twist.vy, twist.wz), _gauge((twist.vx, twist.vy, twist.wz), self.speed))
        excess = max(
            math.hypot(within[0], within[1]) / self.planar_speed, _gauge(self._wheels(within), self.wheel_speed)
        )
        return Twist(*_scaled(within, excess))

    def ramp_seconds(self, change: _Vector) -> float:
        """The shortest time in which the velocity may change by ``change`` while driving, jerk aside."""
        return max(_gauge(change, self.acceleration), _gauge(self._wheels(change), self.wheel_acceleration))

    def stop_seconds(self, twist: Twist) -> float:
        """The shortest time in which the base may be braked from ``twist`` to zero."""
        return max(
            _gauge((twist.vx, twist.vy, twist.wz), self.braking), _gauge(self.wheel_speeds(twist), self.wheel_braking)
        )

    def _wheels(self, values: _Vector) -> tuple[float, ...]:
        return tuple(row[0] * values[0] + row[1] * values[1] + row[2] * values[2] for row in self.wheel_matrix)


@dataclass(frozen=True, slots=True)
class _Segment:
    """A straight piece of the ramp."""

    duration_s: float
    start: _Vector
    end: _Vector


class Envelope:
    """Limits a sequence of commands; begins at rest. What it promises holds for every sequence, to float error.

    - the velocity keeps every speed limit, its change over a step keeps every acceleration limit (``braking`` in a step
      that stops), and the accelerations of two driving steps differ by at most jerk x the time between their middles
      (for steps up to ``longest_step_s``; the acceleration after a stop counts as zero);
    - from rest, a steady command is approached in its own direction; a slow-down to zero keeps the direction too;
    - zero is reached in ``Limits.ramp_time_s`` when zero is commanded, in ``Limits.stop_time_s`` when told to stop.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._velocity = ZERO_TWIST
        self._ramp: Sequence[_Segment] = ()
        self._ramp_end: _Vector = (0.0, 0.0, 0.0)

    @property
    def velocity(self) -> Twist:
        """What the last step gave."""
        return self._velocity

    def step(self, command: Twist | None, dt_s: float) -> Twist:
        """The velocity to send now, ``dt_s`` seconds after the last one.

        None, or a command with a NaN or an infinity in it, stops as fast as ``braking`` allows, straight towards zero.
        ValueError when ``dt_s`` is not finite or under ``SHORTEST_STEP_S``.
        """
        if not SHORTEST_STEP_S <= dt_s < math.inf:
            raise ValueError(f"a step of {dt_s} s: it needs to be finite and at least {SHORTEST_STEP_S} s")
        if command is None or not all(map(math.isfinite, (command.vx, command.vy, command.wz))):
            self._brake(dt_s)
        else:
            self._drive(command, min(dt_s, self.limits.longest_step_s))
        return self._velocity

    def _brake(self, dt_s: float) -> None:
        needed_s = self.limits.stop_seconds(self._velocity)
        keep = 1 - dt_s / needed_s if needed_s > dt_s else 0.0
        self._velocity = Twist(self._velocity.vx * keep, self._velocity.vy * keep, self._velocity.wz * keep)
        self._ramp_end = (self._velocity.vx, self._velocity.vy, self._velocity.wz)
        self._ramp = ()

    def _drive(self, command: Twist, dt_s: float) -> None:
        target = self.limits.fit(command)
        start, goal = self._ramp_end, (target.vx, target.vy, target.wz)
        change = _minus(goal, start)
        needed_s = self.limits.ramp_seconds(change)
        end = _plus(start, change, dt_s / needed_s) if needed_s > dt_s else goal
        self._ramp_end = end
        self._ramp = (*self._ramp, _Segment(dt_s, start, end))
        self._velocity = self._mean_over_window()

    def _mean_over_window(self) -> Twist:
        """Mean of the ramp over the last ``window_s``, forgetting what lies before; before the ramp began it stood."""
        remaining_s = window_s = self.limits.window_s
        area: _Vector = (0.0, 0.0, 0.0)
        used = 0
        for segment in reversed(self._ramp):
            if remaining_s <= 0:
                break
            used += 1
            part_s = min(segment.duration_s, remaining_s)
            remaining_s -= part_s
            middle = _plus(segment.end, _minus(segment.start, segment.end), part_s / segment.duration_s / 2)
            area = _plus(area, middle, part_s)
        self._ramp = self._ramp[-used:]
        if remaining_s > 0:
            area = _plus(area, self._ramp[0].start, remaining_s)
        return Twist(area[0] / window_s, area[1] / window_s, area[2] / window_s)


def _gauge(values: Sequence[float], limits: Sequence[float]) -> float:
    """The largest |value| / limit; 0 for no values."""
    return max((abs(value) / limit for value, limit in zip(values, limits, strict=True)), default=0.0)


def _scaled(values: _Vector, excess: float) -> _Vector:
    """``values`` divided by ``excess`` where that is above 1."""
    return (values[0] / excess, values[1] / excess, values[2] / excess) if excess > 1 else values


def _plus(values: _Vector, direction: _Vector, share: float) -> _Vector:
    return (values[0] + direction[0] * share, values[1] + direction[1] * share, values[2] + direction[2] * share)


def _minus(values: _Vector, others: _Vector) -> _Vector:
    return (values[0] - others[0], values[1] - others[1], values[2] - others[2])


def _require_positive(name: str, values: Sequence[float], count: int) -> None:
    if len(values) != count or not all(math.isfinite(value) and value > 0 for value in values):
        raise ConfigError(f"{name} needs {count} finite positive numbers, got {values}")
