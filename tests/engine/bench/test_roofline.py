import json
import time
from importlib import import_module

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.core import ConfigError
from mobile_vla.engine.bench import roofline
from mobile_vla.engine.bench.counting import PRECISIONS, Count
from mobile_vla.engine.bench.roofline import ARITHMETIC, PREDICTED, Device, floor_s, measure

MIB = 2**20
NUMBERS = st.integers(1, 10**13)
COUNTS = st.builds(Count, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS)
RATES = st.floats(1e6, 1e16)
DEVICES = st.builds(
    Device,
    st.just("some"),
    st.sampled_from(["cpu", "cuda"]),
    st.integers(1, 64),
    RATES,
    st.none() | RATES,
    st.fixed_dictionaries(dict.fromkeys(ARITHMETIC, RATES)),
    st.booleans(),
    st.none() | NUMBERS,
    st.none() | NUMBERS,
)
PRECISION = st.sampled_from(sorted(PRECISIONS))
HYBRID = Count(1_860_017_026, 420_344_837_120, 3_327_073_378, 1_780_723_352, 316_008)
"""kosmos_clip at full size with 31 word pieces, bf16, as test_counting counts it."""


@pytest.fixture(scope="module")
def here():
    """This machine, in little time."""
    return measure("cpu", 1, seconds=0.6)


@given(COUNTS, DEVICES, PRECISION)
def test_a_floor_is_the_longer_of_moving_and_computing(count, device, precision):
    floor = floor_s(count, device, precision)

    rate = device.matrix_flops_per_s[PRECISIONS[precision].arithmetic]
    assert floor.arithmetic_s == pytest.approx(count.flops / rate)
    assert floor.seconds == max(floor.memory_s, floor.arithmetic_s)
    assert (floor.bound_by == "memory") == (floor.memory_s >= floor.arithmetic_s)
    moved = count.weight_bytes + count.io_bytes
    widths = [device.copy_bytes_per_s, device.cache_bytes_per_s or 0.0]
    assert moved / max(widths) <= floor.memory_s * (1 + 1e-9)
    assert floor.memory_s <= moved / device.copy_bytes_per_s * (1 + 1e-9)
    assert floor.share(floor.seconds) == pytest.approx(1.0)
    assert floor.share(4 * floor.seconds) == pytest.approx(0.25)
    assert floor.to_dict()["bound_by"] == floor.bound_by


@given(COUNTS, DEVICES, PRECISION)
def test_what_an_engine_may_avoid_is_in_no_floor(count, device, precision):
    other = Count(count.parameters * 2, count.flops, count.weight_bytes, count.activation_bytes * 5, count.io_bytes)

    assert floor_s(other, device, precision) == floor_s(count, device, precision)


def test_what_fits_into_the_cache_comes_from_there():
    device = Device("x", "cpu", 1, 10e9, 100e9, {"fp32": 1e15}, True, None, 8 * MIB)
    fits, does_not = Count(1, 1, 8 * MIB - 100, 1, 100), Count(1, 1, 8 * MIB, 1, 100)

    assert floor_s(fits, device, "fp32").seconds == pytest.approx(8 * MIB / 100e9)
    assert floor_s(does_not, device, "fp32").seconds == pytest.approx((8 * MIB + 100) / 10e9)


def test_a_precision_that_cannot_be_had_is_refused_in_words():
    device = Device("a laptop", "cpu", 1, 10e9, None, {"fp32": 1e11}, True, None, None)

    with pytest.raises(ConfigError, match=r"a laptop has no matrix rate for fp8 \(it has fp32\)"):
        floor_s(HYBRID, device, "fp8")
    with pytest.raises(ConfigError, match="has no matrix rate for bf16"):
        floor_s(HYBRID, device, "int8_weights")
    with pytest.raises(ConfigError, match="unknown precision 'fp12'"):
        floor_s(HYBRID, device, "fp12")


