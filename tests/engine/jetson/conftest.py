"""Frames of real drives, and folders prepared for a Jetson from the shipped policy."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mobile_vla.engine.inputs import FIRST_TAUGHT_SEED, driven_inputs
from mobile_vla.engine.jetson.prepare import prepare_for_jetson
from mobile_vla.policy.step import Inputs
from mobile_vla.policy.weights import SHIPPED

COUNT = 16
REPLACING = "fp32"


@pytest.fixture(scope="session")
def frames() -> list[Inputs]:
    return driven_inputs(SHIPPED, COUNT, seed=3)


@pytest.fixture(scope="session")
def taught() -> list[Inputs]:
    return driven_inputs(SHIPPED, COUNT, seed=FIRST_TAUGHT_SEED)


@pytest.fixture(scope="session")
def folders(
    tmp_path_factory: pytest.TempPathFactory, frames: list[Inputs], taught: list[Inputs]
) -> Callable[[str], Path]:
    """By precision; each is made once, that of REPLACING in the place of an older one."""
    made: dict[str, Path] = {}

    def folder(precision: str) -> Path:
        if precision not in made:
            made[precision] = tmp_path_factory.mktemp("jetson") / precision
            if precision == REPLACING:
                shutil.copytree(folder("fp16"), made[precision])
                (made[precision] / "old").touch()
            prepare_for_jetson(SHIPPED, made[precision], frames, precision, calibration=taught, notes={"by": "a test"})
        return made[precision]

    return folder


@pytest.fixture
def folder(folders: Callable[[str], Path], tmp_path: Path) -> Path:
    """One of fp16, to do harm to."""
    shutil.copytree(folders("fp16"), tmp_path / "copy")
    return tmp_path / "copy"
