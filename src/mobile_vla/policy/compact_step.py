"""The compact policy's decision for engines: its convolutions with their normalisation folded in, its GRU as products.

Equal to ``CompactPolicy.step`` up to rounding. A GRU written as two products can be compiled and quantised everywhere.
"""

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mobile_vla.language import encode
from mobile_vla.policy.compact import CompactNetwork, Residual, bearing_of, pointed_box
from mobile_vla.policy.preprocess import HEIGHT, WIDTH, to_tensor
from mobile_vla.policy.step import DecisionStep, believed


class CompactStep(DecisionStep):
    """Stands on a copy of the network's weights; reading words stays with the network."""

    def __init__(self, network: CompactNetwork) -> None:
        super().__init__()
        self.contract, self.size = network.contract, (HEIGHT, WIDTH)
        self._reader = (network.text.eval(),)  # within a tuple: it is no part of what is compiled
        self.network = _without_norms(network)

    @torch.inference_mode()
    def read(self, text: str) -> tuple[Tensor, ...]:
        """One vector, (1, words)."""
        words: Tensor = self._reader[0](torch.from_numpy(encode(text))[None])
        return (words.to(self._weights.device, self._weights.dtype).clone(),)

    def start(self) -> Tensor:
        """Zeros, (1, memory)."""
        return self._weights.new_zeros(1, self.network.config.memory)

    def forward(
        self, pixels: Tensor, words: tuple[Tensor, ...], motion: Tensor, history: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See ``DecisionStep``."""
        network, (asked,) = self.network, words
        sight = network.eye(to_tensor(pixels).to(asked.dtype))
        pointed, seen = network.read(sight, asked)
        entered = F.relu(network.enter(torch.cat([seen.to(asked.dtype), asked, motion.to(asked.dtype)], dim=1)))
        history = _gated(network.memory, entered, history)
        out = network.head(torch.cat([history, entered], dim=1)).float()
        split = 3 * network.contract.horizon
        inner = pointed.logits[:, :-1].float().softmax(dim=1)
        box = pointed_box(inner, sight.boxes.float())
        visibility = 1.0 - pointed.logits.float().softmax(dim=1)[:, -1]
        belief = believed(visibility, box[:, :4], box[:, 4], bearing_of(box[:, 0], box[:, 4]))
        return torch.unflatten(out[:, :split], 1, (network.contract.horizon, 3)), out[:, split:], belief, history

    @property
    def _weights(self) -> Tensor:
        return self.network.enter.weight


def _gated(gru: nn.GRU, x: Tensor, before: Tensor) -> Tensor:
    """One step of torch's GRU (N, inputs), (N, memory)."""
    in_weight, back_weight, in_bias, back_bias = (cast(Tensor, each) for each in gru.all_weights[0])
    from_x, from_before = F.linear(x, in_weight, in_bias), F.linear(before, back_weight, back_bias)
    reset_x, update_x, new_x = from_x.chunk(3, dim=1)
    reset_before, update_before, new_before = from_before.chunk(3, dim=1)
    update = (update_x + update_before).sigmoid()
    new = (new_x + (reset_x + reset_before).sigmoid() * new_before).tanh()
    return new + update * (before - new)


def _without_norms(network: CompactNetwork) -> CompactNetwork:
    """A copy in which each normalisation has become part of the convolution before it, and without the text's part."""
    bare = copy.deepcopy(network).eval().requires_grad_(False)
    del bare.text
    for module in list(bare.modules()):
        if isinstance(module, nn.Sequential) and len(module) > 1 and isinstance(module[1], nn.BatchNorm2d):
            module[0] = fuse_conv_bn_eval(cast(nn.Conv2d, module[0]), module[1])
            module[1] = nn.Identity()
        if isinstance(module, Residual):
            module.second = fuse_conv_bn_eval(module.second, module.norm)
            module.norm = nn.Identity()  # type: ignore[assignment]
    return bare.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
