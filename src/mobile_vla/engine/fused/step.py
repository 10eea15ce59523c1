"""A full-size policy's decision for inference alone, in parts of which some can run side by side on a device.

Each part is a module whose ``forward`` can be compiled whole; what stands between them is a handful of calls. What does
not wait for the frame (the recurrent head's view of the frames before it) is a part of its own.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from mobile_vla.core import ConfigError
from mobile_vla.engine.fused.narrow import Form
from mobile_vla.engine.fused.towers import eye_of, mind_of
from mobile_vla.policy.heads import Head, LstmTrunk
from mobile_vla.policy.pointer import FreeWay, Pointer
from mobile_vla.policy.step import DecisionStep, believed
from mobile_vla.policy.vla import VlaNetwork
from mobile_vla.policy.vla_step import VlaStep

Abreast = Callable[[Sequence[Callable[[], Any]]], list[Any]]


def one_after_another(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Results of calls of which none needs another's."""
    return [call() for call in calls]


class FusedStep(DecisionStep):
    """Equal to the ``VlaStep`` that it is made from, up to rounding and to what ``form`` narrows.

    It has weights of its own; words are read by the step it is made from, which keeps what it needs for that.
    ``abreast`` runs calls of which none needs another's: a device's engine puts its own way in place.
    ConfigError for a network with layers that are not what they are expected to be.
    """

    def __init__(self, step: VlaStep, form: Form) -> None:
        super().__init__()
        network = step.network
        self.contract, self.size, self.form = step.contract, step.size, form
        self.abreast: Abreast = one_after_another
        self._reader = (step,)  # within a tuple: it is no part of what is compiled
        towers: list[Any] = [network.towers[name] for name in network.config.towers]
        self.counts = [2 if name == "kosmos" else 1 for name in network.config.towers]
        pointer = form.as_it_is(network.pointer)
        self.look = Look(pointer, form.as_it_is(network.way))
        self.finish = Finish(network, pointer, form)
        self.eyes = nn.ModuleList(eye_of(tower, form) for tower in towers)
        self.minds = nn.ModuleList(mind_of(tower, form) for tower in towers)
        self.recall = Recall(self.finish.trunk)

    def parts(self) -> list[nn.Module]:
        """All that compute."""
        return [*self.eyes, *self.minds, self.look, self.recall, self.finish]

    def read(self, text: str) -> tuple[Tensor, ...]:
        """See ``DecisionStep``."""
        return tuple(self._held(part) for part in self._reader[0].read(text))

    def start(self) -> Tensor:
        """See ``DecisionStep``."""
        return self._held(self._reader[0].start())

    def forward(
        self, pixels: Tensor, words: tuple[Tensor, ...], motion: Tensor, history: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See ``DecisionStep``."""
        *seen, recalled = self.abreast([*(partial(eye, pixels) for eye in self.eyes), partial(self.recall, history)])
        each = iter(words)
        asked = [tuple(next(each) for _ in range(count)) for count in self.counts]
        minds = [partial(mind, tokens, *read) for mind, (tokens, _), read in zip(self.minds, seen, asked, strict=True)]
        *answers, look = self.abreast([*minds, partial(self.look, seen[0][1])])
        decision: tuple[Tensor, Tensor, Tensor, Tensor] = self.finish(answers, look, motion, history, recalled)
        return decision

    def _held(self, part: Tensor) -> Tensor:
        return part.to(self.form.device, self.form.dtype if part.is_floating_point() else None)


class Look(nn.Module):
    """What a frame shows whatever the words: keys and boxes to point at, and the free way."""

    def __init__(self, pointer: Pointer, way: FreeWay) -> None:
        super().__init__()
        self.pointer, self.way = pointer, way

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Patches of the leading tower to keys and boxes as from ``Pointer.describe``, and features of the way."""
        keys, boxes = self.pointer.describe(patches)
        return keys, boxes, self.way(patches)[1]


class Finish(nn.Module):
    """From the towers' answers to the decision: the pointer, the frame's feature, and the head."""

    def __init__(self, network: VlaNetwork, pointer: Pointer, form: Form) -> None:
        super().__init__()
        head: Head = network.head
        self.horizon, self.endless = network.contract.horizon, head.config.window == 0
        self.pointer = pointer
        self.enter, self.join, self.motion = (
            form.as_it_is(each) for each in (network.enter, network.join, network.motion)
        )
        self.trunk: nn.Module = _trunk(head.trunk, form)
        self.status, self.decoder = form.as_it_is(head.status), form.as_it_is(head.decoder)

    def forward(
        self,
        answers: list[Tensor],
        look: tuple[Tensor, Tensor, Tensor],
        motion: Tensor,
        history: Tensor,
        recalled: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Fields of a ``Decision``; ``recalled`` as from ``Recall`` of the history."""
        keys, boxes, way = look
        pointed = self.pointer(keys, boxes, torch.cat([answer.float() for answer in answers], dim=-1))
        beside = torch.cat([answer.float() for answer in answers[1:]] + [pointed.features, way], dim=-1)
        own = self.join.weight.dtype
        feature = self.enter(answers[0].to(own)) + self.join(beside.to(own)) + self.motion(motion.to(own))
        if isinstance(self.trunk, Recurrent):
            context, states = self.trunk.go_on(feature, recalled)
            if self.endless:
                history = torch.stack([torch.stack(state, dim=1) for state in states], dim=2)
            else:
                history = torch.cat([history[:, 1:], feature[:, None]], dim=1)
        else:
            window = torch.cat([history, feature[:, None]], dim=1)
            context, history = self.trunk(window), window[:, 1:]
        chunk = torch.unflatten(self.decoder(context), -1, (self.horizon, 3)).float()
        box, visibility = pointed.box, 1.0 - pointed.logits.softmax(dim=1)[:, -1]
        belief = believed(visibility, box[:, :4], box[:, 4], pointed.bearing)
        return chunk, self.status(context).float(), belief, history


class Recall(nn.Module):
    """What the head can know before it sees the frame: of a recurrent one, its state after the frames before.

    (N, window - 1, width), or the state itself where the head remembers without end, to a state (N, 2, layers, hidden);
    for the other heads the history as it is.
    """

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, history: Tensor) -> Tensor:
        """See the class."""
        if isinstance(self.trunk, Recurrent) and history.dim() == 3:
            return self.trunk.state_after(history)
        return history


class Recurrent(nn.Module):
    """A stacked LSTM whose last step is apart from those before: one product a layer, of input and state together."""

    def __init__(self, lstm: nn.LSTM, form: Form) -> None:
        super().__init__()
        if lstm.bidirectional or lstm.proj_size or not lstm.bias:
            raise ConfigError("an LSTM that looks ahead, projects or has no bias cannot be fused: use the checkpoint")
        self.hidden = lstm.hidden_size
        made = []
        for number in range(lstm.num_layers):
            inputs, state, *biases = (
                getattr(lstm, f"{name}_l{number}").detach().float()
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            weight, bias = _reordered(torch.cat([inputs, state], dim=1)), _reordered(biases[0] + biases[1])
            made.append(form.plain(weight, bias))
        self.layers = nn.ModuleList(made)

    def state_after(self, frames: Tensor) -> Tensor:
        """(N, T, width) from the beginning to the state after them, (N, 2, layers, hidden)."""
        states = []
        for layer in self.layers:
            linear = cast("nn.Linear", layer)
            width = frames.shape[2]
            entered = nn.functional.linear(frames, linear.weight[:, :width], linear.bias)
            hidden = cell = frames.new_zeros(len(frames), self.hidden)
            outputs = []
            for place in range(frames.shape[1]):
                gates = torch.addmm(entered[:, place], hidden, linear.weight[:, width:].t())
                hidden, cell = _gated(gates, cell)
                outputs.append(hidden)
            states.append(torch.stack([hidden, cell], dim=1))
            frames = torch.stack(outputs, dim=1) if outputs else frames.new_zeros(len(frames), 0, self.hidden)
        return torch.stack(states, dim=2)

    def go_on(self, feature: Tensor, state: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """One frame (N, width) after a state (N, 2, layers, hidden): the output, and output and cell of each layer."""
        states = []
        for number, layer in enumerate(self.layers):
            gates = layer(torch.cat([feature, state[:, 0, number]], dim=1))
            feature, cell = _gated(gates, state[:, 1, number])
            states.append((feature, cell))
        return feature, states


def _reordered(gates: Tensor) -> Tensor:
    """Rows of torch's gates (enter, forget, new, leave) with the three that end in a sigmoid first."""
    enter, forget, new, leave = gates.chunk(4)
    return torch.cat([enter, forget, leave, new])


def _gated(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """The gates' sums (N, 4 * hidden) in the order of ``_reordered``, and the cell: output and next cell."""
    hidden = cell.shape[1]
    enter, forget, leave = gates[:, : 3 * hidden].sigmoid().chunk(3, dim=1)
    cell = torch.addcmul(forget * cell, enter, gates[:, 3 * hidden :].tanh())
    return leave * cell.tanh(), cell


def _trunk(trunk: nn.Module, form: Form) -> nn.Module:
    if isinstance(trunk, LstmTrunk):
        return Recurrent(trunk.lstm, form)
    kept: nn.Module = form.as_it_is(trunk)
    return kept
