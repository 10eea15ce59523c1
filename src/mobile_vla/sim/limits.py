"""What a supervisor of the simulated base enforces; apart, so that it can be had without MuJoCo."""

from mobile_vla.robot import LEKIWI
from mobile_vla.safety import Limits

LIMITS = Limits(wheel_matrix=LEKIWI.wheel_matrix, wheel_speed=(16.0,) * 3, wheel_acceleration=(60.0,) * 3)
"""The wheels' limits in rad/s and rad/s^2."""
