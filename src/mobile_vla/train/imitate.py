"""The full-size policies' second stage: the expert's or an operator's velocities, over windows of drives.

Where the towers learn too, windows of pixels go through the whole network. Where they stay, every frame is seen once,
under the words it was driven by and a few others of the same meaning, and what the towers said is kept instead.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobile_vla.core import ActionContract, Goal
from mobile_vla.data import Dataset, Extras, schema
from mobile_vla.language import Grammar
from mobile_vla.policy.compact import motion_features
from mobile_vla.policy.encoders.tower import repeat
from mobile_vla.policy.preprocess import fit
from mobile_vla.policy.vla import Answers, Drives, Remembered, VlaNetwork
from mobile_vla.train.ask import grounding_loss, lots
from mobile_vla.train.drive import dead_reckoning, goal_of
from mobile_vla.train.feed import Feed, Part
from mobile_vla.train.see import phrase

_SEE_BATCH = 64
_NEAR, _FAR = 1.4, 0.6
"""Weights of a chunk's first and last row."""
_UNKNOWN = -100


class Driving(NamedTuple):
    """Windows (``inputs``) and what was done: ``chunk`` (B, T, horizon, 3) in shares of the limits, NaN unknown;
    ``status`` (B, T), -100 unknown; ``noise`` like the chunks and ``time`` (B, T) for a flow; ``target`` is what
    ``grounding_loss`` asks for, (B * T, ...), where the frames are there."""

    inputs: Drives | Remembered
    chunk: Tensor
    status: Tensor
    noise: Tensor
    time: Tensor
    target: tuple[Tensor, Tensor, Tensor] | None


def imitation_loss(
    network: VlaNetwork, answers: Answers, driving: Driving, grounding: float
) -> tuple[Tensor, dict[str, float]]:
    """Loss of velocities and status over all windows, padding counted in; ``grounding`` weighs that of the target."""
    assert answers.decided is not None
    context, status = answers.decided.context, answers.decided.status
    chunk = driving.chunk.to(context.device)
    known = torch.isfinite(chunk).all(-1)
    error = network.head.loss(context, chunk.nan_to_num(), driving.noise.to(chunk), driving.time.to(chunk)).mean(-1)
    near = torch.linspace(_NEAR, _FAR, chunk.shape[2], device=error.device)
    action = (error * near * known).mean()
    wanted = driving.status.flatten().to(status.device)
    said = F.cross_entropy(status.float().flatten(0, 1), wanted, ignore_index=_UNKNOWN, reduction="sum") / len(wanted)
    loss = action + 0.2 * said
    with torch.no_grad():
        off = (network.head.chunk(context).float() - chunk).abs().mean(-1)
        share = off[known].mean()
    figures = {"action": action.item(), "status": said.item(), "share_off": share.item()}
    if driving.target is not None and answers.pointed is not None and grounding > 0.0:
        point, box, more = grounding_loss(answers.pointed, *driving.target, network.pointer.grid)
        return loss + grounding * (point + 0.5 * box), figures | more
    return loss, figures


def draw_windows(
    network: VlaNetwork, feed: Feed, grammar: Grammar, batch: int, length: int, rng: np.random.Generator, piece: Part
) -> Driving:
    """The ``piece`` of ``batch`` windows; half of those whose meaning is known are told in newly drawn words."""
    windows = feed.windows(rng, piece, batch, length)
    frames, part = windows.frames, piece.part(batch)
    again, wordings = rng.random(batch)[part] < 0.5, lots(rng, batch, piece)
    texts = [
        phrase(grammar, goal, lot) if goal is not None and other else said
        for said, goal, other, lot in zip(windows.instructions, windows.goals, again, wordings, strict=True)
    ]
    motion = motion_features(torch.from_numpy(frames.velocity), torch.from_numpy(frames.odometry), network.contract)
    status = torch.from_numpy(frames.status).where(torch.from_numpy(frames.status >= 0), torch.tensor(_UNKNOWN))
    noise, time = _noise(rng, (batch, length), network.contract, part)
    target = tuple(torch.from_numpy(each).flatten(0, 1) for each in (frames.visible, frames.box, frames.distance))
    inputs = Drives(torch.from_numpy(frames.pixels), network.tokenise(texts), motion)
    return Driving(inputs, torch.from_numpy(frames.chunk), status, noise, time, (target[0], target[1], target[2]))


