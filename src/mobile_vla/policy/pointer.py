"""What words point at in a grid of patches, the grounding of every full-size policy; and how far the way is free.

As in the compact policy: where the named thing is, or that it is not in view, is an output with a truth of its own,
and the history gets it rather than having to find it in how an expert steers.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobile_vla.core import Colour, Grounding, Kind, Status
from mobile_vla.policy.compact import bearing_of

COLUMN_FEATURES = 16
WHAT = len(Kind) + len(Colour) + 1
"""What stands at a patch: a logit for each kind, each colour, and for nothing that has a name; learnt in simulation."""


class Pointed(NamedTuple):
    """What words point at in N frames.

    ``logits`` (N, cells + 1), the last for "not in view". ``box`` (N, 5): middle (u, v) and half size as shares of the
    image, and log distance in metres; the mean over the cells pointed at. ``boxes`` (N, cells, 5): the same of every
    cell. ``bearing`` (N,) rad, left positive. ``features`` (N, P) for the history.
    """

    logits: Tensor
    box: Tensor
    boxes: Tensor
    bearing: Tensor
    features: Tensor


class Pointer(nn.Module):
    """``patches`` is the width of a patch's feature, ``question`` that of what is asked, ``grid`` (rows, columns)."""

    cell: Tensor

    def __init__(self, patches: int, question: int, grid: tuple[int, int], width: int) -> None:
        super().__init__()
        self.grid = grid
        self.key = nn.Linear(patches, width)
        self.box = nn.Linear(patches, 5)
        self.query = nn.Linear(question, width)
        self.nothing = nn.Linear(question, 1)
        self.what = nn.Linear(patches, WHAT)
        self.focus = 15.0 / math.sqrt(width)
        rows, columns = grid
        cell = torch.arange(rows * columns)
        # whole numbers, which stay exact where the network is made bfloat16
        self.register_buffer("cell", torch.stack([cell % columns, cell // columns], dim=1), persistent=False)
        self.features = columns + rows + 1 + 6 + width

    def describe(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Patches (N, cells, D) to keys (N, cells, width) and the box that each patch sees, (N, cells, 5)."""
        rows, columns = self.grid
        patches = patches.to(self.key.weight.dtype)
        offsets, log_halves, log_distance = self.box(patches).float().split([2, 2, 1], dim=-1)
        middle, half = self.cell + 0.5 + offsets, log_halves.clamp(-6.0, 6.0).exp()
        shares = [middle[..., :1] / columns, middle[..., 1:] / rows, half[..., :1] / columns, half[..., 1:] / rows]
        return self.key(patches), torch.cat([*shares, log_distance], dim=-1)

    def forward(self, keys: Tensor, boxes: Tensor, question: Tensor) -> Pointed:
        """Keys and boxes as from ``describe``, and questions (N, Q)."""
        question = question.to(self.query.weight.dtype)
        query = F.normalize(self.query(question).float(), dim=-1)
        scores = self.focus * torch.einsum("nce,ne->nc", keys.float(), query)
        logits = torch.cat([scores, self.nothing(question).float()], dim=1)
        shares, inner = logits.softmax(dim=1), scores.softmax(dim=1)
        box = torch.einsum("nc,ncb->nb", inner, boxes)
        bearing = bearing_of(box[:, 0], box[:, 4])
        grid = torch.unflatten(shares[:, :-1], 1, self.grid)
        found = torch.einsum("nc,nce->ne", inner, keys.float())
        features = [grid.sum(1), grid.sum(2), shares[:, -1:], box, bearing[:, None], 0.2 * found]
        return Pointed(logits, box, boxes, bearing, torch.cat(features, dim=1))


class FreeWay(nn.Module):
    """How far the way is free in the direction of each of the grid's columns."""

    def __init__(self, patches: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid
        self.squeeze = nn.Linear(patches, COLUMN_FEATURES)
        self.column = nn.Linear(COLUMN_FEATURES * grid[0], COLUMN_FEATURES)
        self.range = nn.Linear(COLUMN_FEATURES, 1)
        self.features = grid[1] * (COLUMN_FEATURES + 1)

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Patches (N, cells, D) to log metres (N, columns) and features (N, F)."""
        squeezed = F.relu(self.squeeze(patches.to(self.squeeze.weight.dtype)))
        squeezed = torch.unflatten(squeezed, 1, self.grid).transpose(1, 2).flatten(2)
        columns = F.relu(self.column(squeezed))
        ranges = self.range(columns).squeeze(-1).float()
        return ranges, torch.cat([columns.flatten(1).float(), ranges], dim=1)


def grounding_of(pointed: Pointed, status: Status) -> Grounding:
    """The belief about one frame (N = 1) in physical units."""
    u, v, half_u, half_v, log_distance = (float(value) for value in pointed.box[0])
    return Grounding(
        visibility=1.0 - float(pointed.logits.softmax(dim=1)[0, -1]),
        bearing_rad=float(pointed.bearing[0]),
        distance_m=min(math.exp(min(log_distance, 3.0)), 10.0),
        box=(u - half_u, v - half_v, u + half_u, v + half_v),
        status=status,
    )
