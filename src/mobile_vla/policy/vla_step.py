"""A full-size policy's decision for engines. The words are read beforehand, into room for a fixed number of pieces."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mobile_vla.policy.encoders.tower import Words
from mobile_vla.policy.step import DecisionStep, believed
from mobile_vla.policy.vla import VlaNetwork

MOST_WORDS = 64
"""Pieces of an instruction that there is room for, unless told otherwise: what the policies read by default."""


class VlaStep(DecisionStep):
    """Stands on the network itself; run directly, it is what an engine has to equal."""

    def __init__(self, network: VlaNetwork, most: int = MOST_WORDS) -> None:
        super().__init__()
        self.contract, self.size = network.contract, network.config.size
        self.network, self.most = network, most

    def read(self, text: str) -> tuple[Tensor, ...]:
        """Each tower's words, one after another, padded to the room of ``most`` pieces."""
        return tuple(part for words in fixed_words(self.network, [text], self.most) for part in words)

    def start(self) -> Tensor:
        """As the head begins."""
        return self.network.head.initial(1).detach().clone()

    def forward(
        self, pixels: Tensor, words: tuple[Tensor, ...], motion: Tensor, history: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See ``DecisionStep``."""
        network = self.network
        asked = network.ask(network.see(pixels), self._by_tower(words))
        decided = network.decide(asked.lead[:, None], asked.beside[:, None], motion[:, None], history)
        chunk = network.head.chunk(decided.context[:, 0]).float()
        box, bearing = asked.pointed.box, asked.pointed.bearing
        visibility = 1.0 - asked.pointed.logits.softmax(dim=1)[:, -1]
        belief = believed(visibility, box[:, :4], box[:, 4], bearing)
        return chunk, decided.status[:, 0].float(), belief, decided.history

    def _by_tower(self, words: tuple[Tensor, ...]) -> tuple[Words, ...]:
        parts = iter(words)
        counts = [2 if name == "kosmos" else 1 for name in self.network.config.towers]
        return tuple(tuple(next(parts) for _ in range(count)) for count in counts)


def fixed_words(network: VlaNetwork, texts: Sequence[str], most: int = MOST_WORDS) -> tuple[Words, ...]:
    """Texts as read by each tower, padded with zeros to the room of ``most`` pieces; padding changes no answer.

    InstructionError for a text of more pieces.
    """
    towers = [network.towers[name] for name in network.config.towers]
    device = next(network.head.parameters()).device
    tokens = tuple(tuple(part.to(device) for part in each) for each in network.tokenise(texts))
    with torch.no_grad():
        read = network.read(tokens)
    return tuple(tower.widen(words, most) for tower, words in zip(towers, read, strict=True))  # type: ignore[operator]
