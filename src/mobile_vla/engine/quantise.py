"""A graph whose work on the picture is done in bytes: one of 8 bits for each weight and for each number between.

Weights have a scale for each output channel, signed; numbers between operations are unsigned, with ranges that cover
all but one in a hundred thousand of the values met in real decisions. What is done once for each place of the picture
is quantised: convolutions, and products with a fixed matrix over many rows. What is done once for a decision, the
memory and its heads, stays in float: it is little work, and its errors would go straight into the wheels.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from mobile_vla.core import ConfigError
from mobile_vla.engine.fingerprint import has_instruction
from mobile_vla.engine.inputs import batched
from mobile_vla.engine.onnx_ import LARGE, arrays, weight_bytes
from mobile_vla.policy.step import Inputs

COVERED = 99.999
"""Per cent of the values that a range holds: the few beyond are cut off, which is better than coarse steps for all."""
MOST = 256
"""Decisions that are looked at: more change nothing and take memory."""

_SATURATION_FREE = ("avx512_vnni", "avx_vnni", "amx_int8", "asimd")
_WITH_BYTES = ("Conv", "MatMul")


def quantise(graph: Path, out: Path, calibration: Sequence[Inputs], names: tuple[str, ...], sessions: int = 1) -> None:
    """Write the graph with bytes to ``out``, as pairs of QuantizeLinear and DequantizeLinear that engines fuse.

    ``calibration``: real inputs of one session each. ConfigError where they are fewer than ``sessions``.
    """
    if len(calibration) < sessions:
        raise ConfigError(
            f"int8 needs real decisions to find its ranges, at least {sessions}: got {len(calibration)}; let "
            "mobile-vla export drive for them, or give recorded ones with --data DIR"
        )
    model = onnx.load(str(graph), load_external_data=False)
    large = weight_bytes(model) > LARGE
    with _silent():
        quantize_static(
            str(graph),
            str(out),
            _Reader(calibration[:MOST], names, sessions),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_WITH_BYTES),
            nodes_to_quantize=_with_fixed_weights(model),
            per_channel=True,
            reduce_range=not has_instruction(*_SATURATION_FREE),
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            use_external_data_format=large,
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={"CalibPercentile": COVERED},
        )


def _with_fixed_weights(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that multiply by weights; attention multiplies what was computed."""
    fixed = {each.name for each in model.graph.initializer}
    return [
        node.name for node in model.graph.node if node.op_type in _WITH_BYTES and fixed.intersection(node.input[:2])
    ]


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Real decisions, as many at once as the graph takes."""

    def __init__(self, calibration: Sequence[Inputs], names: tuple[str, ...], sessions: int) -> None:
        starts = range(0, len(calibration) - sessions + 1, sessions)
        self._feeds = iter([arrays(batched(calibration[start : start + sessions]), names) for start in starts])

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """It prints how far it has come, and logs advice to the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
