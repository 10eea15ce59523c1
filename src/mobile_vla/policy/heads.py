"""Action heads: from a history of frame features to a chunk of velocities and a status. By name, with any backbone.

A head is a trunk that looks back, and a decoder that answers. Trunks: ``lstm``, ``mlp``, ``transformer`` (causal).
Decoders: a small network that regresses the chunk, or ``flow``, which carries noise to a chunk along a learned field
(flow matching, Lipman et al. 2023; for robot actions: Black et al. 2024), over the LSTM's trunk.

The history is passed in and out. A windowed trunk keeps the features of the last ``window`` - 1 frames, and before
the first frame a learned one stands in; with ``window`` 0 the LSTM remembers by its own state, without end.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobile_vla.core import ConfigError, Status

STATUSES = tuple(Status)
HEADS = ("lstm", "mlp", "transformer", "flow")
HUBER_DELTA, HUBER_GAIN = 0.1, 10.0
"""In shares of the limits: an error beyond a tenth of the fastest counts linearly; the gain makes its slope one."""


@dataclass(frozen=True)
class HeadConfig:
    """``kind`` is one of ``HEADS``; ``window`` in frames, 0 for an LSTM that remembers the whole drive.

    ``layers`` and ``hidden`` are the trunk's; ``decoder`` are the widths between the trunk and the chunk. ``attention``
    is the transformer's number of heads, ``flow_steps`` how many Euler steps carry noise to a chunk. ``squash`` ends a
    regression with tanh.
    """

    kind: str = "lstm"
    window: int = 8
    hidden: int = 1024
    layers: int = 4
    decoder: tuple[int, ...] = (1024, 512, 256)
    attention: int = 8
    flow_steps: int = 10
    squash: bool = False

    def __post_init__(self) -> None:
        if self.kind not in HEADS:
            raise ConfigError(f"unknown action head {self.kind!r}: choose among {', '.join(HEADS)}")
        if self.window < 0 or (self.window == 0 and self.kind not in ("lstm", "flow")):
            raise ConfigError(
                f"head.window={self.window} with {self.kind}: choose at least 1; 0 (no end) is for lstm and flow"
            )
        if min(self.hidden, self.layers, self.flow_steps, self.attention, *self.decoder) < 1:
            raise ConfigError("head.hidden, layers, decoder, attention and flow_steps need to be at least 1")
        if self.kind == "transformer" and self.hidden % self.attention:
            raise ConfigError(f"head.hidden={self.hidden} is not divisible by head.attention={self.attention}")


class Decided(NamedTuple):
    """``context`` (N, T, hidden) that the chunk is made from, ``status`` logits (N, T, 4), ``history`` as passed in."""

    context: Tensor
    status: Tensor
    history: Tensor


class Head(nn.Module):
    """``width`` is the frame feature's, ``horizon`` the chunk's number of rows."""

    def __init__(self, config: HeadConfig, width: int, horizon: int) -> None:
        super().__init__()
        self.config, self.width, self.horizon = config, width, horizon
        trunks = {"lstm": LstmTrunk, "mlp": MlpTrunk, "transformer": TransformerTrunk, "flow": LstmTrunk}
        self.trunk: nn.Module = trunks[config.kind](config, width)
        self.start = nn.Parameter(torch.zeros(width))
        self.status = nn.Linear(config.hidden, len(STATUSES))
        self.decoder: Regression | Flow = (
            Flow(config, 3 * horizon) if config.kind == "flow" else Regression(config, 3 * horizon)
        )

    def initial(self, sessions: int) -> Tensor:
        """The history before the first frame, for N sessions: (N, ...)."""
        if self.config.window == 0:
            return self.start.new_zeros(sessions, 2, self.config.layers, self.config.hidden)
        return self.start.expand(sessions, self.config.window - 1, self.width)

    def forward(self, features: Tensor, history: Tensor) -> Decided:
        """T frames of N sessions, (N, T, width), after ``history``."""
        if self.config.window == 0:
            context, history = self.trunk.go_on(features, history)  # type: ignore[operator]
            return Decided(context, self.status(context), history)
        sessions, steps, _ = features.shape
        extended = torch.cat([history, features], dim=1)
        windows = extended.unfold(1, self.config.window, 1).transpose(2, 3)  # (N, T, window, width)
        context = torch.unflatten(self.trunk(windows.flatten(0, 1)), 0, (sessions, steps))
        return Decided(context, self.status(context), extended[:, steps:])

    def chunk(self, context: Tensor) -> Tensor:
        """(..., hidden) to velocities in shares of the limits, (..., horizon, 3)."""
        return torch.unflatten(self.decoder(context), -1, (self.horizon, 3))

    def loss(self, context: Tensor, chunks: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Elementwise loss (..., horizon, 3) against ``chunks`` of the same shape.

        Where these are NaN it is zero, and nothing is learnt from there.

        ``noise`` is normal, of the chunks' shape, and ``time`` uniform in 0..1, (...): for ``flow``; the regression
        does not look at them.
        """
        known = torch.isfinite(chunks)
        # masked after the fact, a NaN would still reach the gradients: it is taken out before
        loss = self.decoder.loss(context, chunks.nan_to_num().flatten(-2), noise.flatten(-2), time)
        return torch.unflatten(loss, -1, (self.horizon, 3)) * known


