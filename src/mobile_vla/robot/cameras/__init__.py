"""Cameras of many kinds behind ``robot.protocols.Camera``; ``robot.registry`` makes one from its settings."""

from mobile_vla.robot.cameras.health import FrameHealth, HealthSummary, HealthWatch
from mobile_vla.robot.cameras.listing import FoundCamera, list_cameras
from mobile_vla.robot.cameras.reader import Lost, ReaderCamera, Recovery, Shot, Source

__all__ = [
    "FoundCamera",
    "FrameHealth",
    "HealthSummary",
    "HealthWatch",
    "Lost",
    "ReaderCamera",
    "Recovery",
    "Shot",
    "Source",
    "list_cameras",
]
