"""ONNX Runtime on the CPU, in float32 and with bytes."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mobile_vla.core import CheckpointError
from mobile_vla.engine.backends.base import ArrayEngine, Backend, Making, Opening
from mobile_vla.engine.onnx_ import GRAPH, OUTPUTS, arrays, input_names, write_graph

_ERRORS_ALONE = 3


class OnnxRuntimeBackend(Backend):
    """One file, ``decision.onnx``."""

    name: ClassVar = "onnxruntime"
    precisions: ClassVar = ("fp32", "int8")
    needs: ClassVar = ("torch", "onnx", "onnxscript", "onnxruntime")
    extra: ClassVar = "engines"
    libraries: ClassVar = ("onnxruntime",)

    def write(self, making: Making) -> None:
        """The graph; with bytes, from the graph in float32, which goes again."""
        write_decision(making, making.folder / GRAPH)

    def open(self, opening: Opening) -> "OnnxRuntimeEngine":
        """See ``Backend``."""
        return OnnxRuntimeEngine(opening)


class OnnxRuntimeEngine(ArrayEngine):
    """A session with exactly ``threads`` threads, the caller's among them, that sleep between two decisions."""

    def __init__(self, opening: Opening) -> None:
        import onnxruntime

        super().__init__(opening.step, opening.sessions)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = opening.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ALONE
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = opening.folder / GRAPH
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # it has a class of its own for each way to fail
            raise unreadable(path, "ONNX Runtime", error) from error
        self._names = input_names(opening.step)
        wanted = {
            name: each.shape for name, each in arrays(opening.step.example(opening.sessions), self._names).items()
        }
        require_shapes(path, wanted, {each.name: tuple(each.shape) for each in self._session.get_inputs()})

    def run(
        self,
        pixels: NDArray[np.uint8],
        words: tuple[NDArray[Any], ...],
        motion: NDArray[np.float32],
        history: NDArray[Any],
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[Any]]:
        """See ``ArrayEngine``; each call has new outputs."""
        fed = dict(zip(self._names, (pixels, *words, motion, history), strict=True))
        chunk, status, belief, after = self._session.run(OUTPUTS, fed)
        return chunk, status, belief, after


def write_decision(making: Making, path: Path) -> None:
    """The graph in the precision, fp32 or int8."""
    if making.precision != "int8":
        write_graph(making.step, path, making.sessions)
        return
    from mobile_vla.engine.quantise import quantise

    exact = path.with_name("exact.onnx")
    try:
        write_graph(making.step, exact, making.sessions)
        quantise(exact, path, making.calibration, input_names(making.step), making.sessions)
    finally:
        for each in (exact, exact.with_name(f"{exact.name}.data")):
            each.unlink(missing_ok=True)


def unreadable(path: Path, library: str, error: Exception) -> CheckpointError:
    """A file that the library does not take."""
    return CheckpointError(
        f"{path} cannot be read by {library} ({str(error).strip().splitlines()[-1][:200] or type(error).__name__}): "
        "export the engine again"
    )


def require_shapes(path: Path, wanted: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]]) -> None:
    """CheckpointError where a graph does not take what this policy's decision takes."""
    if wanted != found:
        raise CheckpointError(
            f"{path} takes {_listed(found)}, this policy's decision takes {_listed(wanted)}: it was made from another "
            "policy or for another number of sessions; export the engine again"
        )


def _listed(shapes: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())
