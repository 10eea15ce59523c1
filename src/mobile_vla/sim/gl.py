"""Off-screen OpenGL through EGL: one context for the whole process, shared by every world.

Import ``mujoco`` from here inside ``mobile_vla.sim``: MUJOCO_GL must be settled before its first import.
"""

import atexit
import ctypes
import os
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray


def egl_libraries_present() -> bool:
    """libEGL and libGL can be loaded; without them MuJoCo's own message is obscure."""
    try:
        for name in ("libEGL.so.1", "libGL.so.1"):
            ctypes.CDLL(name)
    except OSError:
        return False
    return True


os.environ.setdefault("MUJOCO_GL", "egl" if sys.platform == "linux" and egl_libraries_present() else "disable")
os.environ.setdefault("LP_NUM_THREADS", "0")  # llvmpipe: one process a core is faster than threads in one

import mujoco  # noqa: E402

__all__ = ["GLRenderer", "egl_libraries_present", "egl_problem", "mujoco"]


class _Shared:
    """The GL context of one process and its off-screen buffers by (width, height, samples)."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        from mujoco.egl import GLContext  # by name: mujoco.GLContext is GLFW's where mujoco came first

        self.gl: Any = GLContext(64, 64)
        self.gl.make_current()
        self.buffers: dict[tuple[int, int, int], Any] = {}
        from OpenGL import GL  # type: ignore[import-untyped]

        self.device = GL.glGetString(GL.GL_RENDERER).decode()

    def buffer(self, model: Any, width: int, height: int, samples: int) -> Any:
        """The buffer of that size, made on first use; all models share their meshes and textures."""
        key = (width, height, samples)
        if key not in self.buffers:
            model.vis.global_.offwidth, model.vis.global_.offheight = width, height
            model.vis.quality.offsamples = samples
            context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50.value)
            self.buffers[key] = context
        # On every use: a context does not notice that another one has bound its buffer since.
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self.buffers[key])
        return self.buffers[key]

    def free(self) -> None:
        """Give everything back to the driver."""
        if self.pid == os.getpid():
            self.gl.make_current()
            for context in self.buffers.values():
                context.free()
            self.gl.free()
        self.buffers.clear()


_shared: _Shared | None = None


def _share() -> _Shared:
    global _shared
    if _shared is None or _shared.pid != os.getpid():  # a forked child cannot use its parent's context
        _shared = _Shared()
        atexit.register(_shared.free)
    return _shared


def egl_problem() -> str | None:
    """Why EGL cannot be used here, as one sentence; None when it works."""
    if sys.platform != "linux":
        return f"EGL rendering is only used on Linux, this is {sys.platform}"
    if not egl_libraries_present():
        return "libEGL.so.1 or libGL.so.1 is missing: apt-get install --no-install-recommends libegl1 libgl1"
    if os.environ.get("MUJOCO_GL", "").lower() != "egl":
        return f"MUJOCO_GL is {os.environ.get('MUJOCO_GL')!r}, not 'egl'"
    try:
        _share()
    except Exception as error:  # drivers raise many types; the sentence goes to the user
        return f"EGL would not start: {error}"
    return None


class GLRenderer:
    """Draws one model into the shared buffers."""

    def __init__(self, model: Any, max_geoms: int = 400) -> None:
        self._model = model
        self._scene = mujoco.MjvScene(model, maxgeom=max_geoms)
        for flag in ("SHADOW", "REFLECTION", "SKYBOX", "HAZE", "FOG"):
            self._scene.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{flag}").value] = 0
        self._option = mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED.value
        self._pixels: dict[tuple[int, int], NDArray[np.uint8]] = {}

    @property
    def name(self) -> str:
        """For the record: EGL and the device that draws."""
        return f"EGL ({_share().device})"

    def render(
        self, data: Any, camera_id: int, height: int, width: int, groups: tuple[int, ...], samples: int = 0
    ) -> NDArray[np.uint8]:
        """RGB (height, width, 3) of the geoms in ``groups``, seen by a camera of the model."""
        shared = _share()
        shared.gl.make_current()
        context = shared.buffer(self._model, width, height, samples)
        self._option.geomgroup[:] = 0
        self._option.geomgroup[list(groups)] = 1
        self._camera.fixedcamid = camera_id
        mujoco.mjv_updateScene(
            self._model, data, self._option, None, self._camera, mujoco.mjtCatBit.mjCAT_ALL.value, self._scene
        )
        area = mujoco.MjrRect(0, 0, width, height)
        mujoco.mjr_render(area, self._scene, context)
        pixels = self._pixels.setdefault((height, width), np.empty((height, width, 3), np.uint8))
        mujoco.mjr_readPixels(pixels, None, area, context)
        return np.ascontiguousarray(pixels[::-1])

    def close(self) -> None:
        """Nothing of its own to give back: the buffers are shared and live as long as the process."""
        self._pixels.clear()
