"""OpenVINO on the CPU: in float32, in bfloat16 where the processor multiplies in it, and with bytes."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mobile_vla.core import CheckpointError
from mobile_vla.engine.backends.base import ArrayEngine, Backend, Making, Opening
from mobile_vla.engine.backends.onnxruntime_ import require_shapes, unreadable, write_decision
from mobile_vla.engine.onnx_ import OUTPUTS, arrays, input_names

MODEL = "decision.xml"
"""The operations; the weights stand beside them in ``decision.bin``."""

_TELLS = "openvino_telemetry"
_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
"""Of what is not bytes. By itself OpenVINO rounds float32 to bfloat16 wherever the processor can multiply in it."""


def library() -> Any:
    """The module ``openvino``, without its habit of telling its makers over the network that it was imported.

    It does so by another package, without which it is silent.
    """
    if "openvino" not in sys.modules:
        sys.modules[_TELLS] = None  # type: ignore[assignment]  # as if it were not installed
        try:
            import openvino
        finally:
            del sys.modules[_TELLS]
    import openvino

    return openvino


class OpenVinoBackend(Backend):
    """Two files, ``decision.xml`` and ``decision.bin``."""

    name: ClassVar = "openvino"
    precisions: ClassVar = ("fp32", "bf16", "int8")
    needs: ClassVar = ("torch", "onnx", "onnxscript", "openvino")
    extra: ClassVar = "engines"
    libraries: ClassVar = ("openvino",)

    def unusable(self, precision: str) -> str:
        """See ``Backend``."""
        openvino = library()
        if precision == "bf16" and "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            return "this processor has no arithmetic in bfloat16"
        if precision == "int8" and find_spec("onnxruntime") is None:
            return "onnxruntime, which finds the ranges for int8, is not installed"
        return ""

    def write(self, making: Making) -> None:
        """By way of an ONNX graph, which goes again."""
        graph = making.folder / "graph.onnx"
        try:
            write_decision(making, graph)
            write_model(graph, making.folder / MODEL)
        finally:
            for each in (graph, graph.with_name(f"{graph.name}.data")):
                each.unlink(missing_ok=True)

    def open(self, opening: Opening) -> "OpenVinoEngine":
        """See ``Backend``."""
        return OpenVinoEngine(opening)


class OpenVinoEngine(ArrayEngine):
    """One request whose inputs stand in memory of its own, on the caller's thread and ``threads`` - 1 others."""

    def __init__(self, opening: Opening) -> None:
        openvino = library()
        super().__init__(opening.step, opening.sessions)
        path, names = opening.folder / MODEL, input_names(opening.step)
        core = openvino.Core()
        try:
            model = core.read_model(path)
            found = {each.get_any_name(): tuple(each.shape) for each in model.inputs}
        except RuntimeError as error:
            raise unreadable(path, "OpenVINO", error) from error
        example = arrays(opening.step.example(opening.sessions), names)
        require_shapes(path, {name: each.shape for name, each in example.items()}, found)
        self._compiled = core.compile_model(
            model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": _HINTS[opening.precision],
                "INFERENCE_NUM_THREADS": opening.threads,
                "NUM_STREAMS": 1,
                "ENABLE_CPU_PINNING": False,
            },
        )
        self._request = self._compiled.create_infer_request()
        self._tensors = {name: openvino.Tensor(each) for name, each in example.items()}
        for name, tensor in self._tensors.items():
            self._request.set_tensor(name, tensor)
        self._inputs = [self._tensors[name].data for name in names]
        self._outputs = [self._request.get_tensor(name).data for name in OUTPUTS]

    def run(
        self,
        pixels: NDArray[np.uint8],
        words: tuple[NDArray[Any], ...],
        motion: NDArray[np.float32],
        history: NDArray[Any],
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[Any]]:
        """See ``ArrayEngine``; the outputs are copies, the request writes into the same memory each time."""
        for place, given in zip(self._inputs, (pixels, *words, motion, history), strict=True):
            place[...] = given
        self._request.infer(share_outputs=True)
        chunk, status, belief, after = (each.copy() for each in self._outputs)
        return chunk, status, belief, after


def write_model(graph: Path, path: Path) -> None:
    """An ONNX graph in OpenVINO's own form, which loads faster. CheckpointError where it cannot be read or written."""
    openvino = library()
    try:
        openvino.save_model(openvino.Core().read_model(graph), path, compress_to_fp16=False)
    except RuntimeError as error:
        said = str(error).strip().splitlines()[-1][:200]
        raise CheckpointError(f"OpenVINO cannot make {path} of {graph.name} ({said})") from error


def model_parameters(path: Path) -> int:
    """Numbers that the model's weights hold, each once; a few small constants are among them.

    CheckpointError where it is no model of OpenVINO.
    """
    openvino = library()
    try:
        model = openvino.Core().read_model(path)
    except RuntimeError as error:
        raise unreadable(path, "OpenVINO", error) from error
    constants = [each.output(0) for each in model.get_ops() if each.get_type_name() == "Constant"]
    wide = openvino.Type.i64
    return sum(int(np.prod(each.shape)) for each in constants if each.element_type != wide and len(each.shape))
