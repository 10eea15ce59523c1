from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPConfig, Kosmos2Config

from engine.little import CASES, little
from mobile_vla.core import ActionContract, ConfigError
from mobile_vla.engine.bench.counting import PRECISIONS, Count, count
from mobile_vla.policy.compact import CompactConfig, CompactNetwork
from mobile_vla.policy.encoders.sources import describe
from mobile_vla.policy.encoders.tower import TowerSpec
from mobile_vla.policy.kinds import kind_named
from mobile_vla.policy.step import step_of
from mobile_vla.policy.vla import VlaNetwork

FEW = st.integers(1, 5)
SOME = settings(max_examples=8)


class Attention(nn.Module):
    def __init__(self, causal=False):
        super().__init__()
        self.causal = causal

    def forward(self, query, key, value):
        return F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)


class Calls(nn.Module):
    """Runs a function of one tensor with the weights of ``parts``."""

    def __init__(self, call, **parts):
        super().__init__()
        self.call = call
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.call(self, x)


def on(device, value):
    return value.to(device) if isinstance(value, torch.Tensor) else tuple(on(device, each) for each in value)


@SOME
@given(n=FEW, inputs=FEW, outputs=FEW)
def test_a_linear_layer_by_hand(n, inputs, outputs):
    counted = count(nn.Linear(inputs, outputs), (torch.zeros(n, inputs),), "fp32")

    weights = inputs * outputs + outputs
    assert counted.flops == 2 * n * inputs * outputs
    assert counted.parameters == weights
    assert counted.weight_bytes == 4 * weights
    assert counted.io_bytes == counted.activation_bytes == 4 * n * (inputs + outputs)


@SOME
@given(
    n=FEW,
    inputs=FEW,
    outputs=FEW,
    kernel=st.sampled_from([1, 3]),
    stride=st.sampled_from([1, 2]),
    side=st.integers(4, 9),
)
def test_a_convolution_by_hand(n, inputs, outputs, kernel, stride, side):
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)

    counted = count(layer, (torch.zeros(n, inputs, side, side),), "bf16")

    out = -(-side // stride)
    assert counted.flops == 2 * n * outputs * out * out * inputs * kernel * kernel
    assert counted.weight_bytes == 2 * outputs * inputs * kernel * kernel
    assert counted.io_bytes == 2 * n * (inputs * side * side + outputs * out * out)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
@SOME
@given(n=FEW, steps=FEW, inputs=FEW, hidden=FEW, layers=st.integers(1, 3))
def test_a_recurrent_layer_by_hand(kind, gates, device, n, steps, inputs, hidden, layers):
    layer = kind(inputs, hidden, layers, batch_first=True).to(device)

    counted = count(layer, (torch.zeros(n, steps, inputs, device=device),), "fp32")

    first = gates * hidden * (inputs + hidden)
    rest = (layers - 1) * gates * hidden * 2 * hidden
    assert counted.flops == 2 * n * steps * (first + rest)
    assert counted.weight_bytes == 4 * (first + rest + layers * 2 * gates * hidden)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("device", ["cpu", "meta"])
@SOME
@given(n=FEW, heads=FEW, queries=FEW, keys=FEW, width=FEW)
def test_attention_by_hand(causal, device, n, heads, queries, keys, width):
    query, key = torch.zeros(n, heads, queries, width), torch.zeros(n, heads, keys, width)

    counted = count(Attention(causal), tuple(on(device, each) for each in (query, key, key)), "fp32")

    assert counted.flops == 2 * 2 * n * heads * queries * keys * width
    assert counted.weight_bytes == counted.parameters == 0
    assert counted.io_bytes == 4 * n * heads * width * (queries + 2 * keys + queries)


@pytest.mark.parametrize("training", [False, True])
def test_a_transformer_layer_by_hand_however_it_is_set(training):
    n, tokens, width, wide = 2, 5, 8, 24
    layer = nn.TransformerEncoderLayer(width, 2, wide, 0.0, batch_first=True).train(training)

    counted = count(layer, (torch.zeros(n, tokens, width),), "fp32")

    products = 4 * width * width + 2 * width * wide
    assert counted.flops == 2 * n * tokens * (products + 2 * tokens * width)
    assert counted.weight_bytes == 4 * counted.parameters
    assert layer.training == layer.linear1.training == training


def test_as_torch_counts_where_it_knows_every_operation():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5), nn.Softmax(1))
    frames = torch.zeros(2, 3, 8, 8)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(frames)

    assert count(network, (frames,), "fp32").flops == counter.get_total_flops() > 0


