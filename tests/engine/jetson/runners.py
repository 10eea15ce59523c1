"""ONNX Runtime where a Jetson has TensorRT: it runs the same graph behind the same two words."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime
from numpy.typing import NDArray


class GraphRunner:
    """Inputs that are not given are as they were, as in ``build_engine.plan.PlanRunner``."""

    def __init__(self, graph: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        self._names = [each.name for each in self._session.get_outputs()]
        self._inputs: dict[str, NDArray[Any]] = {}
        self.given: list[set[str]] = []

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self.given.append(set(inputs))
        self._inputs |= inputs
        return dict(zip(self._names, self._session.run(self._names, self._inputs), strict=True))

    def close(self) -> None:
        self._inputs.clear()
