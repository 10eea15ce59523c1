"""Stage two, driving: memory and head learn the expert's velocities over whole episodes.

The eye stays as stage one left it, so each frame is seen once, and what was seen is kept instead of the frame.
"""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from mobile_vla.core import Colour, Goal, Kind, Mode, Side, Target, Twist
from mobile_vla.data import Dataset, Extras, schema
from mobile_vla.language import Grammar, encode
from mobile_vla.policy.compact import CompactNetwork, integrate, motion_features
from mobile_vla.policy.preprocess import to_tensor
from mobile_vla.train.see import phrase

_SEE_BATCH = 64


class Drives:
    """Episodes as the memory meets them: per frame what is seen (float16), the motion, and the expert's answer."""

    def __init__(self) -> None:
        self.goals: list[Goal] = []
        self.words: list[Tensor] = []
        self.seen: list[Tensor] = []
        self.motion: list[Tensor] = []
        self.chunks: list[Tensor] = []
        self.statuses: list[Tensor] = []

    def __len__(self) -> int:
        return len(self.goals)

    @property
    def frames(self) -> int:
        """Of all episodes."""
        return sum(len(motion) for motion in self.motion)

    @torch.inference_mode()
    def add(self, dataset: Dataset, episodes: Iterable[int], network: CompactNetwork) -> None:
        """Let the network look at these episodes, and keep what it saw."""
        network.eval()
        limits = network.contract.limits_array
        for index in episodes:
            episode = dataset.episode(index)
            length = len(episode)
            self.goals.append(goal_of(episode.record.extras))
            words = network.text(torch.from_numpy(encode(episode.instruction))[None])
            self.words.append(words[0].clone())
            parts = []
            pixels = episode.images()
            for start in range(0, length, _SEE_BATCH):
                batch = torch.from_numpy(pixels[start : start + _SEE_BATCH])
                with torch.autocast("cpu", torch.bfloat16):
                    sight = network.eye(to_tensor(batch))
                parts.append(network.read(sight, words.expand(len(batch), -1))[1].half())
            self.seen.append(torch.cat(parts).clone())
            velocity = np.array(episode[schema.STATE], dtype=np.float32)
            odometry = torch.tensor(dead_reckoning(velocity, network.contract.frame_rate_hz))
            self.motion.append(motion_features(torch.from_numpy(velocity), odometry, network.contract))
            chunks = episode[schema.ACTION_CHUNK].reshape(length, network.contract.horizon, 3) / limits
            self.chunks.append(torch.from_numpy(chunks.astype(np.float32)))
            self.statuses.append(torch.from_numpy(np.array(episode[schema.STATUS], dtype=np.int64).reshape(-1)))


def drive_loss(
    network: CompactNetwork, drives: Drives, grammar: Grammar, batch: int, rng: np.random.Generator
) -> tuple[Tensor, dict[str, float]]:
    """Loss of the velocities and the status over a batch of whole episodes; half of them told in other words."""
    index = rng.integers(len(drives), size=batch)
    words = torch.stack([drives.words[i] for i in index])
    again = [place for place in range(batch) if rng.random() < 0.5]
    if again:
        texts = [encode(phrase(grammar, drives.goals[index[place]], rng)) for place in again]
        with torch.no_grad():
            words[again] = network.text(torch.from_numpy(np.stack(texts)))
    seen, motion, chunks, statuses = (
        nn.utils.rnn.pad_sequence([rows[i] for i in index], batch_first=True, padding_value=fill)
        for rows, fill in ((drives.seen, 0.0), (drives.motion, 0.0), (drives.chunks, 0.0), (drives.statuses, -100))
    )
    decision = network.decide(seen.float(), words, motion)
    mask = (statuses != -100).float()
    error = F.huber_loss(decision.actions, chunks, delta=0.1, reduction="none").mean(dim=3) * 10.0
    near_rows = torch.linspace(1.4, 0.6, network.contract.horizon)
    action_loss = ((error * near_rows).mean(dim=2) * mask).sum() / mask.sum()
    status_loss = F.cross_entropy(decision.status.flatten(0, 1), statuses.flatten(), ignore_index=-100)
    with torch.no_grad():
        off = (decision.actions - chunks).abs().mean(dim=(2, 3))
        share = (off * mask).sum() / mask.sum()
    figures = {"action": action_loss.item(), "status": status_loss.item(), "share_off": share.item()}
    return action_loss + 0.2 * status_loss, figures


def dead_reckoning(velocities: NDArray[np.float32], rate_hz: float) -> list[tuple[float, float, float]]:
    """Measured velocities (T, 3), one a frame, to odometry since the first frame, as a driving policy integrates it."""
    odometry = [(0.0, 0.0, 0.0)]
    for velocity in velocities[1:]:
        odometry.append(integrate(odometry[-1], Twist.from_array(velocity), 1.0 / rate_hz))
    return odometry


def goal_of(extras: Extras) -> Goal:
    """The goal noted with an episode."""
    kind, colour, side = (extras[f"goal_{name}"] for name in ("kind", "colour", "side"))
    target = Target(Kind(str(kind)), Colour(str(colour)) if colour else None) if kind else None
    return Goal(Mode(str(extras["goal_mode"])), target, Side(str(side)) if side else None)
