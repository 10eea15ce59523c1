"""Graphs for TensorRT: their types, what they refuse, and that they say what the policy says."""

from pathlib import Path

import onnx
import pytest
import torch

from engine.jetson.runners import GraphRunner
from engine.little import little
from mobile_vla.core import ConfigError
from mobile_vla.engine.jetson.graph import batches, write_typed_graph
from mobile_vla.engine.jetson.plain import PRECISIONS, plain_inputs
from mobile_vla.engine.onnx_ import GRAPH, OUTPUTS, arrays, input_names
from mobile_vla.policy.step import Inputs, step_of
from mobile_vla.policy.weights import SHIPPED, load_network

pytestmark = pytest.mark.timeout(900)

ONNX_OF_JETPACK_6 = range(9, 21)
FLOAT, UINT8, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8, onnx.TensorProto.INT64


def types(graph: onnx.GraphProto) -> dict[str, int]:
    return {each.name: each.type.tensor_type.elem_type for each in (*graph.input, *graph.output)}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_graph_is_of_a_kind_that_tensorrt_reads(folders, precision: str) -> None:
    model = onnx.load(str(folders(precision) / GRAPH))
    found = types(model.graph)
    assert found.pop("pixels") == UINT8
    assert set(found.values()) == {FLOAT}
    assert all(each.version in ONNX_OF_JETPACK_6 for each in model.opset_import if each.domain in ("", "ai.onnx"))
    assert {each.domain for each in model.graph.node} <= {"", "ai.onnx"}
    readers = [node.op_type for node in model.graph.node if "pixels" in node.input]
    assert readers == ["Cast"], "TensorRT does nothing with uint8 but make it float"
    shapes = [dim for each in (*model.graph.input, *model.graph.output) for dim in each.type.tensor_type.shape.dim]
    assert all(dim.HasField("dim_value") for dim in shapes)


def test_fp16_keeps_its_weights_in_half_the_bytes(folders) -> None:
    sizes = {}
    for precision in ("fp16", "fp32"):
        model = onnx.load(str(folders(precision) / GRAPH))
        sizes[precision] = sum(len(each.raw_data) for each in model.graph.initializer)
    assert 0.45 < sizes["fp16"] / sizes["fp32"] < 0.6


def test_int8_is_symmetric_and_leaves_the_first_convolution_and_all_biases(folders) -> None:
    graph = onnx.load(str(folders("int8") / GRAPH)).graph
    zeros = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    made = {output: node for node in graph.node for output in node.output}
    quantised = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert quantised
    assert all(zeros[node.input[2]].dtype.name == "int8" and not zeros[node.input[2]].any() for node in quantised)
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    from_int8 = [made[node.input[1]].op_type == "DequantizeLinear" for node in convolutions if node.input[1] in made]
    assert len(from_int8) == len(convolutions) - 1
    assert all(from_int8)
    biases = [node.input[2] for node in convolutions if len(node.input) > 2]
    assert all(name in zeros and zeros[name].dtype.name == "float32" for name in biases)


def test_a_full_size_policy_says_the_same_as_a_graph_of_two_sessions(tmp_path: Path) -> None:
    step = step_of(little("kosmos_lstm, words first"))
    torch.manual_seed(1)
    frames = [
        Inputs(torch.randint(0, 256, (1, *step.size, 3), dtype=torch.uint8), step.read(text), torch.randn(1, 8), start)
        for text, start in (("go to the red cup", step.start()), ("파란 의자로 가", torch.randn_like(step.start())))
    ]
    graph = write_typed_graph(step, tmp_path, "fp32", 2)
    names = input_names(step)
    assert types(onnx.load(str(graph)).graph)["words_1"] == INT64
    first, second = batches(frames, 2)
    assert torch.equal(first.pixels, second.pixels.flip(0))
    with torch.inference_mode():
        wanted = step(*first)
    given = GraphRunner(graph).run(arrays(plain_inputs(first), names))
    for name, each in zip(OUTPUTS, wanted, strict=True):
        torch.testing.assert_close(torch.from_numpy(given[name]), each, rtol=1e-3, atol=2e-4)


def test_what_cannot_be_had_is_refused(tmp_path: Path, frames: list[Inputs]) -> None:
    step = step_of(load_network(SHIPPED))
    with pytest.raises(ConfigError, match="TensorRT is given no precision 'bf16': choose among fp16, int8, fp32"):
        write_typed_graph(step, tmp_path, "bf16")
    with pytest.raises(ConfigError, match="needs real inputs to be calibrated on"):
        write_typed_graph(step, tmp_path, "int8")
    patches = step_of(little("clip_lstm, without end"))
    with pytest.raises(ConfigError, match="int8 is for policies that see by convolutions"):
        write_typed_graph(patches, tmp_path, "int8", calibration=[patches.example(1)])
    assert not list(tmp_path.iterdir())
