"""What every tower offers: words are read once an instruction, a frame is seen once, and then asked about.

A tower's words are a tuple of tensors with the session first, so that sessions can be laid side by side (``stack``) and
taken apart again. Texts of different lengths are padded on the right, and padding changes no answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

Words = tuple[Tensor, ...]


@dataclass(frozen=True)
class TowerSpec:
    """All that is needed to build a tower without a hub: a checkpoint of ours carries it.

    ``source``: the hub name, folder or preset that it was described by; ``config``: of the transformers class, as
    ``to_dict`` gives it; ``tokenizer``: a tokenizers JSON; ``mean`` and ``std`` of RGB values in 0..1.
    """

    source: str
    config: dict[str, Any]
    tokenizer: str = field(repr=False)
    mean: tuple[float, ...]
    std: tuple[float, ...]


class Seen(NamedTuple):
    """Of N frames, whatever the words: ``tokens`` (N, I, D) or (N, D) to be asked about, ``patches`` (N, cells, P)."""

    tokens: Tensor
    patches: Tensor


class Tower(Protocol):
    """``answer`` is the width of what ``ask`` gives, ``patch`` that of a patch, ``grid`` its (rows, columns)."""

    answer: int
    patch: int
    grid: tuple[int, int]

    def tokenise(self, texts: Sequence[str]) -> Words:
        """Numbers of the texts, (N, L) int64, and lengths (N,); InstructionError for a text that does not fit."""
        ...

    def read(self, tokens: Words) -> Words:
        """What the words come to before any frame is seen: computed once an instruction."""
        ...

    def see(self, pixels: Tensor) -> Seen:
        """Frames, uint8 (N, H, W, 3)."""
        ...

    def ask(self, seen: Seen, words: Words) -> Tensor:
        """One question a frame: (N, answer)."""
        ...

    def widen(self, words: Words, most: int) -> Words:
        """Read words in as much room as ``most`` pieces need, whatever their number; InstructionError for more."""
        ...


def stack(words: Sequence[Words]) -> Words:
    """Words of several sessions as one; the length axis, where it differs, is padded on the right with zeros."""
    return tuple(_stacked([each[place] for each in words]) for place in range(len(words[0])))


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    """Only one axis can differ, the one that counts words."""
    shape = [max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True)]
    padded = []
    for part in parts:
        pads: list[int] = []
        for size, wanted in zip(reversed(part.shape[1:]), reversed(shape), strict=True):
            pads += [0, wanted - size]
        padded.append(F.pad(part, pads))
    return torch.cat(padded)


def repeat(words: Words, times: int) -> Words:
    """Each session's words ``times`` times in a row."""
    return tuple(each.repeat_interleave(times, dim=0) for each in words)


def choose(words: Words, index: Tensor) -> Words:
    """The words of these sessions, in this order."""
    return tuple(each[index] for each in words)
