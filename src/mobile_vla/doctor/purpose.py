"""What the machine is examined for: which drive, with which robot, and where its policy runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what it imports may be what is missing
    from mobile_vla.runtime.config import RobotConfig

SHIPPED = Path(__file__).parents[1] / "policy" / "shipped"
"""The checkpoint that comes with the package; its own module needs torch, which may be what is missing."""


@dataclass(frozen=True, slots=True)
class Purpose:
    """``robot`` None: a drive in the simulator. ``policy`` None: the policy runs on another machine.

    ``robot_file`` and ``overrides`` are what ``robot`` was read from, for the processes that open its devices.
    """

    policy: Path | None = SHIPPED
    robot: "RobotConfig | None" = None
    robot_file: Path | None = None
    overrides: Sequence[str] = ()

    @property
    def needs_simulator(self) -> bool:
        """Nothing real is driven."""
        return self.robot is None

    @property
    def needs_policy(self) -> bool:
        """The policy runs here."""
        return self.policy is not None

    @property
    def needs_wire(self) -> bool:
        """Messages have to reach another process: the policy's, or that of a camera or base behind ROS."""
        kinds = (self.robot.camera_kind, self.robot.base_kind) if self.robot is not None else ()
        return not self.needs_policy or "topic" in kinds or "cmd_vel" in kinds

    @property
    def video_device(self) -> Path | None:
        """The device in /dev that the robot's camera is set to."""
        device = self._setting("camera", "device")
        return Path(device) if device is not None and device.startswith("/dev/") else None

    @property
    def can_channel(self) -> str | None:
        """The CAN interface of the kernel that the robot's base is set to."""
        return self._setting("base", "channel") if self._setting("base", "interface") == "socketcan" else None

    @property
    def serial_port(self) -> str | None:
        """The serial port that the robot's base is set to."""
        return self._setting("base", "port")

    def _setting(self, part: str, name: str) -> str | None:
        value = getattr(getattr(self.robot, part, None), name, None)
        return None if value is None else str(value)
