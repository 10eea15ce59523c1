"""What a camera and a base must be able to do. ``tests/robot/conformance.py`` tests whoever implements them."""

from typing import Protocol, runtime_checkable

from mobile_vla.core import Frame, Twist
from mobile_vla.robot.odometry import Pose


class Camera(Protocol):
    """Gives frames. One thread uses it at a time."""

    @property
    def name(self) -> str:
        """The ``camera`` of its frames."""
        ...

    @property
    def rate_hz(self) -> float:
        """New frames per second, nominally."""
        ...

    def open(self) -> None:
        """Make ready to read, within a time limit of its own; CameraError when that fails. Open twice is open."""
        ...

    def close(self) -> None:
        """Let the device go. Closed twice is closed; it may be opened again."""
        ...

    def read(self, timeout_s: float) -> Frame | None:
        """The newest frame that was not read before, or None when there is none within ``timeout_s``.

        Older unread frames are dropped. With 0 it does not wait, and a simulated camera never waits. ``sequence`` and
        ``capture_ns`` rise from frame to frame while the camera stays open; gaps in ``sequence`` are dropped frames.
        ``capture_ns`` is when the light fell in, not when the frame was read. The pixels belong to the caller: they do
        not change at the next read. CameraError when the camera is closed or has failed.
        """
        ...


class Base(Protocol):
    """Moves. Twists are in ``base_link``. One thread uses it at a time."""

    @property
    def command_timeout_s(self) -> float:
        """The base stops by itself when no ``send`` comes for this long: nobody else can notice a hung program."""
        ...

    def open(self) -> None:
        """Make ready to move, at rest, within a time limit of its own; BaseError when that fails. Open twice is open.

        A base that failed since is opened afresh.
        """
        ...

    def close(self) -> None:
        """Stop, and let the device go; never raises. Closed twice is closed; it may be opened again."""
        ...

    def send(self, twist: Twist) -> Twist:
        """Ask for a velocity; returns what was really sent to the motors, after limits, dead bands and rounding.

        ValueError for a twist that is not finite, and then the base is stopped. BaseError, within a time limit of its
        own, for a device that is gone or no longer answers; it stays so until the base is opened again.
        """
        ...

    def velocity(self) -> Twist:
        """The velocity as measured by the base (wheel encoders, odometry), never the last command passed back.

        The newest measurement, without waiting and without raising; ``Feedback`` says how old it is. A base that
        measures nothing gives a model's estimate, and says so in ``Feedback``.
        """
        ...

    def stop(self) -> None:
        """Come to rest as fast as the base can. Never raises for a base that is already stopped or closed."""
        ...


@runtime_checkable
class Feedback(Protocol):
    """What a base may also be able to do: say when it last measured its velocity. Watchdogs judge this stamp."""

    @property
    def has_feedback(self) -> bool:
        """``velocity`` is measured. False: the device reports nothing, and ``velocity`` is a model's estimate."""
        ...

    @property
    def feedback_ns(self) -> int | None:
        """When the newest measurement came, on the clock that the base was built with; None: none yet, or never."""
        ...


@runtime_checkable
class HasOdometry(Protocol):
    """What a base with encoders is also able to do."""

    @property
    def odometry(self) -> Pose | None:
        """By its encoders, in the frame ``odom``: where it stood when it was opened. None: unknown."""
        ...
