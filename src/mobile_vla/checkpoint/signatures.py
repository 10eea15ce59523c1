"""Which model a checkpoint is of, told by the names of its tensors where no config tells."""

from collections.abc import Iterable

# special ones before the more general ones that they contain
SIGNATURES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("RoboVLMs policy on Kosmos-2", ("image_to_text_projection.latent_query", "act_head")),
    ("Kosmos-2", ("image_to_text_projection.latent_query",)),
    ("SmolVLA", ("vlm_with_expert.lm_expert",)),
    ("pi0", ("paligemma_with_expert.gemma_expert",)),
    ("OpenVLA", ("vision_backbone.featurizer", "language_model")),
    ("ACT policy (LeRobot)", ("encoder_latent_input_proj", "action_head")),
    ("ACT policy", ("query_embed", "latent_out_proj", "action_head")),
    ("diffusion policy", ("diffusion_step_encoder",)),
    ("RoboVLMs policy", ("backbone", "act_head")),
    ("SigLIP", ("vision_model.head.probe", "logit_bias")),
    ("CLIP", ("visual_projection", "text_projection", "logit_scale")),
    ("CLIP (OpenAI's names)", ("visual.class_embedding", "token_embedding", "logit_scale")),
    ("DINOv2", ("mask_token", "layer_scale1.lambda1")),
    ("DINOv2", ("mask_token", "ls1.gamma")),
    ("mobile-vla compact (state of a training)", ("network.eye.trunk", "network.memory", "optimizer.state")),
    ("ResNet", ("layer1.0.conv1", "layer4.0.conv1", "fc")),
    ("vision transformer (timm's names)", ("patch_embed.proj", "blocks.0.attn.qkv")),
    ("Llama-like language model", ("embed_tokens", "layers.0.self_attn.q_proj", "layers.0.mlp.gate_proj")),
)
"""Model, and the parts of names that all have to be there: whole words between dots, anywhere in a name."""


def model_of(names: Iterable[str]) -> str | None:
    """The first model of the table that fits ``names``, None where none does."""
    dotted = [f".{name}." for name in names]
    for model, parts in SIGNATURES:
        if all(any(f".{part}." in name for name in dotted) for part in parts):
            return model
    return None
