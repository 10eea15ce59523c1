import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from engine.restless import inputs_of, restless, shaken, step_and_inputs
from mobile_vla.core import ConfigError
from mobile_vla.engine.export import export_program
from mobile_vla.engine.fused.layers import Normalised, Weights, after, chained, scaled, weights_of
from mobile_vla.engine.fused.narrow import Form
from mobile_vla.engine.fused.step import FusedStep
from mobile_vla.policy.shorten import Shortening, shorten
from mobile_vla.policy.step import Inputs, step_of
from policy.little import with_siglip

CASES = {
    "both towers, at another size": ("kosmos_clip", "lstm", {}),
    "at the size of the training": ("kosmos_clip", "transformer", {"size": (96, 96)}),
    "words first, without end": ("kosmos_lstm", "flow without end", {"prompt": "instruction_first"}),
    "without marks": ("kosmos_lstm", "mlp", {"prompt": "unmarked"}),
    "clip alone": ("clip_lstm", "flow", {}),
}


def distance(left, right):
    return ((left.float() - right.float()).norm() / left.float().norm()).item()


def held(step, inputs):
    """The inputs in the numbers of a fused step."""
    device, dtype = step.form.device, step.form.dtype
    words = tuple(part.to(device, dtype if part.is_floating_point() else None) for part in inputs.words)
    return Inputs(inputs.pixels.to(device), words, inputs.motion.to(device), inputs.history.to(device, dtype))


@pytest.fixture(params=CASES)
def network(request):
    name, head, options = CASES[request.param]
    return restless(name, head, **options)


@torch.no_grad()
def test_a_fused_decision_is_the_decision_up_to_rounding(network):
    step, inputs = step_and_inputs(network)
    fused = FusedStep(step, Form("fp32")).eval()
    for expected, decided in zip(step(*inputs), fused(*inputs), strict=True):
        assert decided.shape == expected.shape
        assert decided.dtype == expected.dtype
        assert distance(expected, decided) < 1e-5
    others = inputs_of(step, seed=7)
    assert distance(step(*others)[0], fused(*others)[0]) < 1e-5
    assert distance(fused(*inputs)[0], fused(*others)[0]) > 0.01  # else nothing was compared


@pytest.mark.parametrize(
    ("name", "options", "how"),
    [
        ("kosmos_clip", {}, Shortening(decoder_layers=1, latents=0.6)),
        ("kosmos_lstm", {"prompt": "instruction_first"}, Shortening(latents=0.4, vision_layers=1)),
        ("kosmos_lstm", {"prompt": "unmarked"}, Shortening(latents=0.5, patches=0.7)),
        ("clip_lstm", {}, Shortening(patches=0.5)),
    ],
)
@torch.no_grad()
def test_a_shortened_network_is_fused_as_it_was_shortened(name, options, how):
    whole = restless(name, **options)
    step, inputs = step_and_inputs(shorten(whole, how))
    fused = FusedStep(step, Form("fp32")).eval()
    expected = step(*inputs)
    assert max(distance(one, other) for one, other in zip(expected, fused(*inputs), strict=True)) < 1e-5
    assert distance(expected[0], step_of(whole)(*inputs)[0]) > 1e-4


@torch.no_grad()
def test_the_history_that_a_fused_decision_gives_goes_on_as_the_policy_would():
    step, inputs = step_and_inputs(restless("clip_lstm"))
    fused = FusedStep(step, Form("fp32")).eval()
    history, own = inputs.history, inputs.history
    for _ in range(4):
        *_, history = step(*inputs[:3], history)
        *_, own = fused(*inputs[:3], own)
    assert distance(history, own) < 1e-5


@torch.no_grad()
def test_siglip_in_clips_place_is_fused_too():
    step, inputs = step_and_inputs(shaken(with_siglip()))
    fused = FusedStep(step, Form("fp32")).eval()
    assert max(distance(one, other) for one, other in zip(step(*inputs), fused(*inputs), strict=True)) < 1e-5


@pytest.mark.parametrize(
    ("precision", "most"), [("bf16", 0.03), ("fp16", 0.005), ("fp8", 0.15), ("int8", 0.06), ("int8_weights", 0.05)]
)
@torch.no_grad()
def test_in_few_bits_it_stays_near(precision, most):
    step, inputs = step_and_inputs(restless("kosmos_clip"))
    fused = FusedStep(step, Form(precision)).eval()
    found = [distance(one, other) for one, other in zip(step(*inputs), fused(*held(fused, inputs)), strict=True)]
    assert max(found) < most
    assert max(found) > 1e-5


