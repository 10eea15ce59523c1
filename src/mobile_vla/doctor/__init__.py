"""Is this machine fit to drive? Checks of everything that a drive leans on, with the line that repairs each."""

from mobile_vla.doctor.check import Check, State, driving_fails
from mobile_vla.doctor.examine import examine
from mobile_vla.doctor.purpose import Purpose

__all__ = ["Check", "Purpose", "State", "driving_fails", "examine"]