class Memory:
    """Drives as the head meets them: what the towers said to each frame, under several wordings (float16)."""

    def __init__(self, wordings: int) -> None:
        self.wordings = wordings
        self.lead: list[Tensor] = []  # (wordings, T, A) of each episode
        self.beside: list[Tensor] = []
        self.motion: list[Tensor] = []
        self.chunks: list[Tensor] = []
        self.statuses: list[Tensor] = []

    def __len__(self) -> int:
        return len(self.lead)

    @property
    def frames(self) -> int:
        """Of all episodes."""
        return sum(len(motion) for motion in self.motion)

    @torch.inference_mode()
    def add(
        self, dataset: Dataset, episodes: Iterable[int], network: VlaNetwork, grammar: Grammar, rng: np.random.Generator
    ) -> None:
        """Let the network look at these episodes, and keep what it saw."""
        network.eval()
        device = next(network.head.parameters()).device
        for index in episodes:
            episode = dataset.episode(index)
            goal = _goal(episode.record.extras)
            texts = [episode.instruction]
            texts += [
                episode.instruction if goal is None else phrase(grammar, goal, rng) for _ in range(self.wordings - 1)
            ]
            tokens = tuple(tuple(part.to(device) for part in each) for each in network.tokenise(texts))
            with torch.autocast(device.type, torch.bfloat16):
                words = network.read(tokens)
                parts = []
                pixels = episode.images()
                for start in range(0, len(pixels), _SEE_BATCH):
                    fitted = np.stack([fit(each, network.config.size) for each in pixels[start : start + _SEE_BATCH]])
                    look = network.see(torch.from_numpy(fitted).to(device))
                    for wording in range(self.wordings):
                        chosen = tuple(tuple(part[wording : wording + 1] for part in each) for each in words)
                        asked = network.ask(look, tuple(repeat(each, len(fitted)) for each in chosen))
                        parts.append((asked.lead.half().cpu(), asked.beside.half().cpu()))
            self.lead.append(_by_wording([lead for lead, _ in parts], self.wordings))
            self.beside.append(_by_wording([beside for _, beside in parts], self.wordings))
            velocity = np.array(episode[schema.STATE], dtype=np.float32)
            odometry = torch.tensor(dead_reckoning(velocity, network.contract.frame_rate_hz))
            self.motion.append(motion_features(torch.from_numpy(velocity), odometry, network.contract))
            contract = network.contract
            chunks = contract.normalise(episode[schema.ACTION_CHUNK].reshape(len(velocity), contract.horizon, 3))
            self.chunks.append(torch.from_numpy(chunks))
            status = torch.from_numpy(np.array(episode[schema.STATUS], dtype=np.int64).reshape(-1))
            self.statuses.append(status.where(status >= 0, torch.tensor(_UNKNOWN)))

    def draw(self, contract: ActionContract, batch: int, rng: np.random.Generator, piece: Part) -> Driving:
        """The ``piece`` of ``batch`` whole episodes."""
        part = piece.part(batch)
        index, wording = rng.integers(len(self), size=batch), rng.integers(self.wordings, size=batch)
        longest = max(len(self.motion[each]) for each in index)
        chosen = list(zip(index[part], wording[part], strict=True))
        lead, beside = (
            nn.utils.rnn.pad_sequence([rows[i][w] for i, w in chosen], batch_first=True).float()
            for rows in (self.lead, self.beside)
        )
        motion, chunk, status = (
            nn.utils.rnn.pad_sequence([rows[i] for i, _ in chosen], batch_first=True, padding_value=fill)
            for rows, fill in ((self.motion, 0.0), (self.chunks, float("nan")), (self.statuses, _UNKNOWN))
        )
        more = longest - lead.shape[1]  # every piece is as long, so that the mean over pieces is that over the batch
        lead, beside, motion = (F.pad(each, [0, 0, 0, more]) for each in (lead, beside, motion))
        chunk = F.pad(chunk, [0, 0, 0, 0, 0, more], value=float("nan"))
        status = F.pad(status, [0, more], value=_UNKNOWN)
        noise, time = _noise(rng, (batch, longest), contract, part)
        return Driving(Remembered(lead, beside, motion), chunk, status, noise, time, None)


def _by_wording(parts: list[Tensor], wordings: int) -> Tensor:
    return torch.stack([torch.cat(parts[wording::wordings]) for wording in range(wordings)])


def _noise(
    rng: np.random.Generator, shape: tuple[int, int], contract: ActionContract, part: slice
) -> tuple[Tensor, Tensor]:
    noise = rng.standard_normal((*shape, contract.horizon, 3), dtype=np.float32)[part]
    return torch.from_numpy(noise), torch.from_numpy(rng.random(shape, dtype=np.float32)[part])


def _goal(extras: Extras) -> Goal | None:
    return goal_of(extras) if extras.get(schema.EXTRA_GOAL_MODE) else None