@torch.no_grad()
def test_sessions_of_a_batch_do_not_look_at_each_other():
    step, inputs = step_and_inputs(restless("kosmos_lstm", prompt="instruction_first"), sessions=3)
    fused = FusedStep(step, Form("fp32")).eval()
    together = fused(*inputs)
    for place in range(3):
        here = slice(place, place + 1)
        alone = fused(inputs.pixels[here], tuple(each[here] for each in inputs.words), *(x[here] for x in inputs[2:]))
        assert max(distance(one[here], other) for one, other in zip(together, alone, strict=True)) < 1e-5


class Counting(TorchDispatchMode):
    """Operations that compute something; views do not."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        viewed = any(each.alias_info is not None and not each.alias_info.is_write for each in func._schema.returns)
        self.count += not viewed
        return func(*args, **(kwargs or {}))


def operations(module, inputs):
    with torch.no_grad(), Counting() as counting:
        module(*inputs)
    return counting.count


def test_towers_are_of_fewer_operations_than_they_were():
    step, inputs = step_and_inputs(restless("kosmos_clip"), sessions=1)
    fused = FusedStep(step, Form("fp32")).eval()
    seen = [operations(eye, [inputs.pixels]) for eye in fused.eyes]
    towers = [step.network.towers[name] for name in step.network.config.towers]
    for fewer, tower in zip(seen, towers, strict=True):
        unfused = operations(tower.see, [inputs.pixels])
        assert fewer <= 0.75 * unfused


@torch.no_grad()
def test_it_can_be_exported_and_has_no_breaks_that_a_compiler_would_see():
    step, inputs = step_and_inputs(restless("kosmos_lstm", prompt="instruction_first"))
    fused = FusedStep(step, Form("fp8")).eval()
    given = held(fused, inputs)
    expected = fused(*given)
    exported = export_program(fused, 2).module()(*given)
    compiled = torch.compile(fused, backend="eager", fullgraph=True)(*given)
    assert all(torch.equal(one, other) for one, other in zip(expected, exported, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(expected, compiled, strict=True))


@torch.no_grad()
def test_what_a_layer_was_made_from_is_given_up_and_words_are_still_read():
    for prompt in ("image_first", "instruction_first"):
        network = restless("kosmos_clip", prompt=prompt)
        step, inputs = step_and_inputs(network)
        expected = step(*inputs)
        read = step.read("go to the blue door")
        fused = FusedStep(step, Form("fp32", gives_up=True)).eval()
        kosmos = network.towers["kosmos"].model
        assert all(each.is_meta for each in kosmos.vision_model.model.encoder.parameters())
        is_read_with = prompt == "instruction_first"
        assert all(each.is_meta != is_read_with for each in kosmos.text_model.model.layers.parameters())
        again = fused.read("go to the blue door")
        assert all(torch.equal(one, other) for one, other in zip(read, again, strict=True))
        assert distance(expected[0], fused(*inputs)[0]) < 1e-5
        assert not any(each.is_meta for each in fused.parameters())


def test_the_network_itself_is_not_changed_unless_it_is_given_up():
    network = restless("clip_lstm")
    before = copy.deepcopy(network.state_dict())
    FusedStep(step_of(network), Form("bf16"))
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_what_was_added_to_a_linear_layer_is_not_left_out_in_silence():
    network = restless("clip_lstm")
    layer = network.towers["clip"].model.vision_model.encoder.layers[1]
    layer.self_attn.k_proj = nn.Sequential(layer.self_attn.k_proj, nn.Identity())
    with pytest.raises(ConfigError, match="Sequential"):
        FusedStep(step_of(network), Form("fp32"))


sizes = st.integers(1, 9)


@settings(max_examples=30)
@given(sizes, sizes, sizes, st.integers(0, 2**31))
@torch.no_grad()
def test_weights_take_over_what_stood_between_them(inner, middle, outer, seed):
    torch.manual_seed(seed)
    first, second, norm = nn.Linear(inner, middle), nn.Linear(middle, outer), nn.LayerNorm(middle, eps=1e-3)
    norm.weight.normal_()
    norm.bias.normal_()
    x = torch.randn(3, inner)
    one = chained(weights_of(first), weights_of(second))
    assert torch.allclose(nn.functional.linear(x, *one), second(first(x)), atol=1e-4)
    y = torch.randn(3, middle)
    without = nn.functional.linear(Normalised(norm)(y), *after(norm, weights_of(second)))
    assert torch.allclose(without, second(norm(y)), atol=1e-4)
    assert torch.allclose(nn.functional.linear(y, *scaled(weights_of(second), 3.0)), 3.0 * second(y), atol=1e-4)


def test_a_layer_without_a_bias_has_one_of_zeros():
    linear = nn.Linear(4, 3, bias=False)
    assert weights_of(linear) == Weights(pytest.approx(linear.weight.detach()), pytest.approx(torch.zeros(3)))
