import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mobile_vla.core import ConfigError
from mobile_vla.engine.fused.narrow import PRECISIONS, Form, Fp8Linear, Int8Linear, Int8WeightsLinear

NARROW = {"fp8": Fp8Linear, "int8": Int8Linear, "int8_weights": Int8WeightsLinear}
STEP = {"fp8": 2.0**-4, "int8": 0.5 / 127, "int8_weights": 0.5 / 127}
"""The most that rounding moves a number: of itself for fp8, which has four bits; of its row's largest for int8."""


def exactly(kind, weight, bias, x):
    """What a layer computes by definition, in float64."""
    most, small = (448.0, torch.float8_e4m3fn) if kind == "fp8" else (127.0, torch.int8)

    def rounded(rows):
        rows = rows.float()
        scale = rows.abs().amax(dim=-1, keepdim=True).clamp(min=1e-12) / most
        divided = rows / scale
        return (divided if kind == "fp8" else divided.round()).to(small).double() * scale.double()

    left = x.double() if kind == "int8_weights" else rounded(x)
    return left @ rounded(weight).t() + bias.double()


def drawn(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator) * torch.logspace(-1, 1, shape[0])[:, None]


@pytest.mark.parametrize("kind", NARROW)
@settings(max_examples=20)
@given(st.integers(1, 40), st.sampled_from([16, 48, 96]), st.sampled_from([16, 64]), st.integers(0, 10_000))
def test_a_layer_computes_what_it_says(kind, rows, inputs, outputs, seed):
    weight, x = drawn(seed, outputs, inputs), drawn(seed + 1, rows, inputs).bfloat16()
    bias = drawn(seed + 2, outputs, 1)[:, 0].bfloat16().float()
    layer = NARROW[kind](weight, bias)
    expected = exactly(kind, weight, bias, x)
    found = layer(x)
    assert found.dtype == torch.bfloat16
    terms = x.double().abs() @ weight.double().abs().t() + bias.abs()
    slack = 2.0**-8 if kind == "int8_weights" else 2.0**-16  # where products of bfloat16 are made
    assert ((found.double() - expected).abs() <= 2.0**-7 * expected.abs() + slack * terms + 1e-6).all()


@pytest.mark.parametrize("kind", NARROW)
def test_a_layer_stays_near_the_one_it_was_made_from(kind):
    weight, x = drawn(1, 64, 256), drawn(2, 30, 256)
    found = NARROW[kind](weight, None)(x.bfloat16()).double()
    expected = x.double() @ weight.double().t()
    assert (found - expected).norm() / expected.norm() < 1.5 * STEP[kind] * (1 if kind == "fp8" else 4)
    assert (found - expected).norm() > 0


@pytest.mark.parametrize("kind", NARROW)
def test_tokens_stand_where_they_stood(kind):
    layer = NARROW[kind](drawn(3, 32, 16), None)
    x = drawn(4, 2 * 3 * 5, 16).bfloat16().view(2, 3, 5, 16)
    assert torch.equal(layer(x)[1, 2, 3], layer(x[1, 2, 3:4])[0])


@pytest.mark.parametrize("kind", NARROW)
def test_a_row_of_zeros_gives_the_bias_and_what_is_no_number_is_not_hidden(kind):
    layer = NARROW[kind](drawn(5, 32, 16), torch.arange(32.0))
    assert torch.equal(layer(torch.zeros(17, 16, dtype=torch.bfloat16))[3].float(), torch.arange(32.0))
    assert torch.isfinite(NARROW[kind](torch.zeros(32, 16), None)(drawn(6, 17, 16).bfloat16())).all()
    x = drawn(6, 17, 16).bfloat16()
    x[2, 3] = float("nan")
    assert layer(x)[2].isnan().all()


def test_a_weight_takes_the_bytes_that_it_says():
    weight = torch.randn(64, 32)
    for kind, layer in NARROW.items():
        made = Form(kind).large(weight, None)
        assert isinstance(made, layer)
        assert sum(each.numel() * each.element_size() for each in made.buffers()) == 64 * 32 + 4 * 64
    assert Form("bf16").large(weight, None).weight.dtype == torch.bfloat16


@pytest.mark.parametrize("shape", [(64, 40), (33, 32)])
def test_sizes_that_tensor_cores_do_not_take_stay_as_they_are(shape):
    made = Form("fp8").large(torch.randn(shape), None)
    assert type(made) is nn.Linear
    assert made.weight.dtype == torch.bfloat16


def test_a_form_holds_copies_in_its_own_numbers():
    values = torch.arange(3.0)
    for precision in PRECISIONS:
        form = Form(precision)
        kept = form.constant(values)
        kept += 1
        assert kept.dtype == form.dtype
        assert form.narrows == (precision in NARROW)
    assert values.tolist() == [0.0, 1.0, 2.0]
    with pytest.raises(ConfigError, match="fp4"):
        Form("fp4")
