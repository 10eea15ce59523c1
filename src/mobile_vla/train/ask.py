"""The full-size policies' first stage: where is what the words name, what else do they mean, what stands where.

Frames come from surveys, where the truth about every object is known. Each is asked for several names at once, in
drawn wordings, about half of them of things in view; most of the others are near misses. The answer has to tell the
side and the motion too: where the towers stay as they are afterwards, the head can learn only what the answer holds.
"""

from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mobile_vla.core import Goal, Kind, Mode, Side
from mobile_vla.language import Grammar
from mobile_vla.policy.pointer import Pointed
from mobile_vla.policy.text import SLOT_SIZES, goal_slots
from mobile_vla.policy.vla import Answers, Questions, VlaNetwork
from mobile_vla.train.feed import HARDLY, IN_VIEW, Feed, Part, Scene
from mobile_vla.train.see import phrase

_NULL_WEIGHT = 0.5
_SIDES = (None, *Side)
_PLAIN = tuple(Goal(mode) for mode in Mode if mode is not Mode.GO)
_PLAIN_SHARE = 1 / 8


class Asking(NamedTuple):
    """Frames under names (``inputs``), and the truth: as in ``feed.Asked``, flattened to B * K, and the scenes.

    ``slots`` (B * K, 4): what the words mean, as from ``text.goal_slots``. Some ask for a motion and name nothing: then
    the rest is NaN.
    """

    inputs: Questions
    visible: Tensor
    box: Tensor
    distance: Tensor
    slots: Tensor
    scene: Scene


def draw_asking(
    network: VlaNetwork, feed: Feed, grammar: Grammar, batch: int, names: int, rng: np.random.Generator, piece: Part
) -> Asking:
    """The ``piece`` of ``batch`` frames, each under ``names`` names in drawn words."""
    asked = feed.asked(rng, piece, batch, names)
    goals, texts = [], []
    for targets, lot in zip(asked.targets, lots(rng, batch, piece), strict=True):
        for target in targets:
            plain = lot.random() < _PLAIN_SHARE
            goals.append(_PLAIN[int(lot.integers(len(_PLAIN)))] if plain else Goal(Mode.GO, target, _side(lot)))
            texts.append(phrase(grammar, goals[-1], lot))
    inputs = Questions(torch.from_numpy(asked.pixels), network.tokenise(texts))
    visible, box, distance = (
        torch.from_numpy(part).flatten(0, 1) for part in (asked.visible, asked.box, asked.distance)
    )
    names_one = torch.tensor([goal.target is not None for goal in goals])
    visible = visible.where(names_one, torch.tensor(float("nan")))
    return Asking(inputs, visible, box, distance, torch.tensor([goal_slots(goal) for goal in goals]), asked.scene)


def _side(lot: np.random.Generator) -> Side | None:
    side: Side | None = _SIDES[int(lot.integers(len(_SIDES)))]
    return side


def lots(rng: np.random.Generator, batch: int, piece: Part) -> list[np.random.Generator]:
    """A generator for each sample of the ``piece``: what is drawn for one hangs on no other, nor on how it is cut."""
    return [np.random.default_rng(seed) for seed in rng.integers(2**62, size=batch)[piece.part(batch)]]


def ask_loss(answers: Answers, asking: Asking, grid: tuple[int, int]) -> tuple[Tensor, dict[str, float]]:
    """Loss of pointing, boxes, what stands at the patches, and ranges, a mean over the frames and names asked."""
    assert answers.pointed is not None
    assert answers.what is not None
    assert answers.ranges is not None
    assert answers.meaning is not None
    point, box, figures = grounding_loss(answers.pointed, asking.visible, asking.box, asking.distance, grid)
    what = what_loss(answers.what, asking.scene, grid)
    ranges = range_loss(answers.ranges, torch.from_numpy(asking.scene.ranges).to(answers.ranges.device))
    means = meaning_loss(answers.meaning, asking.slots.to(answers.meaning.device))
    loss = point + 0.5 * box + 0.5 * what + 2.0 * ranges + 0.2 * means
    return loss, {**figures, "what": what.item(), "range": ranges.item(), "means": means.item()}


