from collections.abc import Callable
from pathlib import Path

import pytest

from mobile_vla.core import ConfigError
from mobile_vla.policy.step import Inputs

pytestmark = [pytest.mark.timeout(1800), *map(pytest.mark.needs, ("mujoco", "onnx", "onnxruntime"))]


def test_the_picture_is_seen_in_bytes_and_the_memory_stays_in_float(graph: Callable[[str], Path]) -> None:
    import onnx

    model = onnx.load(str(graph("int8")))
    made_by = {name: node for node in model.graph.node for name in node.output}
    fed = {
        kind: [made_by[node.input[1]].op_type if node.input[1] in made_by else "float" for node in nodes]
        for kind in ("Conv", "MatMul", "Gemm")
        if (nodes := [node for node in model.graph.node if node.op_type == kind])
    }
    assert fed["Conv"] == ["DequantizeLinear"] * 12
    assert fed["MatMul"] == ["DequantizeLinear"] * 2
    assert fed["Gemm"] == ["float"] * 7
    assert graph("int8").stat().st_size < 0.8 * graph("fp32").stat().st_size


def test_ranges_need_decisions(graph: Callable[[str], Path], tmp_path: Path, real: list[Inputs]) -> None:
    from mobile_vla.engine.quantise import quantise

    with pytest.raises(ConfigError, match=r"int8 needs real decisions .*at least 2: got 1"):
        quantise(graph("fp32"), tmp_path / "int8.onnx", real[:1], (), sessions=2)
    assert not any(tmp_path.iterdir())
