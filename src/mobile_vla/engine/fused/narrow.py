"""Linear layers in few bits: float8 or int8 products with scales a row, or weights alone in int8.

Nothing is calibrated. A weight has one scale for each of its outputs, found when the layer is made; an activation has
one for each token, found as it comes. The layers compute on the CPU too, and there it is tested what they compute.
What is quantised on the fly is several small operations: a layer pays where they are compiled into the operation
before them.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobile_vla.core import ConfigError

FP8_MOST = 448.0
"""The largest number of float8_e4m3fn (Micikevicius et al. 2022, FP8 Formats for Deep Learning)."""
INT8_MOST = 127.0
DIVISOR = 16
"""Tensor cores multiply matrices of 8-bit numbers whose inner and outer sizes this divides; others stay as they are."""

_FEWEST_ROWS = 32
"""CUDA multiplies no fewer than 17 rows of int8."""
_LEAST = 1e-12
"""Below this, a row counts as zeros."""


class Fp8Linear(nn.Module):
    """float8_e4m3fn times float8_e4m3fn, added up in float32: Hopper's and Ada's tensor cores, and newer ones."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        scale = _scales(weight.float(), FP8_MOST)
        self.register_buffer("weight", (weight.float() / scale).to(torch.float8_e4m3fn))
        self.register_buffer("scale", scale.t().contiguous())
        self.register_buffer("bias", None if bias is None else bias.to(torch.bfloat16))

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to bfloat16 (..., outputs)."""
        rows = x.flatten(0, -2)
        scale = _scales(rows.float(), FP8_MOST)
        small = (rows.float() / scale).to(torch.float8_e4m3fn)
        product: Tensor = torch._scaled_mm(
            small,
            self.weight.t(),
            scale_a=scale,
            scale_b=self.scale,
            bias=self.bias,
            out_dtype=torch.bfloat16,
            use_fast_accum=True,
        )
        return torch.unflatten(product, 0, x.shape[:-1])


class Int8Linear(nn.Module):
    """int8 times int8, added up in int32."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        scale = _scales(weight.float(), INT8_MOST)
        self.register_buffer("weight", (weight.float() / scale).round().to(torch.int8))
        self.register_buffer("scale", scale.t().contiguous())
        self.register_buffer("bias", None if bias is None else bias.float())

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        rows = x.flatten(0, -2)
        scale = _scales(rows.float(), INT8_MOST)
        small = (rows.float() / scale).round().to(torch.int8)
        count = len(small)
        if count < _FEWEST_ROWS:
            small = F.pad(small, [0, 0, 0, _FEWEST_ROWS - count])
        product = torch._int_mm(small, self.weight.t())[:count].float() * scale * self.scale
        if self.bias is not None:
            product = product + self.bias
        return torch.unflatten(product.to(x.dtype), 0, x.shape[:-1])


class Int8WeightsLinear(nn.Module):
    """Weights in int8, everything else as it comes: half the memory of bfloat16, and the same products."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        scale = _scales(weight.float(), INT8_MOST)
        self.register_buffer("weight", (weight.float() / scale).round().to(torch.int8))
        self.register_buffer("scale", scale[:, 0])
        self.register_buffer("bias", None if bias is None else bias.float())

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        product = F.linear(x, self.weight.to(x.dtype)).float() * self.scale
        if self.bias is not None:
            product = product + self.bias
        return product.to(x.dtype)


_LARGE: dict[str, tuple[torch.dtype, Callable[[Tensor, Tensor | None], nn.Module] | None]] = {
    "fp32": (torch.float32, None),
    "bf16": (torch.bfloat16, None),
    "fp16": (torch.float16, None),
    "fp8": (torch.bfloat16, Fp8Linear),
    "int8": (torch.bfloat16, Int8Linear),
    "int8_weights": (torch.bfloat16, Int8WeightsLinear),
}
PRECISIONS = tuple(_LARGE)

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Form:
    """In which numbers a network is held, and where. Layers are made one by one: never is all of it there twice.

    ``gives_up``: what a layer was made from goes to the meta device, and its memory is free.
    """

    precision: str
    device: torch.device = _CPU
    gives_up: bool = False

    def __post_init__(self) -> None:
        if self.precision not in _LARGE:
            raise ConfigError(f"unknown precision {self.precision!r}: choose among {', '.join(_LARGE)}")

    @property
    def dtype(self) -> torch.dtype:
        """Of all that is not narrowed."""
        return _LARGE[self.precision][0]

    @property
    def narrows(self) -> bool:
        """Some layers are held in fewer bits than the rest."""
        return _LARGE[self.precision][1] is not None

    def large(self, weight: Tensor, bias: Tensor | None) -> nn.Module:
        """A linear layer of which a network has most of its weights: (outputs, inputs) and (outputs,)."""
        made = _LARGE[self.precision][1]
        if made is None or any(size % DIVISOR for size in weight.shape):
            return self.plain(weight, bias)
        return made(weight, bias).to(self.device)

    def plain(self, weight: Tensor, bias: Tensor | None) -> nn.Linear:
        """A linear layer that is not narrowed."""
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
        linear.weight = nn.Parameter(self.constant(weight), requires_grad=False)
        if bias is not None:
            linear.bias = nn.Parameter(self.constant(bias), requires_grad=False)
        return linear

    def constant(self, values: Tensor) -> Tensor:
        """Numbers of its own."""
        return values.detach().to(self.device, self.dtype, copy=True).contiguous()

    def as_it_is(self, module: Any) -> Any:
        """A copy of a module, whose buffers of whole numbers stay such."""
        return copy.deepcopy(module).to(self.device, self.dtype).eval().requires_grad_(False)

    def give_up(self, *modules: nn.Module) -> None:
        """They have been made into others."""
        if self.gives_up:
            for module in modules:
                module.to("meta")


def _scales(rows: Tensor, most: float) -> Tensor:
    """(N, K) to (N, 1): what the largest of a row is divided by to become ``most``."""
    return rows.abs().amax(dim=1, keepdim=True).clamp(min=_LEAST) / most
