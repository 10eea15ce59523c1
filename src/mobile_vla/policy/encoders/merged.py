"""A vision transformer of which the later layers see fewer patches: similar ones go on as one.

Which patches go on is decided from what is known of them halfway, as in EViT (Liang et al. 2022). As in ToMe (Bolya et
al. 2023), a patch that does not is averaged into the kept one that is most like it, and attention counts a kept patch
as often as it stands for one. Behind the last layer every patch is there again, because words point at a whole grid:
each is what it was halfway, changed as the patch that went on for it was.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_outputs import BaseModelOutput


class MergedEncoder(nn.Module):
    """Takes the place of an encoder of ``transformers``: layers called with tokens (N, T, D) and an additive mask.

    The last ``cells`` tokens are the patches, a class token may stand before them. All layers of ``before`` see all of
    them, those of ``behind`` see ``kept``. Every shape is fixed.
    """

    def __init__(self, before: Iterable[nn.Module], behind: Iterable[nn.Module], cells: int, kept: int) -> None:
        super().__init__()
        self.before, self.behind = nn.ModuleList(before), nn.ModuleList(behind)
        self.cells, self.kept = cells, kept

    def forward(self, inputs_embeds: Tensor, attention_mask: Tensor | None = None, **options: Any) -> BaseModelOutput:
        """(N, T, D) to as many; ``attention_mask`` is there for its callers, and none of ours gives one."""
        hidden = inputs_embeds
        for layer in self.before:
            hidden = layer(hidden, attention_mask, **options)
        marks, patches = hidden[:, : -self.cells], hidden[:, -self.cells :]
        group = groups(patches, self.kept)
        is_in = (group[:, None] == torch.arange(self.kept, device=group.device)[:, None]).to(patches.dtype)
        size = is_in.sum(dim=-1, keepdim=True)
        merged = is_in @ patches / size
        counted = F.pad(size.transpose(1, 2).log(), [marks.shape[1], 0])[:, None]
        going = torch.cat([marks, merged], dim=1)
        for layer in self.behind:
            going = layer(going, counted, **options)
        change = going[:, marks.shape[1] :] - merged
        each = patches + change.gather(1, group[..., None].expand_as(patches))
        return BaseModelOutput(last_hidden_state=torch.cat([going[:, : marks.shape[1]], each], dim=1))


def groups(patches: Tensor, kept: int) -> Tensor:
    """For each of the patches (N, cells, D) the number, 0..kept - 1, of the one that goes on for it: (N, cells).

    Those go on that are furthest from the frame's mean patch: what is like the rest of the picture is mostly floor and
    wall. The others are with the one of them that is most alike by its direction.
    """
    distance = (patches - patches.mean(dim=1, keepdim=True)).norm(dim=-1)
    chosen = distance.topk(kept, dim=1).indices
    directions = F.normalize(patches, dim=-1)
    going = directions.gather(1, chosen[..., None].expand(-1, -1, patches.shape[-1]))
    nearest = (directions @ going.transpose(1, 2)).argmax(dim=-1)
    return nearest.scatter(1, chosen, torch.arange(kept, device=patches.device).expand_as(chosen))


def share_of(whole: int, share: float) -> int:
    """So many of ``whole``: rounded up, so at least one for any share above 0."""
    return min(whole, math.ceil(round(share * whole, 6)))