class LstmTrunk(nn.Module):
    """The last output of a stacked LSTM over the window."""

    def __init__(self, config: HeadConfig, width: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, config.hidden, config.layers, batch_first=True)

    def forward(self, windows: Tensor) -> Tensor:
        """(N, window, width) to (N, hidden)."""
        outputs: Tensor = self.lstm(windows)[0]
        return outputs[:, -1]

    def go_on(self, features: Tensor, history: Tensor) -> tuple[Tensor, Tensor]:
        """(N, T, width) after the state (N, 2, layers, hidden): outputs (N, T, hidden) and the next state."""
        hidden, cell = history.permute(1, 2, 0, 3).contiguous()
        outputs, state = self.lstm(features, (hidden, cell))
        return outputs, torch.stack(state).permute(2, 0, 1, 3)


class MlpTrunk(nn.Module):
    """All frames of the window side by side."""

    def __init__(self, config: HeadConfig, width: int) -> None:
        super().__init__()
        widths = [config.window * width] + [config.hidden] * config.layers
        self.layers = _perceptron(widths, nn.GELU)

    def forward(self, windows: Tensor) -> Tensor:
        """(N, window, width) to (N, hidden)."""
        result: Tensor = self.layers(windows.flatten(1))
        return result


class TransformerTrunk(nn.Module):
    """Causal attention over the window; the newest frame's place answers."""

    def __init__(self, config: HeadConfig, width: int) -> None:
        super().__init__()
        self.enter = nn.Linear(width, config.hidden)
        self.place = nn.Parameter(0.02 * torch.randn(config.window, config.hidden))
        layer = nn.TransformerEncoderLayer(
            config.hidden, config.attention, 4 * config.hidden, 0.0, F.gelu, batch_first=True, norm_first=True
        )
        norm = nn.LayerNorm(config.hidden)
        self.layers = nn.TransformerEncoder(layer, config.layers, norm, enable_nested_tensor=False)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(config.window), persistent=False)

    def forward(self, windows: Tensor) -> Tensor:
        """(N, window, width) to (N, hidden)."""
        attended: Tensor = self.layers(self.enter(windows) + self.place, self.mask, is_causal=True)
        return attended[:, -1]


class Regression(nn.Module):
    """The chunk at once, learnt by the Huber loss."""

    def __init__(self, config: HeadConfig, size: int) -> None:
        super().__init__()
        self.squash = config.squash
        self.layers = _perceptron([config.hidden, *config.decoder], nn.ReLU)
        self.out = nn.Linear([config.hidden, *config.decoder][-1], size)

    def forward(self, context: Tensor) -> Tensor:
        """(..., hidden) to (..., size)."""
        out: Tensor = self.out(self.layers(context))
        return out.tanh() if self.squash else out

    def loss(self, context: Tensor, chunks: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """(..., size)."""
        return HUBER_GAIN * F.huber_loss(self(context).float(), chunks, reduction="none", delta=HUBER_DELTA)


class Flow(nn.Module):
    """A field that carries noise at time 0 to the chunk at time 1.

    Driving begins at one noise, kept with the weights: the same observation then always gives the same chunk.
    """

    noise: Tensor

    def __init__(self, config: HeadConfig, size: int) -> None:
        super().__init__()
        self.steps = config.flow_steps
        self.field = _perceptron([config.hidden + size + _TIME_FEATURES, *config.decoder], nn.SiLU)
        self.out = nn.Linear(config.decoder[-1] if config.decoder else config.hidden + size + _TIME_FEATURES, size)
        self.register_buffer("noise", torch.randn(size))

    def forward(self, context: Tensor) -> Tensor:
        """(..., hidden) to (..., size)."""
        chunk = self.noise.float().expand(*context.shape[:-1], -1)
        for step in range(self.steps):
            # float32 whatever the weights: in bfloat16 the time's fastest sine would be off by a twentieth
            time = context.new_full(context.shape[:-1], step / self.steps, dtype=torch.float32)
            chunk = chunk + self._field(context, chunk, time).float() / self.steps
        return chunk

    def loss(self, context: Tensor, chunks: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """(..., size)."""
        between = noise + time[..., None] * (chunks - noise)
        return (self._field(context, between, time).float() - (chunks - noise)).square()

    def _field(self, context: Tensor, chunk: Tensor, time: Tensor) -> Tensor:
        angles = time[..., None] * math.pi * 2.0 ** torch.arange(_TIME_FEATURES // 2, device=time.device)
        features = torch.cat([context, chunk.to(context), angles.sin().to(context), angles.cos().to(context)], dim=-1)
        out: Tensor = self.out(self.field(features))
        return out


_TIME_FEATURES = 8


def _perceptron(widths: list[int], activation: type[nn.Module]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers)