def test_nothing_of_torch_is_left_changed():
    def settings():
        backends = torch.backends
        return backends.mkldnn.enabled, backends.cudnn.enabled, backends.mha.get_fastpath_enabled()

    before = settings()
    norm = nn.BatchNorm2d(3)
    count(norm, (torch.ones(1, 3, 4, 4),), "fp32")

    assert settings() == before
    assert norm.training
    assert norm.num_batches_tracked == norm.running_mean.abs().sum() == 0
    assert torch.is_grad_enabled()


def test_inference_mode_changes_no_count():
    network, x = nn.Sequential(nn.Linear(4, 6), nn.LSTM(6, 3)), torch.zeros(2, 4)
    expected = count(network, (x,), "fp32")

    with torch.inference_mode():
        assert count(network, (x,), "fp32") == expected


@pytest.mark.parametrize(("precision", "numbers"), [(name, known) for name, known in PRECISIONS.items()])
def test_bytes_follow_the_precision_and_operations_do_not(precision, numbers):
    network, x = nn.Linear(8, 8), torch.zeros(1, 8)

    counted = count(network, (x,), precision)

    assert counted.flops == 128
    assert counted.weight_bytes == 72 * numbers.weight_bytes
    assert counted.io_bytes == 16 * numbers.activation_bytes


def test_numbers_that_are_no_floats_keep_their_size():
    network = Calls(lambda own, x: own.table[x.long()].float() + own.scale, scale=nn.Parameter(torch.ones(1)))
    network.register_buffer("table", torch.arange(256))

    counted = count(network, (torch.zeros(2, 6, dtype=torch.uint8),), "bf16")

    assert counted.weight_bytes == 12 * 8 + 2
    assert counted.io_bytes == 12 + 12 * 2


def test_an_unknown_precision_is_refused_in_words():
    with pytest.raises(ConfigError, match=r"unknown precision 'fp12': choose among fp32, bf16"):
        count(nn.Linear(1, 1), (torch.zeros(1, 1),), "fp12")


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(
    ("call", "read"),
    [
        (lambda own, x: own.a(x), 72),  # b is not called
        (lambda own, x: own.a(own.a(x)), 72),  # twice is once
        (lambda own, x: x @ own.a.weight + x @ own.a.weight.t(), 64),
        (lambda own, x: x @ own.a.weight[:4].t(), 32),
        (lambda own, x: torch.cat([x @ own.a.weight[:4].t(), x @ own.a.weight[4:].t()], 1), 64),
        (lambda own, x: torch.cat([x @ own.a.weight[:6].t(), x @ own.a.weight[2:].t()], 1), 64),  # never more than all
        (lambda own, x: x + own.a.bias.expand(100, 8).sum(0), 8),
        (lambda own, x: x + own.a.weight.view(2, 32)[1, :8], 8),
        (lambda own, x: x, 0),
    ],
)
def test_of_weights_what_is_really_read(device, call, read):
    network = Calls(call, a=nn.Linear(8, 8), b=nn.Linear(8, 8)).to(device)

    counted = count(network, (torch.zeros(3, 8, device=device),), "fp32")

    assert counted.weight_bytes == 4 * read
    assert counted.parameters == 144


@pytest.mark.parametrize("device", ["cpu", "meta"])
@SOME
@given(words=st.integers(1, 40))
def test_of_a_table_the_rows(device, words):
    table = nn.Embedding(30, 8).to(device)

    counted = count(table, (torch.zeros(words, dtype=torch.long, device=device),), "fp32")

    assert counted.weight_bytes == 4 * 8 * min(words, 30)


def test_weights_that_are_shared_count_once():
    first, second = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
    second.weight = first.weight

    counted = count(nn.Sequential(first, second), (torch.zeros(1, 8),), "fp32")

    assert counted.parameters == 64
    assert counted.weight_bytes == 4 * 64
    assert counted.flops == 2 * 2 * 64


def test_unfused_activations_by_hand():
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Unflatten(1, (2, 3)), nn.Flatten())

    counted = count(network, (torch.zeros(5, 4),), "fp32")

    linear, relu = 5 * 4 + 5 * 6, 5 * 6 + 5 * 6
    assert counted.activation_bytes == 4 * (linear + relu)  # views move nothing


def test_a_change_in_place_reads_and_writes():
    added = count(Calls(lambda own, x: x.mul(2).add_(1)), (torch.zeros(10),), "fp32")
    filled = count(Calls(lambda own, x: x.mul(2).zero_()), (torch.zeros(10),), "fp32")

    assert added.activation_bytes == 4 * 40
    assert filled.activation_bytes == 4 * 30


