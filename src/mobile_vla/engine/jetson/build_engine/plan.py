"""TensorRT: from a graph to a plan, and a plan that is run. All calls of its library stand here."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .cuda import Buffer, BuildError, Cuda, Stream

OLDEST = (10, 0)
_TYPES = {"FLOAT": np.float32, "HALF": np.float16, "UINT8": np.uint8, "INT64": np.int64, "INT32": np.int32}


def tensorrt() -> Any:
    """The library. BuildError where it is not installed or too old."""
    try:
        library = importlib.import_module("tensorrt")
    except ImportError as error:
        raise BuildError(
            f"TensorRT cannot be imported ({error}): on a Jetson, apt-get install python3-libnvinfer, or use a "
            "container that has it; a virtual environment needs --system-site-packages"
        ) from error
    version = tuple(int(part) for part in library.__version__.split(".")[:2])
    if version < OLDEST:
        raise BuildError(
            f"TensorRT {library.__version__} is too old, it must be 10.0 or newer: use JetPack 6.1 or newer"
        )
    return library


def parsed(library: Any, graph: Path) -> tuple[Any, Any, Any]:
    """A builder, the network that the graph says, with every type as the graph has it, and what owns its weights.

    BuildError, with the parser's own words, for a graph that TensorRT cannot take.
    """
    builder = library.Builder(library.Logger(library.Logger.WARNING))
    flags = library.NetworkDefinitionCreationFlag
    typed = getattr(flags, "STRONGLY_TYPED", None)  # once all networks are typed, the flag may go
    network = builder.create_network(0 if typed is None else 1 << int(typed))
    parser = library.OnnxParser(network, library.Logger(library.Logger.WARNING))
    if not parser.parse_from_file(str(graph)):
        said = "; ".join(parser.get_error(place).desc() for place in range(parser.num_errors))
        raise BuildError(f"TensorRT {library.__version__} cannot read {graph} ({said}): export it with fewer novelties")
    return builder, network, parser


def build(
    library: Any, graph: Path, workspace_bytes: int, level: int, cache: bytes, exact: bool
) -> tuple[bytes, bytes]:
    """The plan, and what was learned of the speed of kernels, for the next time. It takes minutes.

    ``level``: how long the builder searches, 0 to 5. ``cache``: what an earlier build on this machine learned, or
    nothing. ``exact``: float32 is float32, not TF32. BuildError where TensorRT gives up.
    """
    builder, network, _owner = parsed(library, graph)  # the parser has to live until the plan is built
    config = builder.create_builder_config()
    config.set_memory_pool_limit(library.MemoryPoolType.WORKSPACE, workspace_bytes)
    config.builder_optimization_level = level
    if exact:
        config.clear_flag(library.BuilderFlag.TF32)
    learned = config.create_timing_cache(cache)
    config.set_timing_cache(learned, False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildError(
            f"TensorRT {library.__version__} cannot build an engine of {graph}: its reason stands above; "
            "with too little memory, try a smaller --workspace-mib or close other programs"
        )
    return bytes(plan), bytes(learned.serialize())


class PlanRunner:
    """A plan ready to run: buffers allocated once, one stream, and its kernels recorded as one launch.

    ``unrecorded``: why CUDA could not record them, if so; each kernel is then launched by itself. BuildError for a
    plan that this TensorRT cannot use.
    """

    def __init__(self, library: Any, plan: bytes, cuda: Cuda) -> None:
        self._cuda = cuda
        self._runtime = library.Runtime(library.Logger(library.Logger.WARNING))
        self._runtime.engine_host_code_allowed = False
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise BuildError(f"TensorRT {library.__version__} cannot use this plan: build the engine again")
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise BuildError("the GPU has too little memory left for this engine: close other programs")
        self.stream = Stream(cuda)
        self.inputs: dict[str, Buffer] = {}
        self.outputs: dict[str, Buffer] = {}
        for place in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(place)
            kind = self._engine.get_tensor_dtype(name).name
            if kind not in _TYPES:
                raise BuildError(
                    f"{name} of this plan is of type {kind}, which is not expected: build the engine again"
                )
            buffer = Buffer(cuda, tuple(self._engine.get_tensor_shape(name)), _TYPES[kind])
            is_input = self._engine.get_tensor_mode(name) == library.TensorIOMode.INPUT
            (self.inputs if is_input else self.outputs)[name] = buffer
            self._context.set_tensor_address(name, buffer.device.value)
        self._ready: Any = None
        self.unrecorded = ""
        self._record()

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """New arrays. Inputs that are not given are as they were the last time."""
        for name, values in inputs.items():
            buffer = self.inputs[name]
            np.copyto(buffer.host, values, casting="same_kind")
            buffer.up(self.stream)
        if self._ready is None:
            self._enqueue()
        else:
            self.stream.launch(self._ready)
        for buffer in self.outputs.values():
            buffer.down(self.stream)
        self.stream.wait()
        return {name: buffer.host.copy() for name, buffer in self.outputs.items()}

    def close(self) -> None:
        """Give everything back."""
        if self._ready is not None:
            self._cuda.call("cudaGraphExecDestroy", self._ready)
        for buffer in (*self.inputs.values(), *self.outputs.values()):
            buffer.close()
        self.stream.close()
        del self._context, self._engine, self._runtime

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self.stream.handle.value):
            raise BuildError("TensorRT cannot run this plan: its reason stands above")

    def _record(self) -> None:
        """Once outside of a recording, as TensorRT asks for; then recorded."""
        for buffer in self.inputs.values():
            buffer.host.fill(0)
            buffer.up(self.stream)
        self._enqueue()
        self.stream.wait()
        try:
            self.stream.record()
            self._enqueue()
            self._ready = self.stream.recorded()
        except BuildError as error:
            self.stream.abandon()
            self.unrecorded = str(error)
