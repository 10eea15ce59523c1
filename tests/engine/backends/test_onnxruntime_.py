from pathlib import Path

import pytest

from engine.backends.arrays import Conformance, threads_more
from engine.cpu import Graph, opened
from mobile_vla.core import CheckpointError
from mobile_vla.engine.backends import backend
from mobile_vla.engine.backends.base import Making, Opening
from mobile_vla.engine.onnx_ import GRAPH
from mobile_vla.policy.step import Inputs, step_of
from mobile_vla.policy.weights import SHIPPED, load_network

pytestmark = [pytest.mark.timeout(1800), *map(pytest.mark.needs, ("mujoco", "onnx", "onnxruntime", "onnxscript"))]


class TestOnnxRuntime(Conformance):
    name = "onnxruntime"


def test_its_one_file_is_written_and_opened(tmp_path: Path, calibration: list[Inputs]) -> None:
    step, runs = step_of(load_network(SHIPPED)), backend("onnxruntime")
    runs.write(Making(step, "int8", 1, tmp_path, calibration[:8]))
    assert [each.name for each in tmp_path.iterdir()] == [GRAPH]
    runs.open(Opening(step, "int8", 1, tmp_path))


def test_a_damaged_graph_and_one_for_other_sessions_are_refused(graph: Graph, tmp_path: Path) -> None:
    step, runs = step_of(load_network(SHIPPED)), backend("onnxruntime")
    data = graph("fp32", 1).read_bytes()
    (tmp_path / GRAPH).write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match=r"decision\.onnx cannot be read by ONNX Runtime .*: export"):
        runs.open(Opening(step, "fp32", 1, tmp_path))
    (tmp_path / GRAPH).write_bytes(data)
    with pytest.raises(CheckpointError, match=r"takes pixels 1x96x192x3, .*decision takes pixels 4x96x192x3"):
        runs.open(Opening(step, "fp32", 4, tmp_path))


def test_it_has_no_more_threads_than_asked_for(graph: Graph, tmp_path: Path, real: list[Inputs]) -> None:
    one, two = (
        threads_more(lambda n=n: opened("onnxruntime", "fp32", graph, tmp_path, threads=n), real[0]) for n in (1, 2)
    )
    assert (one, two) == (0, 1)