@pytest.mark.parametrize("case", CASES)
def test_policies_count_alike_with_numbers_and_without(case):
    step = step_of(little(case))
    example = step.example(2)

    here = count(step, example, "bf16")
    shapes = count(step.to("meta"), on("meta", example), "bf16")

    assert (here.flops, here.weight_bytes, here.io_bytes, here.parameters) == (
        shapes.flops, shapes.weight_bytes, shapes.io_bytes, shapes.parameters,
    )  # fmt: skip
    assert shapes.activation_bytes == pytest.approx(here.activation_bytes, rel=0.02)


def test_the_compact_policy():
    network = CompactNetwork(CompactConfig(), ActionContract())
    step = step_of(network)

    one, two = (count(step, step.example(sessions), "fp32") for sessions in (1, 2))

    assert one.flops == pytest.approx(277.5e6, rel=0.01)
    assert two.flops == pytest.approx(2 * one.flops, rel=1e-6)
    assert two.weight_bytes == one.weight_bytes
    words = sum(each.numel() for each in network.text.parameters())  # read once an instruction, not in a step
    assert one.weight_bytes / 4 == pytest.approx(1_608_386 - words, rel=0.01)


FULL = ActionContract(horizon=10)


@cache
def full_size(name, **options) -> VlaNetwork:
    """Kosmos-2 and CLIP B/32 as published, on the meta device, with a small tokenizer."""
    grey = (0.5, 0.5, 0.5)
    specs = {
        "kosmos": TowerSpec("full", Kosmos2Config().to_dict(), describe("tiny", "kosmos").tokenizer, grey, grey),
        "clip": TowerSpec("full", CLIPConfig().to_dict(), describe("tiny", "clip").tokenizer, grey, grey),
    }
    kind = kind_named(name)
    with torch.device("meta"):
        return kind.network(kind.config(**options), FULL, {tower: specs[tower] for tower in kind.config.towers})


def counted_with_words(network, pieces) -> Count:
    """A step of one session whose instruction has so many word pieces."""
    step = step_of(network)
    step.most = pieces
    return count(step, step.example(1), "bf16")


def test_the_full_hybrid_as_the_field_notes_have_it():
    network = full_size("kosmos_clip")

    counted = counted_with_words(network, 31)  # and 64 latent tokens, <s>, the image's two marks, the action token: 99

    assert counted.parameters == 1_860_017_026
    notes_flops, head_and_pointer = 419.7e9, 0.7e9
    assert counted.flops == pytest.approx(notes_flops + head_and_pointer, rel=1e-3)
    assert counted.weight_bytes / 2 == pytest.approx(1660e6, rel=3e-3)
    unread = network.towers["kosmos"].model.text_model.model.embed_tokens.weight.numel()  # but for a few rows
    unread += sum(each.numel() for each in network.towers["clip"].model.text_model.parameters())
    unread += network.towers["clip"].model.text_projection.weight.numel()
    assert counted.weight_bytes / 2 == pytest.approx(counted.parameters - unread, rel=1e-3)


def test_what_stands_first_in_the_prompt_decides_what_a_step_computes():
    image_first = counted_with_words(full_size("kosmos_clip"), 31)
    words_first = counted_with_words(full_size("kosmos_clip", prompt="instruction_first"), 31)

    decoder = 2 * 1209e6
    assert image_first.flops - words_first.flops == pytest.approx(32 * decoder, rel=0.05)
    assert words_first.weight_bytes == pytest.approx(image_first.weight_bytes, rel=1e-3)
    keys_and_values = 24 * 2 * 2048 * 32 * 2
    assert words_first.io_bytes - image_first.io_bytes == pytest.approx(keys_and_values, rel=0.05)


def test_clip_alone():
    network = full_size("clip_lstm")
    tower = network.towers["clip"]
    frames = torch.zeros(1, 224, 224, 3, dtype=torch.uint8, device="meta")

    counted = count(Calls(lambda own, x: own.tower.see(x).tokens, tower=tower), (frames,), "bf16")

    assert counted.flops == pytest.approx(8.8e9, rel=0.01)
    assert counted.weight_bytes / 2 == pytest.approx(87.8e6, rel=0.01)
    assert count(step_of(network), step_of(network).example(1), "bf16").parameters == 189_472_386


def test_a_count_as_plain_values():
    assert Count(1, 2, 3, 4, 5).to_dict() == {
        "parameters": 1, "flops": 2, "weight_bytes": 3, "activation_bytes": 4, "io_bytes": 5,
    }  # fmt: skip
