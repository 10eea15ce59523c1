"""The words: characters in, one vector out, with the meaning's slots as auxiliary outputs.

Characters (Hangul as jamo) rather than words: typos, particles and unseen endings stay close to what was learnt.
Runs once an instruction, never in the control loop.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobile_vla.core import Colour, Goal, Kind, Mode, Side
from mobile_vla.language import UNKNOWN, VOCABULARY_SIZE

SLOT_SIZES = {"mode": len(Mode), "kind": len(Kind) + 1, "colour": len(Colour) + 1, "side": len(Side) + 1}
"""Classes of each slot; the last of kind, colour and side means that none is named."""

_KINDS, _COLOURS, _SIDES, _MODES = list(Kind), list(Colour), list(Side), list(Mode)


def goal_slots(goal: Goal) -> tuple[int, int, int, int]:
    """Class indices of a goal in the order of ``SLOT_SIZES``."""
    kind = _KINDS.index(goal.target.kind) if goal.target else len(Kind)
    colour = _COLOURS.index(goal.target.colour) if goal.target and goal.target.colour else len(Colour)
    side = _SIDES.index(goal.side) if goal.side else len(Side)
    return _MODES.index(goal.mode), kind, colour, side


class TextEncoder(nn.Module):
    """(N, length) character ids -> (N, width).

    Convolutions look at a word or two at a time, attention pools what they find, and a small network combines it: what
    was learnt of the parts of a phrase serves in phrases never seen.
    """

    def __init__(self, width: int = 96, channels: int = 128, pools: int = 6) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY_SIZE, channels, padding_idx=0)
        self.convs = nn.ModuleList(
            nn.Conv1d(channels, channels, 5, padding=2 * dilation, dilation=dilation) for dilation in (1, 2, 3)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in self.convs)
        self.attend = nn.Linear(channels, pools)
        self.combine = nn.Sequential(nn.Dropout(0.3), nn.Linear(channels * pools, 256), nn.GELU(), nn.Dropout(0.2))
        self.project = nn.Linear(256, width)
        self.slots = nn.ModuleDict({name: nn.Linear(width, size) for name, size in SLOT_SIZES.items()})

    def forward(self, tokens: Tensor) -> Tensor:
        """Shape (N, width), within -1..1. In training, one character in fifteen is lost."""
        padding = tokens == 0
        if self.training:
            tokens = tokens.masked_fill((torch.rand(tokens.shape) < 1 / 15) & ~padding, UNKNOWN)
        x = self.embed(tokens)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = x.masked_fill(padding[..., None], 0.0)
            x = norm(x + F.gelu(conv(x.transpose(1, 2)).transpose(1, 2)))
        weights = self.attend(x).masked_fill(padding[..., None], -1e4).softmax(dim=1)
        pooled = torch.einsum("nlc,nlp->npc", x, weights).flatten(1)
        words: Tensor = torch.tanh(self.project(self.combine(pooled)))
        return words

    def slot_loss(self, words: Tensor, slots: Tensor) -> Tensor:
        """Cross-entropy over the slots. ``slots``: (N, 4) class indices as from ``goal_slots``."""
        losses = [F.cross_entropy(head(words), slots[:, i]) for i, head in enumerate(self.slots.values())]
        return torch.stack(losses).sum()
