"""How much a network has to compute and to move in one call: counted by running it once, not estimated from its sizes.

Works wherever the network stands, on PyTorch's meta device too, where it has shapes and no numbers: a network of
billions of weights is counted in seconds without memory. Products are counted by the formulas of
``torch.utils.flop_counter``. Fused kernels that it does not know (attention and LSTM on the CPU, the fast path of
transformer layers) are switched off meanwhile, so that a network has the same FLOPs and weights on every device.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from mobile_vla.core import ConfigError


@dataclass(frozen=True)
class Precision:
    """Bytes of a weight and of a number between two operations, and the ``arithmetic`` of the products."""

    weight_bytes: float
    activation_bytes: int
    arithmetic: str


PRECISIONS: Mapping[str, Precision] = {
    "fp32": Precision(4, 4, "fp32"),
    "bf16": Precision(2, 2, "bf16"),
    "fp16": Precision(2, 2, "fp16"),
    "fp8": Precision(1, 1, "fp8"),
    "int8": Precision(1, 1, "int8"),
    "int8_weights": Precision(1, 2, "bf16"),
    "int4_weights": Precision(0.5, 2, "bf16"),
}
"""By name; the last two keep only the weights small. Scales and zero points of quantised weights are not counted."""


def precision_named(name: str) -> Precision:
    """ConfigError for an unknown one."""
    if name not in PRECISIONS:
        raise ConfigError(f"unknown precision {name!r}: choose among {', '.join(PRECISIONS)}")
    return PRECISIONS[name]


@dataclass(frozen=True)
class Count:
    """Of one call of a network.

    ``parameters``: of the whole network, used by the call or not, shared ones once.
    ``flops``: two for each multiplication with its addition, in matrix products and convolutions; nothing else counts,
    and attention that looks back alone counts as if it looked everywhere.
    ``weight_bytes``: every weight and buffer that the call reads, once, in the precision. Of a table that is looked
    up, the rows. Floating-point numbers alone change their size with the precision, and all of them do: an engine that
    keeps some wider moves more.
    ``activation_bytes``: unfused, that is, what the operations would move if each read all of its inputs from memory
    and wrote all of its outputs there; weights are not among them, views move nothing. A fused engine moves less.
    ``io_bytes``: the inputs and outputs of the call itself, each once.
    """

    parameters: int
    flops: int
    weight_bytes: int
    activation_bytes: int
    io_bytes: int

    def to_dict(self) -> dict[str, int]:
        """Plain values."""
        return asdict(self)


def count(module: nn.Module, inputs: tuple[Any, ...], precision: str) -> Count:
    """Of ``module(*inputs)`` in evaluation mode, as if its weights and activations had this precision.

    The inputs (tensors, or tuples of them) stand where the module stands. ConfigError for an unknown precision.
    """
    sizes = precision_named(precision)
    watch = _Watch(module, sizes)
    with _evaluating(module), _unfused(), _where(module), watch:
        outputs = module(*inputs)
    io = sum(_bytes(each, sizes) for each in [*_tensors(inputs), *_tensors(outputs)])
    return Count(
        sum(each.numel() for each in module.parameters()),
        watch.flops,
        watch.weight_bytes(),
        watch.moved,
        io,
    )


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    training = [each for each in module.modules() if each.training]
    module.eval()
    try:
        with torch.inference_mode(False), torch.no_grad():
            yield
    finally:
        for each in training:
            each.training = True


def _where(module: nn.Module) -> AbstractContextManager[Any]:
    """On the meta device, what a network makes while it runs has to stand there too."""
    return torch.device("meta") if any(each.is_meta for each in module.parameters()) else nullcontext()


@contextmanager
def _unfused() -> Iterator[None]:
    """Attention and recurrent layers as matrix products, whatever the device."""
    fast = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
        stack.callback(torch._C._set_mkldnn_enabled, torch._C._get_mkldnn_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
        torch._C._set_mkldnn_enabled(False)  # its context manager in torch.backends warns of Intel GPUs
        yield


_LOOKED_UP = {
    torch.ops.aten.embedding.default,
    torch.ops.aten.index.Tensor,
    torch.ops.aten.index_select.default,
    torch.ops.aten.gather.default,
    torch.ops.aten.take.default,
}
"""Of their first input they read what they give out, not all of it."""

_ONLY_MADE = {
    torch.ops.aten.empty.memory_format,
    torch.ops.aten.empty_strided.default,
    torch.ops.aten.empty_like.default,
}
"""They reserve memory and write nothing."""


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up what the operations compute, and what they read and write, the module's own weights apart."""

    def __init__(self, module: nn.Module, sizes: Precision) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = self.moved = 0
        self._sizes = sizes
        own = [*module.parameters(), *module.buffers()]
        self._own = {_place(each): each for each in own}
        self._parts: dict[int, dict[object, int]] = defaultdict(dict)

    def weight_bytes(self) -> int:
        """Of the weights that were read so far."""
        total = 0.0
        for place, parts in self._parts.items():
            weight = self._own[place]
            whole = weight.untyped_storage().nbytes() // weight.element_size()
            each = self._sizes.weight_bytes if weight.is_floating_point() else weight.element_size()
            total += min(whole, sum(parts.values())) * each
        return math.ceil(total)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        formula = flop_registry.get(func._overloadpacket)
        if formula is None:
            with self:  # where nothing is recorded for autograd, some operations come here before they are taken apart
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        if formula is not None:
            self.flops += int(formula(*args, **kwargs, out_val=out))
        read, written = list(_tensors((args, kwargs))), list(_tensors(out))
        changes = func._schema.is_mutable
        places = {_place(each) for each in read}
        if not changes and written and all(_place(each) in places for each in written):
            return out  # a view
        if func in _ONLY_MADE:
            return out
        for order, tensor in enumerate(read):
            if changes and order == 0 and func in _WRITTEN_ONLY:
                continue
            looked_up = written[0].numel() if func in _LOOKED_UP and order == 0 else None
            self._reads(tensor, looked_up)
        self.moved += sum(_bytes(each, self._sizes) for each in written)
        return out

    def _reads(self, tensor: Tensor, most: int | None) -> None:
        """``most`` numbers of it, or all."""
        place = _place(tensor)
        layout, numbers = _layout(tensor)
        if most is not None:
            numbers = min(numbers, most)
        if place not in self._own:
            self.moved += numbers * _width(tensor, self._sizes)
        elif most is None:
            self._parts[place][layout] = numbers
        else:
            self._parts[place][len(self._parts[place])] = numbers


