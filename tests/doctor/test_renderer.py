import pytest

from mobile_vla.doctor import renderer
from mobile_vla.doctor.check import State
from mobile_vla.doctor.machine import Python, look_at_python
from mobile_vla.doctor.process import Answer

from .lines import sound
from .purposes import SIMULATED, with_robot

EGL = {"renderer": "EGL (llvmpipe)", "egl_problem": None, "sees": True}


@pytest.mark.parametrize(
    ("answer", "state", "said"),
    [
        (Answer(EGL), State.OK, "drawn by EGL"),
        (Answer({**EGL, "sees": False}), State.FAIL, "empty"),
        (Answer(None, "the process was ended by SIGSEGV"), State.FAIL, "SIGSEGV"),
        (
            Answer(
                {"renderer": "rays", "egl_problem": "libEGL.so.1 or libGL.so.1 is missing: apt-get x", "sees": True}
            ),
            State.WARN,
            "is missing; drawn by rays",
        ),
        (Answer({"renderer": "rays", "egl_problem": "MUJOCO_GL is 'disable'", "sees": True}), State.WARN, "MUJOCO_GL"),
        (None, State.NOT_NEEDED, "not installed"),
    ],
)
def test_what_draws_is_judged(answer, state, said):
    check = renderer.judge_renderer(answer, SIMULATED)
    assert check.state is state
    assert said in check.found
    sound(check)


def test_a_real_robot_draws_nothing():
    assert renderer.look_at_renderer(look_at_python(), with_robot()) is None
    assert "nothing simulated" in renderer.judge_renderer(None, with_robot()).found


def test_without_the_simulator_nobody_asks():
    bare = Python((3, 10, 12), "aarch64", 64, frozenset({"mujoco"}))
    assert renderer.look_at_renderer(bare, SIMULATED) is None
    assert renderer.judge_renderer(None, SIMULATED).state is State.NOT_NEEDED


@pytest.mark.needs("mujoco")
def test_this_machine_draws():
    check = renderer.judge_renderer(renderer.look_at_renderer(look_at_python(), SIMULATED), SIMULATED)
    assert check.state in (State.OK, State.WARN)
    assert "drawn by" in check.found
