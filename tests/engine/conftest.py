"""Made once for all tests of engines: decisions that the shipped policy really met, and its graphs."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mobile_vla.engine.agreement import Answers, reference
from mobile_vla.engine.inputs import FIRST_TAUGHT_SEED, driven_inputs
from mobile_vla.engine.onnx_ import input_names, write_graph
from mobile_vla.policy.step import Inputs, step_of
from mobile_vla.policy.weights import SHIPPED, load_network

FRAMES = 200


@pytest.fixture(scope="session")
def real() -> list[Inputs]:
    return driven_inputs(SHIPPED, FRAMES, 500_000)


@pytest.fixture(scope="session")
def calibration() -> list[Inputs]:
    return driven_inputs(SHIPPED, 48, FIRST_TAUGHT_SEED)


@pytest.fixture(scope="session")
def exact(real: list[Inputs]) -> Answers:
    return reference(SHIPPED, real)


@pytest.fixture(scope="session")
def graph(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Callable[[str, int], Path]:
    """The shipped policy's graph in fp32 or int8, for so many sessions; made when it is first asked for."""
    folder = tmp_path_factory.mktemp("graphs")

    def made(precision: str, sessions: int = 1) -> Path:
        path = folder / f"{precision}-{sessions}.onnx"
        if not path.exists():
            step = step_of(load_network(SHIPPED))
            if precision == "fp32":
                write_graph(step, path, sessions)
            else:
                from mobile_vla.engine.quantise import quantise

                calibration = request.getfixturevalue("calibration")
                quantise(made("fp32", sessions), path, calibration, input_names(step), sessions)
        return path

    return made
