from pathlib import Path

import pytest
from safetensors import safe_open

from mobile_vla.checkpoint.signatures import SIGNATURES, model_of
from mobile_vla.policy.weights import SHIPPED

NAMES = {
    "RoboVLMs policy on Kosmos-2": [
        "state_dict.model.backbone.text_model.model.embed_tokens.weight",
        "state_dict.model.backbone.image_to_text_projection.latent_query",
        "state_dict.model.act_head.rnn.weight_ih_l0",
    ],
    "Kosmos-2": ["text_model.model.embed_tokens.weight", "image_to_text_projection.latent_query"],
    "SmolVLA": ["model.vlm_with_expert.lm_expert.layers.0.mlp.up_proj.weight", "model.action_in_proj.weight"],
    "pi0": ["paligemma_with_expert.gemma_expert.model.layers.0.mlp.up_proj.weight"],
    "ACT policy (LeRobot)": ["model.encoder_latent_input_proj.weight", "model.action_head.bias"],
    "diffusion policy": ["diffusion.unet.diffusion_step_encoder.1.weight"],
    "SigLIP": ["vision_model.head.probe", "logit_bias", "logit_scale"],
    "CLIP": ["visual_projection.weight", "text_projection.weight", "logit_scale"],
    "DINOv2": ["embeddings.mask_token", "encoder.layer.0.layer_scale1.lambda1"],
    "ResNet": ["layer1.0.conv1.weight", "layer4.0.conv1.weight", "fc.bias"],
    "Llama-like language model": [
        *("model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight"),
        "model.layers.0.mlp.gate_proj.weight",
    ],
}


@pytest.mark.parametrize("model", NAMES)
def test_a_model_is_told_by_the_names_of_its_tensors(model):
    assert model_of(NAMES[model]) == model
    assert model_of(f"module.{name}" for name in NAMES[model]) == model


@pytest.mark.parametrize("names", [[], ["weight"], ["refc.bias", "layer1.0.conv1.weight"], ["x.probe"]])
def test_other_names_tell_nothing(names):
    assert model_of(names) is None


def test_the_state_of_our_own_training_is_told():
    with safe_open(next(Path(SHIPPED).glob("weights*.safetensors")), "np") as file:
        names = [f"network.{name}" for name in file.keys()]  # noqa: SIM118
    assert model_of([*names, "optimizer.state.0.exp_avg"]) == "mobile-vla compact (state of a training)"
    assert model_of(names) is None


def test_no_row_hides_one_below_it():
    for place, (model, parts) in enumerate(SIGNATURES):
        assert model_of(f"x.{part}.y" for part in parts) == model, place
