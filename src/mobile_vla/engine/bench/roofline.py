"""What a device can do at best, measured on the spot, and from it the least time that one call of a network can take.

A call has to read its weights and do its products. The longer of the two is the floor (the roofline model: Williams,
Waterman and Patterson 2009). What a floor leaves out: activations that go to memory and back, operations that are not
products, starting the kernels, and products too small to fill the device. No engine can be faster than its floor;
how near it comes is what it made of the device.

A rate is the highest of many short runs: who shares the machine makes runs slower, never faster. Products are tried in
several shapes, as matrices and as convolutions, with weights laid out beforehand where the device has such a layout:
engines choose the best way, and so does the limit.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain, product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mobile_vla.core import ConfigError
from mobile_vla.core.provenance import processor
from mobile_vla.engine.bench.counting import Count, precision_named
from mobile_vla.robot.registry import read_settings

ARITHMETIC = ("fp32", "bf16", "fp16", "fp8", "int8")
"""What a matrix rate can be of. ``fp32`` is full float32, not TF32."""


@dataclass(frozen=True)
class Device:
    """Rates in units of a second, at ``threads`` threads (of a "cuda" device: of all of it).

    ``copy_bytes_per_s``: of memory, the faster of a copy, bytes read and written both counted, and of reading alone.
    ``cache_bytes_per_s``: the same for what fits into ``cache_bytes``; None where it is not known.
    ``matrix_flops_per_s`` by name of ``ARITHMETIC``, dense; what the device cannot do is not there.
    ``source``: where the figures were published; empty where they were ``measured`` here.
    """

    name: str
    kind: Literal["cpu", "cuda"]
    threads: int
    copy_bytes_per_s: float
    cache_bytes_per_s: float | None
    matrix_flops_per_s: dict[str, float]
    measured: bool
    memory_bytes: int | None
    cache_bytes: int | None
    source: str = ""

    def __post_init__(self) -> None:
        rates = [self.copy_bytes_per_s, *self.matrix_flops_per_s.values()]
        rates += [] if self.cache_bytes_per_s is None else [self.cache_bytes_per_s]
        if self.threads < 1 or not all(0 < rate < float("inf") for rate in rates):
            raise ConfigError(f"the rates of device {self.name!r} need to be above 0 and finite: measure it again")
        if unknown := sorted(set(self.matrix_flops_per_s) - set(ARITHMETIC)):
            raise ConfigError(f"unknown arithmetic {unknown[0]!r}: choose among {', '.join(ARITHMETIC)}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for ``from_dict``."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Device":
        """ConfigError for keys and values that do not fit."""
        return read_settings(cls, values, "device")


@dataclass(frozen=True)
class Floor:
    """The least time of a call: the larger of ``memory_s`` and ``arithmetic_s``."""

    seconds: float
    bound_by: Literal["memory", "arithmetic"]
    memory_s: float
    arithmetic_s: float

    def share(self, seconds: float) -> float:
        """How much of the limit a call that takes ``seconds`` reaches: 1 at the floor."""
        return self.seconds / seconds

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def floor_s(count: Count, device: Device, precision: str) -> Floor:
    """Weights, inputs and outputs through the memory, or through the cache where all of them fit; and the products.

    ``precision`` is one of ``counting.PRECISIONS``, the one that ``count`` was made with. ConfigError for an unknown
    one, and for one whose rate the device lacks.
    """
    arithmetic = precision_named(precision).arithmetic
    if arithmetic not in device.matrix_flops_per_s:
        known = ", ".join(device.matrix_flops_per_s) or "none"
        raise ConfigError(
            f"{device.name} has no matrix rate for {arithmetic} (it has {known}): choose another precision"
        )
    moved = count.weight_bytes + count.io_bytes
    bandwidth = device.copy_bytes_per_s
    if device.cache_bytes is not None and device.cache_bytes_per_s is not None and moved <= device.cache_bytes:
        bandwidth = max(bandwidth, device.cache_bytes_per_s)
    memory_s = moved / bandwidth
    arithmetic_s = count.flops / device.matrix_flops_per_s[arithmetic]
    bound: Literal["memory", "arithmetic"] = "memory" if memory_s >= arithmetic_s else "arithmetic"
    return Floor(max(memory_s, arithmetic_s), bound, memory_s, arithmetic_s)


def measure(
    device: str = "cpu",
    threads: int = 1,
    precisions: Sequence[str] = ("fp32", "bf16", "int8"),
    seconds: float = 2.0,
) -> Device:
    """The device that this runs on: "cpu", "cuda" or "cuda:N". The number of threads is put back afterwards.

    ``seconds`` is about what all of it takes; at least one run of everything is made. A precision that the device
    cannot compute in is left out of the answer. ConfigError for what cannot be asked.
    """
    if unknown := [each for each in precisions if each not in ARITHMETIC]:
        raise ConfigError(f"unknown arithmetic {unknown[0]!r}: choose among {', '.join(ARITHMETIC)}")
    if threads < 1 or not 0 < seconds < float("inf"):
        raise ConfigError(f"threads={threads}, seconds={seconds}: choose at least 1 thread and a time above 0")
    kind = device.partition(":")[0]
    if kind not in ("cpu", "cuda"):
        raise ConfigError(f"unknown device {device!r}: choose cpu or cuda")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError("no CUDA device is at hand: choose device cpu")
    with _threads(threads), torch.inference_mode():
        return (
            _measure_cuda(device, precisions, seconds) if kind == "cuda" else _measure_cpu(threads, precisions, seconds)
        )


@contextmanager
def _threads(wanted: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)


MIB = 2**20
_Way = tuple[Callable[[], object], float]
"""Something to run, and how many operations or bytes one run is."""


_ROUNDS = 4
_Timed = Callable[[Callable[[], object]], float]
"""Runs something and gives its seconds."""


def _highest(ways: Mapping[str, Sequence[_Way]], seconds: float, timed: _Timed) -> dict[str, float]:
    """For each name, operations or bytes a second of its best way in its best run.

    All ways take turns in rounds, so that a while in which the machine is busy takes no rate as a whole.
    """
    best = dict.fromkeys(ways, 0.0)
    for call, _ in chain.from_iterable(ways.values()):
        timed(call)
    turn_s = seconds / (_ROUNDS * sum(map(len, ways.values())))
    for _, (name, some) in product(range(_ROUNDS), ways.items()):
        for call, work in some:
            end = time.perf_counter() + turn_s
            while True:  # the first run of a turn finds its numbers gone from the cache
                best[name] = max(best[name], work / timed(call))
                if time.perf_counter() >= end:
                    break
    return best


# the CPU


def _measure_cpu(threads: int, precisions: Sequence[str], seconds: float) -> Device:
    cache, memory = _cache_bytes(), _memory_bytes()
    each = max(128 * MIB, 4 * (cache or 0))
    if memory is not None:
        each = min(each, memory // 16)
    fits = [size * MIB * threads // 2 for size in (1, 4)]  # of a source and of a target, in the second and third level
    inside = [way for half in fits if cache and 2 * half <= cache for way in _moves(half)]
    ways = {precision: _usable(_cpu_products(precision, threads)) for precision in precisions}
    rates = _highest(_some({_COPY: _moves(each), _CACHE: inside, **ways}), seconds, _by_clock)
    copy, cached = rates.pop(_COPY), rates.pop(_CACHE, None)
    return Device(processor(), "cpu", threads, copy, cached, rates, True, memory, cache if cached else None)


_COPY, _CACHE = "copy", "cache"


def _some(ways: dict[str, list[_Way]]) -> dict[str, list[_Way]]:
    """Without the names that have no way."""
    return {name: some for name, some in ways.items() if some}


def _by_clock(call: Callable[[], object]) -> float:
    begin = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - begin) * 1e-9


def _moves(size: int) -> list[_Way]:
    """A copy of ``size`` bytes by torch and by the C library, whose stores go past the cache; and reading alone."""
    source, target = torch.ones(size // 4), torch.ones(size // 4)
    from_here, to_here = source.numpy(), target.numpy()
    return [
        (lambda: target.copy_(source), 2.0 * size),
        (lambda: np.copyto(to_here, from_here), 2.0 * size),
        (lambda: source.sum(), float(size)),
    ]


_FLOATS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_MATRICES = ((288, 864, 96), (512, 512, 512), (1024, 1024, 1024))
"""Rows, inner size, columns."""
_IMAGES = ((64, 32, 64), (128, 32, 32), (512, 16, 16))
"""Channels, rows and columns, convolved 3x3."""


def _cpu_products(precision: str, threads: int) -> Iterator[Callable[[], _Way]]:
    """Makers of ways; one that this processor or build of torch lacks raises."""
    for rows, inner, columns in _MATRICES:
        if precision in _FLOATS:
            yield partial(_float_matrix, rows * threads, inner, columns, _FLOATS[precision])
        elif precision == "int8":
            yield partial(_int8_matrix, rows * threads, inner, columns)
    for image in _IMAGES:
        if precision in _FLOATS:
            yield partial(_float_convolution, threads, *image, _FLOATS[precision])
        elif precision == "int8":
            yield partial(_int8_convolution, threads, *image)


def _usable(makers: Iterator[Callable[[], _Way]]) -> list[_Way]:
    """Those ways that run here."""
    ways = []
    for make in makers:
        try:
            way = make()
            way[0]()
        except (RuntimeError, AttributeError):  # no such kernel for this processor, or no such operation in this torch
            continue
        ways.append(way)
    return ways


def _float_matrix(rows: int, inner: int, columns: int, dtype: torch.dtype, device: str = "cpu") -> _Way:
    left, right = (
        torch.randn(rows, inner, device=device).to(dtype),
        torch.randn(inner, columns, device=device).to(dtype),
    )
    out = torch.empty(rows, columns, dtype=dtype, device=device)
    return lambda: torch.mm(left, right, out=out), 2.0 * rows * inner * columns


def _int8_matrix(rows: int, inner: int, columns: int, device: str = "cpu") -> _Way:
    left, right = _bytes_like(rows, inner).to(device), _bytes_like(columns, inner).to(device).t()
    return lambda: torch._int_mm(left, right), 2.0 * rows * inner * columns


def _bytes_like(*shape: int) -> Tensor:
    return torch.randint(-9, 9, shape, dtype=torch.int8)


def _float_convolution(images: int, channels: int, rows: int, columns: int, dtype: torch.dtype) -> _Way:
    frames = torch.randn(images, channels, rows, columns).to(dtype).to(memory_format=torch.channels_last)
    weight = torch.randn(channels, channels, 3, 3).to(dtype)
    one = [1, 1]
    laid = torch.ops.mkldnn._reorder_convolution_weight(weight, one, one, one, 1, list(frames.shape))
    call = torch.ops.mkldnn._convolution_pointwise
    return lambda: call(frames, laid, None, one, one, one, 1, "none", [], ""), _work(images, channels, rows, columns)


def _int8_convolution(images: int, channels: int, rows: int, columns: int) -> _Way:
    frames = torch.randint(0, 9, (images, channels, rows, columns), dtype=torch.uint8)
    frames = frames.to(memory_format=torch.channels_last)
    scales, zeros = torch.ones(channels), torch.zeros(channels, dtype=torch.int32)
    one = [1, 1]
    weight = _bytes_like(channels, channels, 3, 3)
    laid = torch.ops.onednn.qconv_prepack(weight, scales, 0.1, 0, one, one, one, 1, list(frames.shape))
    call = torch.ops.onednn.qconv2d_pointwise
    rest: tuple[Any, ...] = (None, one, one, one, 1, 1.0, 0, torch.uint8, "none", [], "")
    return lambda: call(frames, 0.1, 0, laid, scales, zeros, *rest), _work(images, channels, rows, columns)


def _work(images: int, channels: int, rows: int, columns: int) -> float:
    """Of a 3x3 convolution, with the products beyond the image's rim, as ``counting`` has them too."""
    return 2.0 * images * channels * channels * 9 * rows * columns


