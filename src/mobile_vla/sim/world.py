"""The simulated world: load a scene, drive the base through it, look through its camera, and know the truth."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mobile_vla.core import NS_PER_S, ConfigError, Twist
from mobile_vla.sim.base import Base, PlanarBase, slipped
from mobile_vla.sim.camera import FrontCamera, SeenObject
from mobile_vla.sim.gl import GLRenderer, egl_problem, mujoco
from mobile_vla.sim.mjcf import PART_GROUP, ROBOT_GROUP, ROOM_GROUP, Stage
from mobile_vla.sim.omni import RollerBase
from mobile_vla.sim.rays import RayRenderer
from mobile_vla.sim.scene import Pose, Scene
from mobile_vla.sim.sight import Sight

RendererChoice = Literal["auto", "egl", "rays"]
BaseChoice = Literal["planar", "rollers"]

TOP_MARGIN_M = 0.15
RENDERER_VARIABLE = "MOBILE_VLA_RENDERER"


@dataclass(frozen=True, slots=True, eq=False)
class WorldState:
    """Everything that changes while a scene is played; from ``World.save_state``."""

    scene: Scene
    physics: NDArray[np.float64]
    filtered: tuple[float, float, float]
    wanted: tuple[float, float, float]
    pending: tuple[tuple[float, tuple[float, float, float]], ...]
    touching: str | None


class World:
    """One scene at a time, played on one base. Frames ``world`` and ``base_link``; many may live in one process."""

    def __init__(self, base: BaseChoice = "planar", renderer: RendererChoice = "auto") -> None:
        self._base: Base = _BASES[base]()
        self._stage = Stage(self._base.model)
        self._model, self._data = self._stage.model, self._stage.data
        self._renderer = _make_renderer(renderer, self._model)
        self._sight = Sight(self._stage)
        self._timestep_s = float(self._model.opt.timestep)
        self._scene: Scene | None = None
        self._filtered = (0.0, 0.0, 0.0)
        self._wanted = (0.0, 0.0, 0.0)
        self._pending: list[tuple[float, tuple[float, float, float]]] = []
        self._touching: str | None = None
        self._cameras: dict[tuple[int, int], FrontCamera] = {}
        self._state_size = mujoco.mj_stateSize(self._model, mujoco.mjtState.mjSTATE_INTEGRATION.value)

    @property
    def scene(self) -> Scene:
        """The scene that is being played; RuntimeError before the first ``load``."""
        if self._scene is None:
            raise RuntimeError("the world is empty: call load(scene) first")
        return self._scene

    @property
    def renderer_name(self) -> str:
        """What draws the frames, for the record of a data set."""
        return self._renderer.name

    @property
    def time_ns(self) -> int:
        """Simulated time since ``load``."""
        return round(float(self._data.time) * NS_PER_S)

    @property
    def pose(self) -> Pose:
        """Where the base centre is, in ``world``."""
        return self._base.pose(self._data)

    @property
    def velocity(self) -> Twist:
        """As the base measures it, in ``base_link``: odometry of the wheels where there are wheels."""
        return self._base.odometry(self._data)

    @property
    def true_velocity(self) -> Twist:
        """As the base really moves, in ``base_link``."""
        return self._base.true_velocity(self._data)

    def load(self, scene: Scene) -> None:
        """Begin ``scene``: time 0, the base at its start. ValueError when it holds too many things."""
        mujoco.mj_resetData(self._model, self._data)
        self._stage.dress(scene)
        self._scene = scene
        self._cameras.clear()
        self._mount_camera(scene)
        self._sight.load(scene)
        self._touching = None
        self._base.place(self._data, scene.start)
        self.set_velocity(Twist(*scene.start_velocity))
        mujoco.mj_forward(self._model, self._data)

    def set_pose(self, pose: Pose) -> None:
        """Put the base somewhere else, its velocity in ``base_link`` unchanged."""
        self._base.place(self._data, pose)
        self._refresh()

    def set_velocity(self, twist: Twist) -> None:
        """Make the base move so at once, and forget commands that are still on their way."""
        self._base.set_velocity(self._data, twist)
        self._filtered = self._wanted = (twist.vx, twist.vy, twist.wz)
        self._pending.clear()

    def step(self, command: Twist, duration_s: float) -> None:
        """Command a twist and let ``duration_s`` pass, a whole number of time steps.

        The command takes effect ``latency_s`` later, through the wheels' gains and the base's time constant.
        """
        dynamics = self.scene.dynamics
        data, model, base, contacts = self._data, self._model, self._base, self._data.contact
        step_s = self._timestep_s
        effect = slipped(command, dynamics.wheel_gains)
        self._pending.append((data.time + dynamics.latency_s, (effect.vx, effect.vy, effect.wz)))
        share = 1.0 - math.exp(-step_s / dynamics.time_constant_s) if dynamics.time_constant_s > 0 else 1.0
        vx, vy, wz = self._filtered
        self._touching = None
        for _ in range(max(1, round(duration_s / step_s))):
            now = data.time + step_s / 2
            while self._pending and self._pending[0][0] <= now:
                self._wanted = self._pending.pop(0)[1]
            to_x, to_y, to_z = self._wanted
            vx, vy, wz = vx + share * (to_x - vx), vy + share * (to_y - vy), wz + share * (to_z - wz)
            base.drive(data, vx, vy, wz)
            mujoco.mj_step(model, data)
            if data.ncon and self._touching is None:
                self._touching = self._touched(contacts.geom)
        self._filtered = (vx, vy, wz)
        self._refresh()

    def touching(self) -> str | None:
        """Name of the first thing that the base touched during the last step, such as "red cup", or None."""
        return self._touching

    def render(self, height: int = 96, width: int = 192) -> NDArray[np.uint8]:
        """RGB uint8 (height, width, 3) of the front camera."""
        camera = self._camera(height, width)
        self._model.cam_fovy[self._stage.front_camera] = math.degrees(camera.vertical_fov_rad)
        return self._renderer.render(
            self._data, self._stage.front_camera, height, width, groups=(ROOM_GROUP, PART_GROUP)
        )

    def render_top(self, height: int = 480, width: int = 480) -> NDArray[np.uint8]:
        """RGB uint8 (height, width, 3): the whole room from above, world x to the right and y up, with the robot."""
        scene = self.scene
        tall = 2 * (scene.half_y + TOP_MARGIN_M)
        wide = 2 * (scene.half_x + TOP_MARGIN_M)
        self._model.cam_fovy[self._stage.top_camera] = max(tall, wide * height / width)
        groups = (ROOM_GROUP, PART_GROUP, ROBOT_GROUP)
        return self._renderer.render(self._data, self._stage.top_camera, height, width, groups=groups, samples=4)

    def visibility(self, height: int = 96, width: int = 192) -> list[SeenObject]:
        """The truth about every object of the scene in an image of that size."""
        return self._sight.visibility(self.pose, self._camera(height, width))

    def ranges(self, columns: int) -> NDArray[np.float32]:
        """Free distance in metres from the base centre, shape (columns,), left to right over the field of view.

        Cast horizontally at hull height towards the middle of each block of image columns; at most ``RANGE_CAP_M``.
        """
        return self._sight.ranges(self.pose, self._camera(96, 192), columns)

    def save_state(self) -> WorldState:
        """What ``restore_state`` needs to go on from here, in this world or another that has loaded the same scene."""
        physics = np.empty(self._state_size)
        mujoco.mj_getState(self._model, self._data, physics, mujoco.mjtState.mjSTATE_INTEGRATION.value)
        return WorldState(self.scene, physics, self._filtered, self._wanted, tuple(self._pending), self._touching)

    def restore_state(self, state: WorldState) -> None:
        """Go back to a saved state; ValueError when it is of another scene or base."""
        if state.scene is not self._scene and state.scene != self._scene:
            raise ValueError("the saved state belongs to another scene: load that scene first")
        if state.physics.size != self._state_size:
            raise ValueError("the saved state belongs to a world with another base")
        mujoco.mj_setState(self._model, self._data, state.physics, mujoco.mjtState.mjSTATE_INTEGRATION.value)
        self._filtered, self._wanted, self._touching = state.filtered, state.wanted, state.touching
        self._pending = list(state.pending)
        self._refresh()

    def close(self) -> None:
        """Let go of what draws; the world can no longer render."""
        self._renderer.close()

    def _camera(self, height: int, width: int) -> FrontCamera:
        camera = self._cameras.get((height, width))
        if camera is None:
            camera = self._cameras[height, width] = FrontCamera(self.scene.appearance, height, width)
        return camera

    def _mount_camera(self, scene: Scene) -> None:
        camera, index = self._camera(96, 192), self._stage.front_camera
        right, up, ahead = camera.axes
        self._model.cam_pos[index][2] = scene.appearance.camera_height_m
        mujoco.mju_mat2Quat(self._model.cam_quat[index], np.stack([right, up, -ahead], axis=1).ravel())

    def _refresh(self) -> None:
        """Bring positions of geoms and cameras up to date after the base has moved."""
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)

    def _touched(self, pairs: NDArray[np.int32]) -> str | None:
        names = self._stage.touch_names
        for first, second in pairs.tolist():
            name = names.get(first) or names.get(second)
            if name is not None:
                return name
        return None


def renderer_name(renderer: RendererChoice = "auto") -> str:
    """What would draw the frames on this machine."""
    world = World(renderer=renderer)
    name = world.renderer_name
    world.close()
    return name


_BASES: dict[str, Callable[[], Base]] = {"planar": PlanarBase, "rollers": RollerBase}


def _make_renderer(choice: RendererChoice, model: Any) -> GLRenderer | RayRenderer:
    """The argument decides, then the environment, then what works; ConfigError when EGL is demanded but absent."""
    wanted = os.environ.get(RENDERER_VARIABLE, "auto") if choice == "auto" else choice
    if wanted not in ("auto", "egl", "rays"):
        raise ConfigError(f"the renderer must be auto, egl or rays, got {wanted!r}; see {RENDERER_VARIABLE}")
    if wanted == "rays":
        return RayRenderer(model)
    problem = egl_problem()
    if problem is None:
        return GLRenderer(model)
    if wanted == "egl":
        raise ConfigError(f"{problem}; or draw without it: {RENDERER_VARIABLE}=rays")
    return RayRenderer(model)
