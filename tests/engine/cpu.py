"""The shipped policy in each engine of the CPU, out of graphs that are made once."""

import shutil
from collections.abc import Callable
from pathlib import Path

from mobile_vla.engine.backends import backend
from mobile_vla.engine.backends.base import Engine, Opening
from mobile_vla.engine.onnx_ import GRAPH
from mobile_vla.policy.step import step_of
from mobile_vla.policy.weights import SHIPPED, load_network

Graph = Callable[[str, int], Path]


def opened(name: str, precision: str, graph: Graph, folder: Path, sessions: int = 1, threads: int = 1) -> Engine:
    folder.mkdir(exist_ok=True)
    stored = "int8" if precision == "int8" else "fp32"
    if name == "onnxruntime":
        shutil.copy(graph(stored, sessions), folder / GRAPH)
    if name == "openvino":
        from mobile_vla.engine.backends.openvino_ import MODEL, write_model

        write_model(graph(stored, sessions), folder / MODEL)
    step = step_of(load_network(SHIPPED))
    return backend(name).open(Opening(step, precision, sessions, folder, threads))
