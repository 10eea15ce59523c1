"""The three-omni-wheel base with real rollers: wheels that slip, and encoders that do not know it."""

import math
from typing import Any

from mobile_vla.core import Twist
from mobile_vla.robot.kinematics import LEKIWI
from mobile_vla.sim.base import FRONT_CAMERA, hull
from mobile_vla.sim.mjcf import HULL_MASK, ROBOT_GROUP, ROLLER_MASK, UNFELT_MASK, BaseModel
from mobile_vla.sim.scene import Pose

ROLLERS_PER_WHEEL = 10
ROLLER_RADIUS_M = 0.011
# Curvature of the barrel along its axis equals that of the wheel, so the wheel rolls as if it were round.
ROLLER_HALF_LENGTH_M = math.sqrt(LEKIWI.wheel_radius_m * ROLLER_RADIUS_M)

_ROOT_DOFS = 6
_DOFS_PER_WHEEL = 1 + ROLLERS_PER_WHEEL
_WHEEL_DOFS = [_ROOT_DOFS + i * _DOFS_PER_WHEEL for i in range(3)]


def _roller(index: int) -> str:
    """One roller, in the frame of a wheel that turns about y."""
    angle = math.tau * index / ROLLERS_PER_WHEEL
    ring = LEKIWI.wheel_radius_m - ROLLER_RADIUS_M
    x, z = ring * math.sin(angle), ring * math.cos(angle)
    along = f"{math.cos(angle):.6f} 0 {-math.sin(angle):.6f}"
    return f"""
        <body pos="{x:.6f} 0 {z:.6f}" xyaxes="{along} 0 1 0">
          <joint type="hinge" axis="1 0 0" damping="1e-6" armature="1e-6"/>
          <geom type="ellipsoid" size="{ROLLER_HALF_LENGTH_M:.6f} {ROLLER_RADIUS_M} {ROLLER_RADIUS_M}" mass="0.006"
            condim="3" friction="1.1 0.001 0.0001" group="{ROBOT_GROUP}" rgba=".3 .3 .32 1" material="matte"
            {ROLLER_MASK}/>
        </body>"""


def _wheel(index: int) -> str:
    """One wheel: it drives the base along its angle, so its axis (local y) points to the middle of the base."""
    angle, radius = LEKIWI.wheel_angles_rad[index], LEKIWI.base_radius_m
    c, s = math.cos(angle), math.sin(angle)
    rollers = "".join(_roller(k) for k in range(ROLLERS_PER_WHEEL))
    return f"""
      <body name="wheel{index}" pos="{radius * s:.6f} {-radius * c:.6f} {LEKIWI.wheel_radius_m}"
            xyaxes="{c:.6f} {s:.6f} 0 {-s:.6f} {c:.6f} 0">
        <joint name="wheel{index}" type="hinge" axis="0 1 0" armature="1e-4"/>
        <geom type="cylinder" size=".030 .012" zaxis="0 1 0" mass="0.05" group="{ROBOT_GROUP}" material="matte"
          rgba=".2 .2 .22 1" {UNFELT_MASK}/>
        {rollers}
      </body>"""


def _roller_model() -> BaseModel:
    body = f"""
    <body name="base">
      <freejoint/>
      {hull(HULL_MASK + ' condim="3" friction="0.2 0.001 0.0001"')}
      {FRONT_CAMERA}
      {"".join(_wheel(i) for i in range(3))}
    </body>"""
    actuators = "".join(f'<velocity joint="wheel{i}" kv="0.5" forcerange="-1.5 1.5"/>' for i in range(3))
    option = 'timestep="0.002" integrator="implicitfast" cone="elliptic" impratio="10" iterations="20"'
    return BaseModel(option=option, body=body, actuators=actuators)


class RollerBase:
    """Driven by its wheels; where it goes is up to friction."""

    model = _roller_model()

    def drive(self, data: Any, vx: float, vy: float, wz: float) -> None:
        """See ``Base.drive``."""
        data.ctrl[:] = LEKIWI.inverse_matrix @ (vx, vy, wz)

    def pose(self, data: Any) -> Pose:
        """See ``Base.pose``."""
        x, y, _, qw, qx, qy, qz = data.qpos[:7].tolist()
        return Pose(x, y, math.atan2(2 * (qw * qz + qx * qy), 1 - 2 * (qy * qy + qz * qz)))

    def place(self, data: Any, pose: Pose) -> None:
        """See ``Base.place``; it stands upright on the floor afterwards."""
        twist = self.true_velocity(data)
        data.qpos[:7] = (pose.x, pose.y, 0.0, math.cos(pose.yaw / 2), 0.0, 0.0, math.sin(pose.yaw / 2))
        self.set_velocity(data, twist)

    def odometry(self, data: Any) -> Twist:
        """What the wheel encoders amount to."""
        return LEKIWI.twist(data.qvel[_WHEEL_DOFS])

    def true_velocity(self, data: Any) -> Twist:
        """See ``Base.true_velocity``."""
        vx, vy, _, _, _, wz = data.qvel[:6].tolist()
        yaw = self.pose(data).yaw
        c, s = math.cos(yaw), math.sin(yaw)
        return Twist(c * vx + s * vy, c * vy - s * vx, wz)

    def set_velocity(self, data: Any, twist: Twist) -> None:
        """See ``Base.set_velocity``; the rollers find their own speed within a step or two."""
        yaw = self.pose(data).yaw
        c, s = math.cos(yaw), math.sin(yaw)
        data.qvel[:] = 0.0
        data.qvel[:6] = (c * twist.vx - s * twist.vy, s * twist.vx + c * twist.vy, 0.0, 0.0, 0.0, twist.wz)
        data.qvel[_WHEEL_DOFS] = LEKIWI.inverse_matrix @ (twist.vx, twist.vy, twist.wz)