def _cache_bytes() -> int | None:
    """The largest cache of the first processor, where Linux tells it."""
    sizes = []
    for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = file.read_text(encoding="ascii").strip()
        sizes.append(int(text.rstrip("KMG")) * {"K": 2**10, "M": 2**20, "G": 2**30}.get(text[-1:], 1))
    return max(sizes, default=None)


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


# CUDA; not yet run on a device


def _measure_cuda(device: str, precisions: Sequence[str], seconds: float) -> Device:
    with torch.cuda.device(device):
        about = torch.cuda.get_device_properties(device)
        ways = {precision: _usable(_cuda_products(precision)) for precision in precisions}
        large, small = min(1024 * MIB, about.total_memory // 8), about.L2_cache_size // 4
        rates = _highest(_some({_COPY: _cuda_moves(large), _CACHE: _cuda_moves(small), **ways}), seconds, _by_events)
        copy, cached = rates.pop(_COPY), rates.pop(_CACHE)
        return Device(
            about.name, "cuda", 1, copy, cached, rates, True, int(about.total_memory), int(about.L2_cache_size)
        )


def _by_events(call: Callable[[], object], times: int = 10) -> float:
    """Seconds of one of several calls in a row, by the device's own clock."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    begin.record()
    for _ in range(times):
        call()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) * 1e-3 / times


def _cuda_moves(size: int) -> list[_Way]:
    source, target = torch.ones(size // 4, device="cuda"), torch.ones(size // 4, device="cuda")
    return [(lambda: target.copy_(source), 2.0 * size), (lambda: source.sum(), float(size))]


def _cuda_products(precision: str) -> Iterator[Callable[[], _Way]]:
    for size in (2048, 4096, 8192):
        if precision in _FLOATS:
            yield partial(_float_matrix, size, size, size, _FLOATS[precision], "cuda")
        elif precision == "int8":
            yield partial(_int8_matrix, size, size, size, "cuda")
        else:
            yield partial(_fp8_matrix, size)


def _fp8_matrix(size: int) -> _Way:
    left, right = (torch.randn(size, size, device="cuda").to(torch.float8_e4m3fn) for _ in range(2))
    scale = torch.ones((), device="cuda")
    turned = right.t()
    return lambda: torch._scaled_mm(left, turned, scale, scale, out_dtype=torch.bfloat16), 2.0 * size**3


# predictions

_HOPPER = {"fp32": 66.9e12, "fp16": 989.4e12, "bf16": 989.4e12, "fp8": 1978.9e12, "int8": 1978.9e12}
_HOPPER_SAYS = "NVIDIA's datasheet of the SXM part, dense"
_ORIN_SAYS = (
    "NVIDIA's Jetson AGX Orin technical brief: half of its sparse rates, GPU alone, no DLA; tensor cores take fp16 and "
    "bf16 at half the rate of int8 and have no fp8"
)


def _published(name: str, copy: float, rates: dict[str, float], memory: float, source: str) -> Device:
    return Device(name, "cuda", 1, copy, None, rates, False, int(memory), None, source)


PREDICTED: Mapping[str, Device] = {
    "h200": _published("NVIDIA H200", 4.8e12, _HOPPER, 141e9, _HOPPER_SAYS),
    "h200-seen": _published(
        "NVIDIA H200", 4.3e12, {"bf16": 790e12}, 141e9, "a copy, and a product of 8192x8192 matrices, timed on one"
    ),
    "h100": _published("NVIDIA H100", 3.35e12, _HOPPER, 80e9, _HOPPER_SAYS),
    "orin-agx-64gb": _published(
        "NVIDIA Jetson AGX Orin 64 GB", 204.8e9,
        {"fp32": 5.3e12, "fp16": 42.5e12, "bf16": 42.5e12, "int8": 85e12}, 64 * 2**30, _ORIN_SAYS,
    ),
    "orin-nx-16gb": _published(
        "NVIDIA Jetson Orin NX 16 GB", 102.4e9,
        {"fp32": 1.88e12, "fp16": 15e12, "bf16": 15e12, "int8": 30e12}, 16 * 2**30,
        f"{_ORIN_SAYS}; scaled to 1024 cores and 32 tensor cores at 918 MHz",
    ),
}  # fmt: skip
"""Devices that are not at hand, by published figures that nobody quite reaches: their floors are predictions."""