def grounding_loss(
    pointed: Pointed, visible: Tensor, box: Tensor, distance: Tensor, grid: tuple[int, int]
) -> tuple[Tensor, Tensor, dict[str, float]]:
    """Losses of pointing and of boxes, each a mean over N names; what is unknown or hardly seen adds nothing.

    ``visible`` (N,), ``box`` (N, 4) left, top, right, bottom, ``distance`` (N,), NaN unknown.
    """
    visible, box, distance = (each.to(pointed.logits.device) for each in (visible, box, distance))
    there, away = visible >= IN_VIEW, visible < HARDLY
    middle = 0.5 * (box[:, :2] + box[:, 2:])
    cells, shares = _around(middle[there], grid)
    wanted = torch.zeros_like(pointed.logits)
    wanted[there] = wanted[there].scatter_add(1, cells, shares.to(wanted))
    wanted[away, -1] = 1.0
    weight = there.float() + _NULL_WEIGHT * away.float()
    point = (-(wanted * pointed.logits.log_softmax(1)).sum(1) * weight).mean()
    half = (0.5 * (box[:, 2:] - box[:, :2])).clamp_min(1e-3)
    size = torch.tensor([grid[1], grid[0]], device=box.device)
    truth = torch.cat([middle * size, half.log(), distance.clamp_min(0.05).log()[:, None]], dim=1)[there]
    given = pointed.boxes[there].gather(1, cells[..., None].expand(-1, -1, 5))
    given = torch.cat([given[..., :2] * size, given[..., 2:4].clamp_min(1e-4).log(), given[..., 4:]], dim=-1)
    known = torch.isfinite(truth)[:, None].expand_as(given)
    off = F.huber_loss(given, truth.nan_to_num()[:, None].expand_as(given), delta=0.3, reduction="none")
    boxes = (off * known).mean(dim=(1, 2)).sum() / len(visible)
    with torch.no_grad():
        best = pointed.logits.argmax(1)
        hit = (wanted.gather(1, best[:, None])[:, 0] > 0.0)[there].float().mean()
        false = (best != pointed.logits.shape[1] - 1)[away].float().mean()
    return point, boxes, {"point": point.item(), "box": boxes.item(), "hit": hit.item(), "false": false.item()}


def meaning_loss(meaning: Tensor, slots: Tensor) -> Tensor:
    """Cross-entropy over the slots, added up: logits (N, M) and classes (N, 4)."""
    parts = torch.split(meaning.float(), list(SLOT_SIZES.values()), dim=1)
    return torch.stack([F.cross_entropy(part, slots[:, place]) for place, part in enumerate(parts)]).sum()


def what_loss(what: Tensor, scene: Scene, grid: tuple[int, int]) -> Tensor:
    """Kind and colour at the patches around the middle of each object in view, and where nothing has a name."""
    seen, boxes = (torch.from_numpy(each).to(what.device) for each in (scene.seen, scene.boxes))
    frame, place = torch.nonzero(seen >= IN_VIEW, as_tuple=True)
    boxes = boxes[frame, place]
    cells, shares = _around(0.5 * (boxes[:, :2] + boxes[:, 2:]), grid)
    kinds, colours = (
        torch.from_numpy(each).to(what.device).long()[frame, place] for each in (scene.kinds, scene.colours)
    )
    at = what[frame[:, None], cells].float()  # (objects, 4, W)
    losses = [
        F.cross_entropy(logits.flatten(0, 1), classes.repeat_interleave(4), reduction="none").view(-1, 4)
        for logits, classes in ((at[..., : len(Kind)], kinds), (at[..., len(Kind) : -1], colours))
    ]
    named = (torch.stack(losses).sum(0) * shares).sum() / len(what)
    covered = torch.zeros(what.shape[:2], device=what.device)
    covered[frame[:, None], cells] = 1.0
    nothing = F.binary_cross_entropy_with_logits(what[..., -1].float(), 1.0 - covered)
    return named / 4.0 + nothing


def range_loss(ranges: Tensor, metres: Tensor) -> Tensor:
    """Huber error of the logarithms; frames without truth add nothing. Columns are spread over those of the grid."""
    known = torch.isfinite(metres).all(1)
    truth = metres.nan_to_num(1.0).clamp_min(0.05).log()[:, None]
    wanted = F.interpolate(truth, size=ranges.shape[1], mode="linear", align_corners=False)[:, 0]
    off = F.huber_loss(ranges, wanted.to(ranges), delta=0.2, reduction="none").mean(1)
    return (off * known).mean()


def _around(middle: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The four cells around points (N, 2) given as shares of the picture, (N, 4), and their bilinear shares (N, 4)."""
    rows, columns = grid
    column, row = middle[:, 0] * columns - 0.5, middle[:, 1] * rows - 0.5
    cells, shares = [], []
    for step_column, step_row in product((0, 1), (0, 1)):
        at_column, at_row = column.floor() + step_column, row.floor() + step_row
        shares.append((1 - (column - at_column).abs()) * (1 - (row - at_row).abs()))
        cells.append(at_row.clamp(0, rows - 1) * columns + at_column.clamp(0, columns - 1))
    return torch.stack(cells, dim=1).long(), torch.stack(shares, dim=1)