_WRITTEN_ONLY = {
    torch.ops.aten.copy_.default,
    torch.ops.aten.fill_.Scalar,
    torch.ops.aten.fill_.Tensor,
    torch.ops.aten.zero_.default,
}
"""They change their first input without looking at it."""


def _place(tensor: Tensor) -> int:
    """The same for all views of a tensor; alive as long as one of them is."""
    return int(tensor.untyped_storage()._cdata)


def _layout(tensor: Tensor) -> tuple[object, int]:
    """Which numbers of its storage a tensor looks at, the same however they are turned or folded; and how many."""
    steps = sorted((stride, size) for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size != 1)
    folded: list[tuple[int, int]] = []
    for stride, size in steps:
        if stride == 0:
            continue  # repeated without being there more than once
        if folded and stride == folded[-1][0] * folded[-1][1]:
            folded[-1] = (folded[-1][0], folded[-1][1] * size)
        else:
            folded.append((stride, size))
    numbers = 0 if tensor.numel() == 0 else math.prod(size for _, size in folded)
    return (tensor.storage_offset(), tuple(folded)), numbers


def _width(tensor: Tensor, sizes: Precision) -> int:
    own = tensor.element_size()
    return min(own, sizes.activation_bytes) if tensor.is_floating_point() else own


def _bytes(tensor: Tensor, sizes: Precision) -> int:
    return _layout(tensor)[1] * _width(tensor, sizes)


def _tensors(value: Any) -> Iterator[Tensor]:
    """All that are in tuples, lists and mappings, at any depth."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _tensors(each)
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _tensors(each)
