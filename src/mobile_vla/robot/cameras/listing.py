"""Which V4L2 cameras this machine has, by what the kernel says in /sys (no device is opened)."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

SYS = Path("/sys/class/video4linux")
DEV = Path("/dev")


@dataclass(frozen=True, slots=True)
class FoundCamera:
    """``device`` like /dev/video0; ``name`` as its driver gives it; ``permitted``: this user may open it.

    ``index``: 0 for the node of a camera that gives pictures. A USB camera has a second node, 1, which gives metadata
    alone (kernel documentation, uvcvideo, V4L2_META_FMT_UVC).
    """

    device: Path
    name: str
    index: int
    permitted: bool


def list_cameras(sys: Path = SYS, dev: Path = DEV) -> tuple[FoundCamera, ...]:
    """All video devices by number; none where the kernel has no video4linux."""
    nodes = [node for node in sys.glob("video*") if re.fullmatch(r"video\d+", node.name)]
    found = []
    for node in sorted(nodes, key=lambda node: int(node.name.removeprefix("video"))):
        device = dev / node.name
        found.append(
            FoundCamera(
                device=device,
                name=_text(node / "name") or "unnamed",
                index=int(_text(node / "index") or 0),
                permitted=os.access(device, os.R_OK | os.W_OK),
            )
        )
    return tuple(found)


def present(sys: Path = SYS, dev: Path = DEV) -> str:
    """For an error: the cameras that are there, in words."""
    cameras = [f"{camera.device} ({camera.name})" for camera in list_cameras(sys, dev) if camera.index == 0]
    if not cameras:
        return "none is present: plug one in, and pass it on where this runs in a container"
    return f"present are {', '.join(cameras)}"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
