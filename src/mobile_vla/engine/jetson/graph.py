"""A decision as a graph that TensorRT parses: every type stands in the graph, and nothing is left to the builder.

TensorRT 11 knows typed graphs alone, TensorRT 10 knows both. So the precision is chosen here, not by the builder's
flags.
"""

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mobile_vla.core import ConfigError
from mobile_vla.engine.jetson.plain import PRECISIONS, PlainStep, plain_inputs, plain_step
from mobile_vla.engine.onnx_ import GRAPH, arrays, input_names, write_graph
from mobile_vla.policy.step import DecisionStep, Inputs

_OF_PATCHES = 4
"""Convolutions that cut a picture into patches, one a tower: fewer than this is no network of convolutions."""


def write_typed_graph(
    step: DecisionStep, folder: Path, precision: str, sessions: int = 1, calibration: Sequence[Inputs] = ()
) -> Path:
    """The graph below ``folder``, its weights of more than 2 GB beside it; the step stays as it is.

    int8: convolutions but the first, with ranges taken from ``calibration``, decisions of one session each; the rest
    is float32. ConfigError for an unknown precision, for int8 without calibration, and for int8 of a network with
    hardly a convolution; errors of ``onnx_.write_graph``.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"TensorRT is given no precision {precision!r}: choose among {', '.join(PRECISIONS)}")
    path = folder / GRAPH
    if precision != "int8":
        write_graph(plain_step(step, precision), path, sessions)
        return path
    if not calibration:
        raise ConfigError("an int8 engine needs real inputs to be calibrated on: give at least one")
    if sum(isinstance(each, nn.Conv2d) for each in step.modules()) <= _OF_PATCHES:
        raise ConfigError("int8 is for policies that see by convolutions, which this one does not: choose fp16")
    plain = plain_step(step, "fp32")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        write_graph(plain, Path(scratch) / GRAPH, sessions)
        _quantise(Path(scratch) / GRAPH, path, _Calibration(plain, batches(calibration, sessions)))
    return path


def batches(frames: Sequence[Inputs], sessions: int) -> list[Inputs]:
    """As many batches as frames: each frame with those that follow it, from the beginning again after the last."""
    if sessions == 1:
        return list(frames)
    made = []
    for place in range(len(frames)):
        together = [frames[(place + step) % len(frames)] for step in range(sessions)]
        made.append(
            Inputs(
                torch.cat([each.pixels for each in together]),
                tuple(torch.cat(parts) for parts in zip(*(each.words for each in together), strict=True)),
                torch.cat([each.motion for each in together]),
                torch.cat([each.history for each in together]),
            )
        )
    return made


class _Calibration:
    """What ONNX Runtime's quantisation calls a CalibrationDataReader."""

    def __init__(self, step: PlainStep, frames: Sequence[Inputs]) -> None:
        self._names, self._frames = input_names(step), iter(frames)

    def get_next(self) -> dict[str, NDArray[np.generic]] | None:
        frame = next(self._frames, None)
        return None if frame is None else arrays(plain_inputs(frame), self._names)


def _quantise(graph: Path, to: Path, calibration: Any) -> None:
    """Symmetric int8 and biases left alone, as TensorRT asks for.

    The first convolution sees the picture itself and stays as it is: with it, and the small products of memory and
    head, the shipped policy's commands were up to 15 % of the limits apart; without, 4 %.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    nodes = onnx.load(str(graph), load_external_data=False).graph.node
    convolutions = [node.name for node in nodes if node.op_type == "Conv"]
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it warns by the root logger that the graph was not preprocessed
    try:
        quantize_static(
            str(graph),
            str(to),
            calibration,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=convolutions[:1],
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
        )
    finally:
        root.setLevel(level)
