"""Stage one, reading and seeing: what words mean, where in a frame what they name is, and how far the way is free.

Every frame is asked for every name at once: the words of all colours and kinds each point at a cell or at none. Frames
come from surveys (random poses in random scenes), where the truth is known.
"""

from collections.abc import Mapping
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mobile_vla.core import Colour, Goal, Kind, Mode, Side, Target
from mobile_vla.language import Grammar, encode
from mobile_vla.policy.compact import CELLS, COLUMNS, ROWS, STRIDE, CompactNetwork
from mobile_vla.policy.preprocess import to_tensor
from mobile_vla.policy.text import goal_slots

NAMES: tuple[Target, ...] = tuple(Target(kind, colour) for kind, colour in product(Kind, (*Colour, None)))
"""Everything that can be asked for: each kind in each colour, and each kind with its colour unsaid."""

_KINDS, _COLOURS = list(Kind), list(Colour)
_IN_VIEW, _HARDLY = 0.30, 0.08
_NULL_WEIGHT = 0.2
_WORDINGS = 64
_PLAIN = tuple(Goal(mode) for mode in Mode if mode is not Mode.GO)


class Frames:
    """Survey frames: ``pixels`` uint8 (N, H, W, 3), ``objects`` float32 (N, 8, 8), ``ranges`` float32 (N, COLUMNS)."""

    def __init__(self, pixels: NDArray[np.uint8], objects: NDArray[np.float32], ranges: NDArray[np.float32]) -> None:
        self.pixels, self.objects, self.ranges = pixels, objects, ranges

    def __len__(self) -> int:
        return len(self.pixels)


def read_loss(
    network: CompactNetwork, grammar: Grammar, batch: int, rng: np.random.Generator
) -> tuple[Tensor, dict[str, float]]:
    """Loss of the meaning's slots on random phrases; four in five name a target."""
    goals = _any_goals(batch, rng)
    tokens = torch.from_numpy(np.stack([encode(phrase(grammar, goal, rng)) for goal in goals]))
    with torch.autocast("cpu", torch.bfloat16):
        loss = network.text.slot_loss(network.text(tokens), torch.tensor([goal_slots(goal) for goal in goals]))
    return loss, {"slot": loss.item()}


def settle_loss(
    network: CompactNetwork, anchors: Mapping[Goal, Tensor], grammar: Grammar, batch: int, rng: np.random.Generator
) -> tuple[Tensor, dict[str, float]]:
    """As ``read_loss``, and every phrase is drawn to the anchor of its goal, so that what reads the words may stay."""
    goals = _any_goals(batch, rng)
    tokens = torch.from_numpy(np.stack([encode(phrase(grammar, goal, rng)) for goal in goals]))
    with torch.autocast("cpu", torch.bfloat16):
        words = network.text(tokens)
        slot = network.text.slot_loss(words, torch.tensor([goal_slots(goal) for goal in goals]))
    away = F.mse_loss(words.float(), torch.stack([anchors[goal] for goal in goals]))
    return 10.0 * away + 0.3 * slot, {"slot": slot.item(), "away": away.item()}


@torch.inference_mode()
def goal_anchors(network: CompactNetwork, grammar: Grammar, rng: np.random.Generator) -> dict[Goal, Tensor]:
    """The mean encoded words of every goal there is, over many wordings."""
    network.eval()
    goals = [Goal(Mode.GO, name, side) for name in NAMES for side in (None, *Side)] + list(_PLAIN)
    anchors = {}
    for goal in goals:
        texts = np.stack([encode(phrase(grammar, goal, rng)) for _ in range(_WORDINGS)])
        anchors[goal] = network.text(torch.from_numpy(texts)).mean(0).clone()
    return anchors


@torch.inference_mode()
def name_words(network: CompactNetwork, grammar: Grammar, rng: np.random.Generator) -> Tensor:
    """The encoded words of many wordings of every name: (wordings, names, words)."""
    network.eval()
    wordings = []
    for _ in range(_WORDINGS):
        texts = [encode(phrase(grammar, Goal(Mode.GO, name, _any_side(rng)), rng)) for name in NAMES]
        wordings.append(network.text(torch.from_numpy(np.stack(texts))))
    return torch.stack(wordings).clone()


