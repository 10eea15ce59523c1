"""Cameras and bases, each behind one protocol; kinematics."""

from mobile_vla.robot.kinematics import LEKIWI, OmniKinematics
from mobile_vla.robot.protocols import Base, Camera

__all__ = ["LEKIWI", "Base", "Camera", "OmniKinematics"]