@pytest.mark.parametrize("name", PREDICTED)
def test_a_device_travels_as_plain_values(name):
    device = PREDICTED[name]

    assert Device.from_dict(json.loads(json.dumps(device.to_dict()))) == device
    assert device.source
    assert not device.measured


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"copy_bytes_per_s": 0.0}, "above 0 and finite"),
        ({"copy_bytes_per_s": float("nan")}, "above 0 and finite"),
        ({"matrix_flops_per_s": {"fp32": float("inf")}}, "above 0 and finite"),
        ({"matrix_flops_per_s": {"fp31": 1.0}}, "unknown arithmetic 'fp31'"),
        ({"kind": "tpu"}, "kind"),
        ({"speed": 3}, "speed"),
    ],
)
def test_a_device_that_does_not_fit_is_refused_in_words(change, words):
    with pytest.raises(ConfigError, match=words):
        Device.from_dict(PREDICTED["h100"].to_dict() | change)


@pytest.mark.parametrize(
    ("device", "precision", "sessions", "ms", "within"),
    [
        ("h200-seen", "bf16", 8, 4.27, 0.02),
        ("h200-seen", "bf16", 1, 0.84, 0.09),  # the notes' own 1660 M weights over their own 4.3 TB/s are 0.77
        ("orin-agx-64gb", "fp16", 1, 17.1, 0.06),
        ("orin-agx-64gb", "int8", 1, 8.5, 0.06),
        ("orin-nx-16gb", "fp16", 1, 37.5, 0.15),
        ("orin-nx-16gb", "int8", 1, 18.7, 0.15),
    ],
)
def test_predictions_are_near_those_of_the_field_notes(device, precision, sessions, ms, within):
    weights = HYBRID.weight_bytes * PRECISIONS[precision].weight_bytes / 2
    count = Count(1, sessions * HYBRID.flops, round(weights), 1, sessions * HYBRID.io_bytes)

    assert floor_s(count, PREDICTED[device], precision).seconds * 1e3 == pytest.approx(ms, rel=within)


def test_published_rates_are_dense_ones():
    for device in PREDICTED.values():
        rates = device.matrix_flops_per_s
        if "int8" in rates:
            assert rates["int8"] == pytest.approx(2 * rates["fp16"], rel=0.01)
            assert rates["bf16"] == rates["fp16"] > rates["fp32"]


def test_this_machine(here):
    assert here.measured
    assert (here.source, here.kind, here.threads) == ("", "cpu", 1)
    assert here.name
    assert set(here.matrix_flops_per_s) == {"fp32", "bf16", "int8"}
    assert here.memory_bytes > 2**28
    assert (here.cache_bytes is None) == (here.cache_bytes_per_s is None)
    assert Device.from_dict(json.loads(json.dumps(here.to_dict()))) == here


def test_a_rate_is_what_a_product_of_my_own_takes(here):
    """Off by no more than a busy machine makes it: units and counts are right."""
    left, right = torch.randn(512, 512), torch.randn(512, 512)
    seconds = min(_seconds(lambda: torch.mm(left, right)) for _ in range(20))

    assert 0.05 < here.matrix_flops_per_s["fp32"] * seconds / (2 * 512**3) < 50


def test_a_bandwidth_is_what_a_copy_of_my_own_takes(here):
    source, target = np.ones(64 * MIB, dtype=np.uint8), np.ones(64 * MIB, dtype=np.uint8)
    seconds = min(_seconds(lambda: np.copyto(target, source)) for _ in range(5))

    assert 0.05 < here.copy_bytes_per_s * seconds / (2 * 64 * MIB) < 50


def _seconds(call):
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