def see_loss(
    network: CompactNetwork, frames: Frames, wordings: Tensor, batch: int, rng: np.random.Generator
) -> tuple[Tensor, dict[str, float]]:
    """Loss of pointing, boxes and ranges on a random batch, every name in a random one of its ``wordings``."""
    index = np.sort(rng.integers(len(frames), size=batch))
    names = wordings[torch.from_numpy(rng.integers(len(wordings), size=len(NAMES))), torch.arange(len(NAMES))]
    objects = torch.from_numpy(frames.objects[index])
    with torch.autocast("cpu", torch.bfloat16):
        sight = network.eye(to_tensor(torch.from_numpy(frames.pixels[index])))
    query = F.normalize(network.query(names), dim=-1)
    scores = network.focus * torch.einsum("nce,qe->nqc", sight.cells.float(), query)
    nothing = network.nothing(names).T[..., None].expand(batch, -1, 1)
    logits = torch.cat([scores, nothing], dim=2)
    wanted, weight = pointing_targets(objects)
    pointing = -(wanted * logits.log_softmax(dim=2)).sum(2)
    point_loss = (pointing * weight).sum() / weight.sum()
    box_loss = box_error(sight.boxes.float(), objects)
    range_loss = F.huber_loss(
        sight.ranges.float(), torch.from_numpy(frames.ranges[index]).clamp_min(0.05).log(), delta=0.2
    )
    loss = point_loss + 0.5 * box_loss + 2.0 * range_loss
    with torch.no_grad():
        there = wanted[..., :-1].sum(2) > 0.5
        hit = (wanted.gather(2, logits.argmax(2, keepdim=True)).squeeze(2) > 0.0)[there].float().mean()
        false = (logits.argmax(2) != CELLS)[wanted[..., -1] > 0.5].float().mean()
    return loss, {
        "point": point_loss.item(),
        "box": box_loss.item(),
        "range": range_loss.item(),
        "hit": hit.item(),
        "false": false.item(),
    }


def phrase(grammar: Grammar, goal: Goal, rng: np.random.Generator) -> str:
    """Words for a goal as training draws them: either language, training phrasings, a typo in one of six."""
    return grammar.phrase(goal, rng, "en" if rng.random() < 0.5 else "ko", "train", typo_rate=0.17)


def pointing_targets(objects: Tensor) -> tuple[Tensor, Tensor]:
    """(N, 8, 8) object rows to wanted shares (N, names, CELLS + 1) and weights (N, names).

    An object in view claims the four cells around the middle of its visible part, bilinearly. A name that only hardly
    visible objects answer to weighs nothing.
    """
    count = objects.shape[0]
    kind, colour, u, v, seen = (objects[..., i] for i in (0, 1, 2, 3, 6))
    wanted = torch.zeros(count, len(NAMES), CELLS + 1)
    weight = torch.full((count, len(NAMES)), _NULL_WEIGHT)
    column, row = u / STRIDE - 0.5, v / STRIDE - 0.5
    frame, place = torch.nonzero(seen >= _IN_VIEW, as_tuple=True)
    for name_of in (0, 1):  # with its colour said, and unsaid
        name = (kind * (len(Colour) + 1)).long() + (colour.long() if name_of == 0 else len(Colour))
        hardly = (seen >= _HARDLY) & (seen < _IN_VIEW)
        hardly_frame, hardly_place = torch.nonzero(hardly, as_tuple=True)
        weight[hardly_frame, name[hardly_frame, hardly_place]] = 0.0
        names = name[frame, place]
        for step_column, step_row in product((0, 1), (0, 1)):
            at_column = column[frame, place].floor() + step_column
            at_row = row[frame, place].floor() + step_row
            share = (1 - (column[frame, place] - at_column).abs()) * (1 - (row[frame, place] - at_row).abs())
            cell = at_row.clamp(0, ROWS - 1) * COLUMNS + at_column.clamp(0, COLUMNS - 1)
            wanted.index_put_((frame, names, cell.long()), share, accumulate=True)
        weight[frame, names] = 1.0
    total = wanted.sum(2, keepdim=True)
    wanted = wanted / total.clamp_min(1e-6)
    wanted[..., -1] = (total.squeeze(2) < 1e-6).float()
    return wanted, weight


def box_error(boxes: Tensor, objects: Tensor) -> Tensor:
    """Huber error of middle, half size and log distance at the cells around each object in view."""
    u, v, half_u, half_v, seen, distance = (objects[..., i] for i in (2, 3, 4, 5, 6, 7))
    frame, place = torch.nonzero(seen >= _IN_VIEW, as_tuple=True)
    u, v = u[frame, place] / STRIDE, v[frame, place] / STRIDE
    size = torch.stack([half_u[frame, place], half_v[frame, place]], dim=1).clamp_min(0.5) / STRIDE
    losses = []
    for shift_u, shift_v in ((-0.5, -0.5), (0.5, -0.5), (-0.5, 0.5), (0.5, 0.5)):
        column, row = (u + shift_u).floor().clamp(0, COLUMNS - 1), (v + shift_v).floor().clamp(0, ROWS - 1)
        predicted = boxes[frame, (row * COLUMNS + column).long()]
        offset = torch.stack([u - column - 0.5, v - row - 0.5], dim=1)
        wanted = torch.cat([offset, size.log(), distance[frame, place].clamp_min(0.05).log()[:, None]], dim=1)
        losses.append(F.huber_loss(predicted, wanted, delta=0.3))
    return torch.stack(losses).mean()


def _any_goals(count: int, rng: np.random.Generator) -> list[Goal]:
    return [
        Goal(Mode.GO, NAMES[int(rng.integers(len(NAMES)))], _any_side(rng))
        if rng.random() < 0.8
        else _PLAIN[int(rng.integers(len(_PLAIN)))]
        for _ in range(count)
    ]


def _any_side(rng: np.random.Generator) -> Side | None:
    return (None, Side.LEFT, Side.RIGHT)[int(rng.integers(3))]
