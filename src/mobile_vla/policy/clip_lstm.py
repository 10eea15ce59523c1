"""CLIP alone, or SigLIP in its place: frame and words each as one vector, the pointer, and a recurrent head.

The words meet the frame late, so one look at a frame serves any number of instructions, as in the compact policy.
"""

from dataclasses import dataclass
from typing import ClassVar

from mobile_vla.core import ActionContract
from mobile_vla.policy.encoders.clip import ClipTower
from mobile_vla.policy.encoders.sources import CLIP
from mobile_vla.policy.encoders.tower import TowerSpec
from mobile_vla.policy.vla import VlaNetwork, kind_from
from mobile_vla.policy.vla_config import VlaConfig


@dataclass(frozen=True)
class ClipLstmConfig(VlaConfig):
    """``clip`` is a source (``encoders.sources``), of CLIP or SigLIP."""

    clip: str = CLIP

    towers: ClassVar[tuple[str, ...]] = ("clip",)


class ClipLstmNetwork(VlaNetwork):
    """About 190 million parameters with CLIP B/32."""

    kind = "clip_lstm"

    def __init__(self, config: ClipLstmConfig, contract: ActionContract, specs: dict[str, TowerSpec]) -> None:
        super().__init__(config, contract, specs, {"clip": ClipTower(specs["clip"], config.size)})


KIND = kind_from(ClipLstmNetwork, ClipLstmConfig)
