"""How much of the towers learns: all of it, nothing, or low-rank additions beside their matrices.

These are LoRA (Hu et al. 2021), of the library ``peft``. Merged afterwards, they leave a checkpoint like any other.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from mobile_vla.core import ConfigError

if TYPE_CHECKING:
    from mobile_vla.policy.vla import VlaNetwork

FULL, FROZEN, LORA = "full", "frozen", "lora"
WAYS = (FULL, FROZEN, LORA)
_MATRICES = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
"""Names that the attention and feed-forward matrices have in Kosmos-2, CLIP and SigLIP alike."""


@dataclass(frozen=True)
class LoraSettings:
    """``rank`` of the additions, ``alpha`` / ``rank`` their scale, ``dropout`` before them."""

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.05

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0 or not 0.0 <= self.dropout < 1.0:
            raise ConfigError("lora.rank and lora.alpha need to be at least 1, lora.dropout to lie in 0..1")


def adapt(network: "VlaNetwork", way: str, lora: LoraSettings, checkpointing: bool) -> list[nn.Parameter]:
    """Make the towers learn in this ``way``; returns the parameters that learn, those beside the towers included.

    ``checkpointing``: forward passes of the towers' layers are computed again in the backward pass instead of kept.
    """
    if way not in WAYS:
        raise ConfigError(f"unknown way for the towers to learn: {way!r}; choose among {', '.join(WAYS)}")
    merge(network)
    for tower in network.towers.values():
        for name, parameter in tower.named_parameters():
            is_contrastive = name.endswith(("logit_scale", "logit_bias"))
            parameter.requires_grad_(way == FULL and not is_contrastive)
        model: Any = tower.model
        if way == LORA:
            from peft import LoraConfig, inject_adapter_in_model

            settings = LoraConfig(
                r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=list(_MATRICES)
            )
            inject_adapter_in_model(settings, model)
        if way != FROZEN and hasattr(tower, "action"):
            tower.action.requires_grad_(True)
        if checkpointing and way != FROZEN:
            model.activation_checkpointing_enable({"use_reentrant": False})
        else:
            model.activation_checkpointing_disable()
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def merge(network: "VlaNetwork") -> None:
    """Add LoRA's additions to the matrices they stand beside, and take them away, where there are any."""
    for tower in network.towers.values():
        for name, module in list(tower.named_modules()):
            if hasattr(module, "lora_A") and hasattr(module, "merge"):
                module.merge()
                parent, _, leaf = name.rpartition(".")
                setattr(tower.get_submodule(parent), leaf, module.get_base_layer())
        if hasattr(tower.model, "peft_config"):
            del tower.model.peft_config