@pytest.mark.needs("openvino")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_no_engine_is_faster_than_the_limit(precision):
    """Convolutions as the compact policy has them, in the fastest engine there is. Under load a limit can be measured
    too low, and then again."""
    ov, ops = import_module("openvino"), import_module("openvino.opset13")
    channels, rows, columns, layers = 96, 12, 24, 6
    picture = ops.parameter([1, channels, rows, columns], np.float32)
    seen = picture
    for number in range(layers):
        kernel = np.random.default_rng(number).normal(0, 0.03, (channels, channels, 3, 3)).astype(np.float32)
        seen = ops.relu(ops.convolution(seen, ops.constant(kernel), [1, 1], [1, 1], [1, 1], [1, 1]))
    hint = {"fp32": "f32", "bf16": "bf16"}[precision]
    settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    request = ov.Core().compile_model(ov.Model([seen], [picture]), "CPU", settings).create_infer_request()
    flops = layers * 2 * channels * channels * 9 * rows * columns
    weights = layers * channels * channels * 9 * (4 if precision == "fp32" else 2)
    frame = np.ones((1, channels, rows, columns), dtype=np.float32)
    counted = Count(1, flops, weights, 1, 2 * frame.nbytes)

    shares = []
    for _ in range(5):
        device = measure("cpu", 1, (precision,), seconds=0.6)
        fastest = min(_seconds(lambda: request.infer([frame])) for _ in range(30))
        shares.append(floor_s(counted, device, precision).share(fastest))
        if shares[-1] < 1:
            break
    assert min(shares) < 1, shares


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_put_back(threads, monkeypatch):
    before = torch.get_num_threads()
    seen = []
    monkeypatch.setattr(roofline, "_moves", lambda size: [(lambda: seen.append(torch.get_num_threads()), 1.0)])

    device = measure("cpu", threads, ("fp32",), seconds=1e-6)

    assert set(seen) == {device.threads} == {threads}
    assert torch.get_num_threads() == before


def test_threads_are_put_back_after_an_error_too(monkeypatch):
    def broken(size):
        raise MemoryError

    before = torch.get_num_threads()
    monkeypatch.setattr(roofline, "_moves", broken)

    with pytest.raises(MemoryError):
        measure("cpu", before + 1, ("fp32",))
    assert torch.get_num_threads() == before


def test_what_the_processor_cannot_do_is_left_out(monkeypatch):
    def lacking(*args, **kwargs):
        raise RuntimeError("no such kernel here")

    monkeypatch.setattr(roofline, "_int8_matrix", lacking)
    monkeypatch.setattr(roofline, "_int8_convolution", lacking)
    monkeypatch.setattr(roofline, "_float_convolution", lacking)

    assert set(measure("cpu", 1, ("fp32", "int8", "fp8"), seconds=1e-6).matrix_flops_per_s) == {"fp32"}


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"precisions": ("fp32", "int7")}, "unknown arithmetic 'int7'"),
        ({"threads": 0}, "threads=0"),
        ({"seconds": 0.0}, "seconds=0.0"),
        ({"seconds": float("nan")}, "seconds=nan"),
        ({"device": "tpu"}, "unknown device 'tpu'"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_words(asked, words):
    with pytest.raises(ConfigError, match=words):
        measure(**asked)


def test_a_device_that_is_not_there_is_refused_in_words(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(ConfigError, match="no CUDA device is at hand"):
        measure("cuda:0")


SPANS = st.lists(st.floats(1e-6, 1), min_size=roofline._ROUNDS, max_size=roofline._ROUNDS)
WAYS = st.lists(st.tuples(st.floats(1, 1e9), SPANS), min_size=1, max_size=4)


@given(st.dictionaries(st.sampled_from("abc"), WAYS, min_size=1))
def test_of_each_name_the_best_run_of_its_best_way_counts_but_for_the_first_ones(ways):
    made = []
    runs = {
        (name, place): iter([1e-12, *spans]) for name, some in ways.items() for place, (_, spans) in enumerate(some)
    }

    def timed(call):
        made.append(call())
        return next(runs[call()])

    calls = {
        name: [(lambda key=(name, place): key, work) for place, (work, _) in enumerate(some)]
        for name, some in ways.items()
    }
    best = roofline._highest(calls, 0.0, timed)

    assert best == {name: pytest.approx(max(work / min(spans) for work, spans in some)) for name, some in ways.items()}
    assert made == [*runs] * (1 + roofline._ROUNDS)  # in turns
