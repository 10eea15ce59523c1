"""Steps that compute in a narrow type and say so to nobody."""

import pytest
import torch

from mobile_vla.engine.backends.tensorrt_ import OUTPUTS as TAKEN
from mobile_vla.engine.jetson.plain import PlainStep, plain_inputs, plain_step
from mobile_vla.engine.onnx_ import OUTPUTS
from mobile_vla.policy.step import Inputs, step_of
from mobile_vla.policy.weights import SHIPPED, load_network


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_outside_of_a_narrow_step_all_is_float32(precision: str, frames: list[Inputs]) -> None:
    exact = step_of(load_network(SHIPPED))
    before = {name: each.clone() for name, each in exact.state_dict().items()}
    plain = plain_step(exact, precision)
    assert isinstance(plain, PlainStep)
    assert next(plain.parameters()).itemsize == 2
    assert {part.dtype for part in (*plain.read("go to the red cup"), plain.start())} == {torch.float32}
    with torch.inference_mode():
        given, wanted = plain(*plain_inputs(frames[0])), exact(*frames[0])
    for one, other in zip(given, wanted, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=0.1, atol=0.2)
    assert all(torch.equal(before[name], each) for name, each in exact.state_dict().items())


def test_outputs_are_called_as_the_graph_calls_them() -> None:
    assert TAKEN == OUTPUTS
