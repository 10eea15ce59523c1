"""The hybrid that the project is named after: Kosmos-2 and CLIP look at the same frame, a recurrent head drives.

Kosmos-2 reads the frame and the words together, and answers in the hidden state of an action token. CLIP sees the frame
and reads the words apart, and says how well they agree. Kosmos-2 leads: the words point at its patches, its answer is
the frame's feature, and what CLIP, the pointer and the free way say is added to it. Over these features runs the head,
by default an LSTM over eight frames that gives ten velocities.
"""

from dataclasses import dataclass
from typing import ClassVar

from mobile_vla.core import ActionContract
from mobile_vla.policy.encoders.clip import ClipTower
from mobile_vla.policy.encoders.kosmos import IMAGE_FIRST, KosmosTower
from mobile_vla.policy.encoders.sources import CLIP, KOSMOS
from mobile_vla.policy.encoders.tower import TowerSpec
from mobile_vla.policy.vla import VlaNetwork, kind_from
from mobile_vla.policy.vla_config import VlaConfig


@dataclass(frozen=True)
class KosmosClipConfig(VlaConfig):
    """``kosmos`` and ``clip`` are sources (``encoders.sources``); ``clip`` may be a SigLIP.

    ``prompt`` is "image_first", "instruction_first" or "unmarked"; ``max_words``: word pieces that Kosmos-2 reads.
    """

    kosmos: str = KOSMOS
    clip: str = CLIP
    prompt: str = IMAGE_FIRST
    max_words: int = 64

    towers: ClassVar[tuple[str, ...]] = ("kosmos", "clip")


class KosmosClipNetwork(VlaNetwork):
    """About 1.86 billion parameters with the pretrained towers."""

    kind = "kosmos_clip"

    def __init__(self, config: KosmosClipConfig, contract: ActionContract, specs: dict[str, TowerSpec]) -> None:
        towers = {
            "kosmos": KosmosTower(specs["kosmos"], config.size, config.prompt, config.max_words),
            "clip": ClipTower(specs["clip"], config.size),
        }
        super().__init__(config, contract, specs, dict(towers))


KIND = kind_from(KosmosClipNetwork, KosmosClipConfig)
