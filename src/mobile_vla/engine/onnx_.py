"""One decision as an ONNX graph of static shapes: weights and operations, no code."""

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray

from mobile_vla.checkpoint.atomic import replacing
from mobile_vla.core import CheckpointError
from mobile_vla.policy.step import DecisionStep, Inputs

if TYPE_CHECKING:
    import onnx

GRAPH = "decision.onnx"
"""The file's name in the folder of an engine."""
OUTPUTS = ("chunk", "status", "belief", "next_history")
LARGE = 1_500_000_000
"""Bytes of weights beyond which they stand in a file beside the graph: protobuf ends at 2 GB."""

_OPSET = 18
_WEIGHTS = ("FLOAT", "FLOAT16", "BFLOAT16", "INT8", "UINT8", "INT32")
"""Types that weights and, where quantised, biases have; shapes and places are 64 bits wide."""


def input_names(step: DecisionStep) -> tuple[str, ...]:
    """In the order of ``flat``: pixels, words_0, words_1 ..., motion, history."""
    words = (f"words_{place}" for place in range(len(step.read("stop"))))
    return ("pixels", *words, "motion", "history")


def flat(inputs: Inputs) -> tuple[torch.Tensor, ...]:
    """The words among the others, in the order of ``input_names``."""
    return (inputs.pixels, *inputs.words, inputs.motion, inputs.history)


def arrays(inputs: Inputs, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """As an engine of ONNX is fed."""
    return {name: tensor.numpy() for name, tensor in zip(names, flat(inputs), strict=True)}


def write_graph(step: DecisionStep, path: Path, sessions: int = 1) -> None:
    """The decision of ``sessions`` sessions, in float32, checked by ONNX's own checker; whole or not there.

    Weights of more than protobuf can hold go into ``<name>.data`` beside it, before it. CheckpointError for a full or
    broken disk.
    """
    import onnx

    with _silent(), torch.no_grad():
        program = torch.onnx.export(
            step,
            tuple(step.example(sessions)),
            dynamo=True,
            opset_version=_OPSET,
            input_names=list(input_names(step)),
            output_names=list(OUTPUTS),
            verbose=False,
        )
        assert program is not None  # with dynamo it always is one
        model = program.model_proto
    if weight_bytes(model) > LARGE:
        try:
            onnx.save_model(model, str(path), save_as_external_data=True, location=f"{path.name}.data")
        except OSError as error:
            raise CheckpointError(f"cannot write {path}: {error.strerror or error}") from error
    else:
        with replacing(path) as file:
            file.write(model.SerializeToString())
    onnx.checker.check_model(str(path), full_check=True)


def weight_bytes(model: "onnx.ModelProto") -> int:
    """Of all constants of a graph, in whatever file they stand."""
    import onnx

    return sum(
        math.prod(each.dims) * onnx.helper.tensor_dtype_to_np_dtype(each.data_type).itemsize
        for each in model.graph.initializer
    )


def graph_parameters(path: Path) -> int:
    """Numbers that the graph's weights hold, each once; a few small constants of the arithmetic are among them.

    A network's own count is a little smaller, or, where it has parts that serve no decision, larger: a graph of
    another network is another size altogether. CheckpointError where it is no ONNX graph.
    """
    import onnx

    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf has errors of its own
        raise CheckpointError(f"{path} is no ONNX graph ({type(error).__name__}): export the engine again") from error
    weights = {onnx.TensorProto.DataType.Value(name) for name in _WEIGHTS}
    return sum(math.prod(each.dims) for each in model.graph.initializer if each.data_type in weights and each.dims)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """The exporter talks on every channel there is."""
    quiet = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    before = [each.level for each in quiet]
    for each in quiet:
        each.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for each, level in zip(quiet, before, strict=True):
            each.setLevel(level)
