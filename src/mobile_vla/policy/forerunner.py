"""A checkpoint of the forerunner's kind becomes a ``kosmos_lstm``: Kosmos-2, an LSTM over its answers, a small network.

Two layouts are known, by the names in the public code of RoboVLMs (Li et al. 2024) and of the forerunner that was built
on it. ``KEYS`` is the whole mapping. What the action's numbers mean stands in no such file, so the contract is asked
for. Files are read by ``mobile_vla.checkpoint``: no code in them is run.

Of our network, what theirs lacks begins without effect: the frame feature is Kosmos-2's answer alone, the target is
never said to be in view, and the status is always "driving", until a training teaches them.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mobile_vla.checkpoint.layout import Tensor
from mobile_vla.core import AXES, ActionContract, CheckpointError, ConfigError, Status
from mobile_vla.policy.encoders.kosmos import UNMARKED
from mobile_vla.policy.encoders.sources import SIZES, describe, load_weights
from mobile_vla.policy.heads import STATUSES, HeadConfig
from mobile_vla.policy.kosmos_lstm import KosmosLstmConfig, KosmosLstmNetwork
from mobile_vla.policy.weights import grouped, placed, values_of

LAYOUTS = {"forerunner": "act_head.velocities.mlp", "robovlms": "act_head.actions.mlp"}
"""Where the decoder of each layout stands. They differ in nothing else."""

TOWER = "towers.kosmos.model"
KEYS: tuple[tuple[str, str], ...] = (
    ("backbone.text_model.model.", f"{TOWER}.text_model.model."),
    ("backbone.vision_model.", f"{TOWER}.vision_model."),
    ("backbone.image_to_text_projection.", f"{TOWER}.image_to_text_projection."),
    ("action_token", "towers.kosmos.action"),
    ("act_head.rnn.", "head.trunk.lstm."),
    ("DECODER.{even}.", "head.decoder.layers.{even}."),
    ("DECODER.{last}.", "head.decoder.out."),
)
"""Beginnings of their names and of ours; DECODER is what ``LAYOUTS`` says. The last layer's rows are spread over our
three axes: row (step, axis) of theirs is row (step, axis) of ours, and an axis that they lack gets zeros."""

LEFT_OUT = {
    "backbone.text_model.lm_head.": "the vocabulary's logits, which no action needs",
    "act_head.gripper.": "a gripper, which a mobile base has not",
    "position_ids": "numbers that are counted again",
}
"""By beginning or end of the name: what is left out on purpose, and why."""

REFUSED = {
    "lora_": "it holds additions of LoRA beside the matrices: merge them (peft: merge_and_unload) and save again",
    "act_head.logits.": "its head chooses among classes and gives no velocities",
    "vision_resampler.": "its images pass through a resampler, which Kosmos-2 here has not",
    "embed_state.": "it reads the robot's state through layers that this network has not",
}
"""Parts of names that change what the network does, and cannot be taken over."""

_PROMPT = (
    'the original training began each instruction with "<grounding>An image of a robot ", and what is said to this '
    "policy should too"
)
_FLOATS = ("BF16", "F16", "F32", "F64")
_THEIRS = ("head.trunk.", "head.decoder.", "towers.")
_FIRST = "act_head.rnn.weight_ih_l0"
_UNSEEN = 10.0
"""Logit of "not in view" until it is learnt."""


@dataclass(frozen=True)
class Imported:
    """What became of a foreign checkpoint's tensors, by their names there and ours.

    ``matched`` maps theirs to ours, ``left`` theirs to why they were left. ``pretrained`` are ours, taken from the
    weights of ``kosmos`` for want of theirs. ``fresh`` are ours that theirs have no part for. ``idle`` axes get zero.
    """

    path: Path
    layout: str
    kosmos: str
    prefix: str
    matched: Mapping[str, str]
    left: Mapping[str, str]
    pretrained: tuple[str, ...]
    fresh: tuple[str, ...]
    idle: tuple[str, ...]
    head: HeadConfig = field(default_factory=HeadConfig)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "path": str(self.path),
            "layout": self.layout,
            "kosmos": self.kosmos,
            "prefix": self.prefix,
            "matched": dict(self.matched),
            "left": dict(self.left),
            "pretrained": list(self.pretrained),
            "fresh": list(self.fresh),
            "idle": list(self.idle),
        }

    def __str__(self) -> str:
        """For a terminal, a line each."""
        head = self.head
        widths = "-".join(map(str, (head.hidden, *head.decoder)))
        lines = [
            f"{len(self.matched)} of {len(self.matched) + len(self.left)} tensors of {self.path} are taken over",
            f"head: LSTM of {head.layers} layers of {head.hidden}, decoder {widths}, window of {head.window} frames",
        ]
        if self.prefix:
            lines.append(f"they are called {self.prefix}* there")
        reasons: dict[str, list[str]] = {}
        for name, why in self.left.items():
            reasons.setdefault(why, []).append(name)
        lines += [f"left out: {grouped(names, 3)} ({why})" for why, names in reasons.items()]
        if self.pretrained:
            lines.append(f"from the weights of {self.kosmos}, for want of others: {grouped(self.pretrained, 3)}")
        lines.append(f"start without effect, to be learnt: {grouped(self.fresh, 3)}")
        lines.append(_PROMPT)
        lines += [f"{axis}: always 0, for the checkpoint has no such axis" for axis in self.idle]
        return "\n".join(lines)


def import_checkpoint(
    path: Path,
    layout: str,
    contract: ActionContract,
    axes: Sequence[str],
    kosmos: str,
    window: int = 8,
    opaque: Collection[str] = (),
) -> tuple[KosmosLstmNetwork, Imported]:
    """A ``kosmos_lstm`` with the weights at ``path``, and what became of them.

    ``axes`` are those of the checkpoint in its order, with a minus where its positive is our negative; its numbers are
    shares of ``contract.limits``. ``kosmos`` says where configuration and tokenizer come from, and the backbone where
    the checkpoint holds none. ``window``: frames that the LSTM looks back. ``opaque`` as in ``checkpoint.survey``.

    ConfigError for an unknown layout or axis, CheckpointError for tensors that are missing or do not fit.
    DamagedCheckpointError and UnsafeCheckpointError as ``read_tensors``.
    """
    if layout not in LAYOUTS:
        raise ConfigError(f"unknown layout {layout!r}: choose among {', '.join(LAYOUTS)}")
    signs = _signs(axes)
    held = placed(path, opaque)
    prefix = _prefix(path, layout, held)
    theirs = {tensor.name.removeprefix(prefix): tensor for tensor in held if tensor.name.startswith(prefix)}
    _require_plain(path, theirs)
    head = _head(path, layout, theirs, contract.horizon * len(signs), window)
    spec = describe(kosmos, "kosmos")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        side = int(spec.config["vision_config"]["image_size"])
        config = KosmosLstmConfig(side, side, head=head, kosmos=kosmos, prompt=UNMARKED)
        network = KosmosLstmNetwork(config, contract, {"kosmos": spec})
    ours = network.state_dict()
    names = {their: _ours(their, layout, len(head.decoder)) for their in theirs}
    matched = {their: our for their, our in names.items() if our in ours}
    got = set(matched.values())
    lacking = [name for name in ours if name.startswith(_THEIRS) and name not in got]
    pretrained = tuple(name for name in lacking if name.startswith(TOWER))
    if needed := [name for name in lacking if name not in pretrained]:
        raise CheckpointError(f"{path} lacks what {grouped(needed)} would be taken from: it is not of layout {layout}")
    if pretrained and kosmos in SIZES:
        raise CheckpointError(
            f"{path} lacks {len(pretrained)} tensors of the backbone ({grouped(pretrained, 3)}), and {kosmos} has no "
            "pretrained ones: name a Kosmos-2 that has, with --kosmos"
        )
    if pretrained:
        load_weights(network.towers["kosmos"])  # type: ignore[arg-type]
        ours = network.state_dict()
    with torch.no_grad():
        for their, our in matched.items():
            value = _values(path, theirs[their])
            if our.startswith("head.decoder.out."):
                value = _spread(value, signs, contract.horizon)
            _require_fit(path, theirs[their], value, our, ours[our], kosmos)
            ours[our].copy_(value)
        _silence(network)
    left = {their: _why_left(their) for their in theirs if their not in matched}
    left |= {tensor.name: "outside the network" for tensor in held if not tensor.name.startswith(prefix)}
    fresh = tuple(name for name in ours if name not in got and name not in pretrained)
    idle = tuple(axis for axis in AXES if axis not in signs)
    return network.eval(), Imported(path, layout, kosmos, prefix, matched, left, pretrained, fresh, idle, head)


def _signs(axes: Sequence[str]) -> dict[str, float]:
    """From "-linear_y" to {"linear_y": -1.0}, in the given order."""
    signs = {axis.removeprefix("-"): -1.0 if axis.startswith("-") else 1.0 for axis in axes}
    if unknown := [axis for axis in signs if axis not in AXES]:
        raise ConfigError(f"unknown axis {unknown[0]!r}: choose among {', '.join(AXES)}")
    if len(signs) != len(axes) or not signs:
        raise ConfigError(f"axes {','.join(axes)}: name each axis of the checkpoint once, in its order")
    return signs


def _values(path: Path, their: Tensor) -> torch.Tensor:
    if their.dtype not in _FLOATS:
        raise CheckpointError(
            f"{their.name} in {path} is of dtype {their.dtype}: it was quantised; import the weights from before that"
        )
    return values_of(their)


def _require_fit(path: Path, their: Tensor, value: torch.Tensor, name: str, own: torch.Tensor, kosmos: str) -> None:
    if value.shape != own.shape:
        raise CheckpointError(
            f"{their.name} in {path} is of shape {list(their.shape)}, and {name} of {list(own.shape)}: "
            f"the checkpoint was made with another Kosmos-2 than {kosmos}"
        )


def _prefix(path: Path, layout: str, held: Sequence[Tensor]) -> str:
    found = [tensor.name.removesuffix(_FIRST) for tensor in held if tensor.name.endswith(_FIRST)]
    if len(found) != 1:
        some = grouped([tensor.name for tensor in held], 3)
        what = f"{len(found)} networks ({', '.join(found)})" if found else f"no {_FIRST} ({some})"
        raise CheckpointError(f"{path} holds {what}, where layout {layout} has one")
    return found[0]


def _require_plain(path: Path, theirs: Mapping[str, Tensor]) -> None:
    for part, why in REFUSED.items():
        if names := [name for name in theirs if part in name]:
            raise CheckpointError(f"{path} cannot be taken over ({names[0]}): {why}")


def _head(path: Path, layout: str, theirs: Mapping[str, Tensor], outputs: int, window: int) -> HeadConfig:
    """Sizes by shapes. CheckpointError where the decoder is not there, or gives another number of outputs."""
    base = LAYOUTS[layout]
    layers = len([name for name in theirs if name.startswith("act_head.rnn.weight_ih_l")])
    hidden = theirs[_FIRST].shape[0] // 4
    widths = list(_widths(theirs, base))
    if not widths:
        others = [name for name, start in LAYOUTS.items() if name != layout and f"{start}.0.weight" in theirs]
        hint = f": try --layout {others[0]}" if others else ""
        raise CheckpointError(f"{path} holds no {base}.0.weight, which layout {layout} has{hint}")
    if widths[-1] != outputs:
        raise CheckpointError(
            f"the last layer of {path} gives {widths[-1]} numbers, and horizon times axes is {outputs}: "
            "name the horizon and the axes that it was trained with"
        )
    return HeadConfig("lstm", window=window, hidden=hidden, layers=layers, decoder=tuple(widths[:-1]), squash=True)


def _widths(theirs: Mapping[str, Tensor], base: str) -> Iterator[int]:
    place = 0
    while (name := f"{base}.{place}.weight") in theirs:
        yield theirs[name].shape[0]
        place += 2


def _ours(their: str, layout: str, hidden_layers: int) -> str | None:
    """Our name of a tensor of theirs, as ``KEYS`` says."""
    base = f"{LAYOUTS[layout]}."
    if their.startswith(base):
        place, _, leaf = their.removeprefix(base).partition(".")
        part = "out" if place == str(2 * hidden_layers) else f"layers.{place}"
        return f"head.decoder.{part}.{leaf}"
    for start, our in KEYS:
        if their == start or (start.endswith(".") and their.startswith(start)):
            return our + their.removeprefix(start)
    return None


def _spread(value: torch.Tensor, signs: Mapping[str, float], horizon: int) -> torch.Tensor:
    """Rows (horizon * axes, ...) of the last layer to (horizon * 3, ...) in the order of ``AXES``."""
    rows = value.reshape(horizon, len(signs), *value.shape[1:])
    spread = rows.new_zeros(horizon, len(AXES), *rows.shape[2:])
    for place, (axis, sign) in enumerate(signs.items()):
        spread[:, AXES.index(axis)] = sign * rows[:, place]
    return spread.reshape(-1, *value.shape[1:])


def _silence(network: KosmosLstmNetwork) -> None:
    """What theirs lacks says nothing, and still learns: each has a factor that is not zero."""
    silent: list[nn.Linear] = [network.join, network.motion, network.pointer.key, network.pointer.nothing]
    for part in (*silent, network.head.status):
        part.weight.zero_()
        part.bias.zero_()
    network.pointer.nothing.bias.fill_(_UNSEEN)
    network.head.status.bias[STATUSES.index(Status.DRIVING)] = _UNSEEN


def _why_left(name: str) -> str:
    found = (why for part, why in LEFT_OUT.items() if name.startswith(part) or name.endswith(part))
    return next(found, "no part of this network")


def contract_of(
    axes: Sequence[str], limits: Sequence[float], rate_hz: float, frame_rate_hz: float, horizon: int
) -> ActionContract:
    """What the user says of the checkpoint's actions: ``limits`` in m/s or rad/s, one for each of ``axes``.

    An axis that is not named is never driven; it gets the limit that policies here have. ConfigError where the numbers
    of axes and limits differ.
    """
    names = list(_signs(axes))
    if len(names) != len(limits):
        raise ConfigError(f"{len(names)} axes and {len(limits)} limits: give one limit for each axis")
    known = dict(zip(AXES, ActionContract().limits, strict=True)) | dict(zip(names, limits, strict=True))
    return ActionContract(
        limits=tuple(known[axis] for axis in AXES), rate_hz=rate_hz, frame_rate_hz=frame_rate_hz, horizon=horizon
    )
