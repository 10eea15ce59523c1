"""What a camera and a base must be able to do. ``tests/robot/conformance.py`` tests whoever implements them."""

from typing import Protocol

from mobile_vla.core import Frame, Twist


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
        """Make ready to move, at rest, within a time limit of its own. Open twice is open."""
        ...

    def close(self) -> None:
        """Stop, and let the device go. Closed twice is closed; it may be opened again."""
        ...

    def send(self, twist: Twist) -> Twist:
        """Ask for a velocity; returns what was really sent to the motors, after limits, dead bands and rounding.

        ValueError for a twist that is not finite, and then the base is stopped.
        """
        ...

    def velocity(self) -> Twist:
        """The velocity as measured by the base (wheel encoders, odometry), never the last command passed back."""
        ...

    def stop(self) -> None:
        """Come to rest as fast as the base can. Never raises for a base that is already stopped or closed."""
        ...
