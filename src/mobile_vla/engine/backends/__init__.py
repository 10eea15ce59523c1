"""What runs a decision: one file an engine. A new one is a class with the methods of ``Backend`` and a line here."""

from importlib import import_module
from importlib.util import find_spec
from typing import cast

from mobile_vla.core import ConfigError
from mobile_vla.engine.backends.base import Backend
from mobile_vla.robot.registry import nearest

_WHERE = {
    "torch": "torch_:TorchBackend",
    "compile": "compiled:CompiledBackend",
    "onnxruntime": "onnxruntime_:OnnxRuntimeBackend",
    "openvino": "openvino_:OpenVinoBackend",
    "cudagraph": "cuda_graph:CudaGraphBackend",
    "cudagraph_compiled": "cuda_graph:CompiledGraphBackend",
    "tensorrt": "tensorrt_:TensorRtBackend",
}
NAMES = tuple(_WHERE)


def backend(name: str) -> Backend:
    """By name. ConfigError for an unknown one, and for one whose library is not installed here."""
    if name not in _WHERE:
        raise ConfigError(f"there is no engine called {name!r}{nearest(name, NAMES)}")
    module, _, attribute = _WHERE[name].partition(":")
    found = cast("type[Backend]", getattr(import_module(f"{__name__}.{module}"), attribute))
    missing = [each for each in found.needs if find_spec(each) is None]
    if missing:
        raise ConfigError(
            f"the engine {name} needs {', '.join(missing)}, which is not installed here: "
            f'pip install -e ".[{found.extra}]" in the checkout of mobile-vla'
        )
    return found()
