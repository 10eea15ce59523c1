"""Drives that are asked about."""

from pathlib import Path

from mobile_vla.doctor.purpose import Purpose
from mobile_vla.runtime.config import read_robot

SIMULATED = Purpose()
ELSEWHERE = Purpose(policy=None)


def with_robot(camera="pattern", base="ideal", policy_here=True, **settings):
    """A real drive; settings like ``camera_device="/dev/video0"``."""
    overrides = [f"camera.kind={camera}", f"base.kind={base}"]
    overrides += [f"{name.replace('_', '.', 1)}={value}" for name, value in settings.items()]
    purpose = Purpose(robot=read_robot(None, overrides), overrides=tuple(overrides))
    return purpose if policy_here else Purpose(None, purpose.robot, None, purpose.overrides)


SERBOT = {"base_wheel_radius_m": 0.05, "base_base_radius_m": 0.12, "base_units_per_radps": 8.0}
VIDEO0 = Path("/dev/video0")
