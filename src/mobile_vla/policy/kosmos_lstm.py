"""Kosmos-2 alone: the action token's hidden state, what the words point at, and a recurrent head."""

from dataclasses import dataclass
from typing import ClassVar

from mobile_vla.core import ActionContract
from mobile_vla.policy.encoders.kosmos import IMAGE_FIRST, KosmosTower
from mobile_vla.policy.encoders.sources import KOSMOS
from mobile_vla.policy.encoders.tower import TowerSpec
from mobile_vla.policy.vla import VlaNetwork, kind_from
from mobile_vla.policy.vla_config import VlaConfig


@dataclass(frozen=True)
class KosmosLstmConfig(VlaConfig):
    """``kosmos`` is a source (``encoders.sources``); ``prompt`` and ``max_words`` as in ``KosmosClipConfig``."""

    kosmos: str = KOSMOS
    prompt: str = IMAGE_FIRST
    max_words: int = 64

    towers: ClassVar[tuple[str, ...]] = ("kosmos",)


class KosmosLstmNetwork(VlaNetwork):
    """About 1.7 billion parameters with the pretrained tower."""

    kind = "kosmos_lstm"

    def __init__(self, config: KosmosLstmConfig, contract: ActionContract, specs: dict[str, TowerSpec]) -> None:
        kosmos = KosmosTower(specs["kosmos"], config.size, config.prompt, config.max_words)
        super().__init__(config, contract, specs, {"kosmos": kosmos})


KIND = kind_from(KosmosLstmNetwork, KosmosLstmConfig)
