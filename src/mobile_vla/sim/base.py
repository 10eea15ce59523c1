"""The bases that can carry the robot: one protocol, and the ideal planar one."""

import math
from typing import Any, Protocol

from mobile_vla.core import Twist
from mobile_vla.robot.kinematics import LEKIWI
from mobile_vla.sim.camera import CAMERA_FORWARD_M
from mobile_vla.sim.mjcf import HULL_MASK, ROBOT_GROUP, UNFELT_MASK, BaseModel
from mobile_vla.sim.scene import ROBOT_RADIUS_M, Pose

HULL_HEIGHT_M = 0.15
HULL_CLEARANCE_M = 0.02

FRONT_CAMERA = f'<camera name="front" pos="{CAMERA_FORWARD_M} 0 .22" fovy="50"/>'


class Base(Protocol):
    """How a base is moved and what can be measured on it. Twists are in ``base_link``, poses in ``world``."""

    model: BaseModel

    def drive(self, data: Any, vx: float, vy: float, wz: float) -> None:
        """Set the actuators for a wanted twist, m/s and rad/s."""
        ...

    def pose(self, data: Any) -> Pose:
        """Where the base is."""
        ...

    def place(self, data: Any, pose: Pose) -> None:
        """Put the base there without changing its velocity in base_link."""
        ...

    def odometry(self, data: Any) -> Twist:
        """What the base itself measures."""
        ...

    def true_velocity(self, data: Any) -> Twist:
        """How the base really moves."""
        ...

    def set_velocity(self, data: Any, twist: Twist) -> None:
        """Make base and actuators move so at once."""
        ...


def slipped(twist: Twist, wheel_gains: tuple[float, float, float]) -> Twist:
    """What becomes of a commanded twist when each wheel turns by its own gain."""
    if wheel_gains == (1.0, 1.0, 1.0):
        return twist
    return LEKIWI.twist(LEKIWI.wheel_speeds(twist) * wheel_gains)


def hull(mask: str) -> str:
    """The cylinder that the base is felt as, and what is seen of the robot from above; the white bar points forward."""
    seen = f'group="{ROBOT_GROUP}" mass="0" material="matte" {UNFELT_MASK}'
    half, middle = (HULL_HEIGHT_M - HULL_CLEARANCE_M) / 2, (HULL_HEIGHT_M + HULL_CLEARANCE_M) / 2
    top = HULL_HEIGHT_M
    return f"""
    <geom name="hull" type="cylinder" size="{ROBOT_RADIUS_M} {half}" pos="0 0 {middle}" group="3" mass="2.5" {mask}/>
    <geom type="cylinder" size="{ROBOT_RADIUS_M} {half}" pos="0 0 {middle}" rgba=".16 .17 .20 1" {seen}/>
    <geom type="cylinder" size="{ROBOT_RADIUS_M * 0.8} .004" pos="0 0 {top}" rgba=".10 .75 .85 1" {seen}/>
    <geom type="box" size=".075 .022 .006" pos=".075 0 {top + 0.004}" rgba="1 1 1 1" {seen}/>
    <geom type="box" size=".018 .03 .02" pos="{CAMERA_FORWARD_M} 0 {top + 0.03}" rgba=".95 .2 .2 1" {seen}/>
    <geom type="capsule" size=".012" fromto=".145 0 {top} .095 .055 {top}" rgba="1 1 1 1" {seen}/>
    <geom type="capsule" size=".012" fromto=".145 0 {top} .095 -.055 {top}" rgba="1 1 1 1" {seen}/>"""


def _planar_model() -> BaseModel:
    body = f"""
    <body name="base">
      <joint name="x" type="slide" axis="1 0 0"/>
      <joint name="y" type="slide" axis="0 1 0"/>
      <joint name="yaw" type="hinge" axis="0 0 1"/>
      {hull(HULL_MASK + ' condim="1"')}
      {FRONT_CAMERA}
    </body>"""
    actuators = """
    <velocity joint="x" kv="480" forcerange="-60 60"/>
    <velocity joint="y" kv="480" forcerange="-60 60"/>
    <velocity joint="yaw" kv="7" forcerange="-5 5"/>"""
    option = 'timestep="0.005" integrator="implicitfast" gravity="0 0 0" iterations="10" ls_iterations="10"'
    return BaseModel(option=option, body=body, actuators=actuators)


class PlanarBase:
    """Two slides and a hinge with stiff velocity actuators: goes where it is told unless something is in the way."""

    model = _planar_model()

    def drive(self, data: Any, vx: float, vy: float, wz: float) -> None:
        """See ``Base.drive``."""
        yaw = data.qpos[2]
        c, s = math.cos(yaw), math.sin(yaw)
        data.ctrl[:] = (c * vx - s * vy, s * vx + c * vy, wz)

    def pose(self, data: Any) -> Pose:
        """See ``Base.pose``; yaw within -pi..pi."""
        x, y, yaw = data.qpos.tolist()
        return Pose(x, y, math.remainder(yaw, math.tau))

    def place(self, data: Any, pose: Pose) -> None:
        """See ``Base.place``."""
        twist = self.true_velocity(data)
        data.qpos[:] = (pose.x, pose.y, pose.yaw)
        self.set_velocity(data, twist)

    def odometry(self, data: Any) -> Twist:
        """The true velocity: this base does not slip."""
        return self.true_velocity(data)

    def true_velocity(self, data: Any) -> Twist:
        """See ``Base.true_velocity``."""
        vx, vy, wz = data.qvel.tolist()
        yaw = data.qpos[2]
        c, s = math.cos(yaw), math.sin(yaw)
        return Twist(c * vx + s * vy, c * vy - s * vx, wz)

    def set_velocity(self, data: Any, twist: Twist) -> None:
        """See ``Base.set_velocity``."""
        yaw = data.qpos[2]
        c, s = math.cos(yaw), math.sin(yaw)
        data.qvel[:] = (c * twist.vx - s * twist.vy, s * twist.vx + c * twist.vy, twist.wz)
