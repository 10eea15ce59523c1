"""Checkpoint folders as trainers leave them, small, for the tests of finding them."""

import json

import numpy as np
import torch
from safetensors.numpy import save_file

from mobile_vla.checkpoint import Checkpoint, Metric, save
from mobile_vla.core import ActionContract

RNG = np.random.default_rng(9)


def save_ours(folder, policy="compact", step=None, metric=None, **changes):
    tensors = {"head.weight": RNG.normal(size=(4, 3)).astype(np.float32), "head.bias": np.ones(4, np.float32)}
    metric = None if metric is None else Metric(*metric)
    save(folder, Checkpoint(policy, {"words": 4}, ActionContract(), {}, tensors, step=step, metric=metric, **changes))
    return folder


def write_json(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))
    return path


def weights(path, *names):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: RNG.normal(size=(3, 2)).astype(np.float32) for name in names or ("weight",)}, path)
    return path


def lerobot_run(root, steps=(5000, 10000)):
    """As ``lerobot-train`` leaves it: a folder for each step, and a link to the last."""
    for step in steps:
        model, state = (root / "checkpoints" / f"{step:06d}" / part for part in ("pretrained_model", "training_state"))
        write_json(model / "config.json", {"type": "act", "n_obs_steps": 1})
        write_json(model / "train_config.json", {"policy": {"type": "act"}})
        weights(model / "model.safetensors", "model.action_head.weight")
        weights(model / "policy_preprocessor_step_3_normalizer_processor.safetensors", "observation.state.mean")
        write_json(state / "training_step.json", {"step": step})
        weights(state / "optimizer_state.safetensors", "0.exp_avg")
        weights(state / "rng_state.safetensors", "torch_rng_state")
    (root / "checkpoints" / "last").symlink_to(f"{steps[-1]:06d}")
    return root


def huggingface_run(root):
    """As the trainer of transformers leaves it."""
    for step, loss in ((500, 0.7), (1000, 0.5)):
        folder = root / f"checkpoint-{step}"
        write_json(folder / "config.json", {"model_type": "kosmos-2", "architectures": ["Kosmos2Model"]})
        weights(folder / "model.safetensors", "text_model.weight")
        torch.save({"state": {}}, folder / "optimizer.pt")
        log = [{"eval_loss": 0.7, "step": 500}, {"loss": 0.5}, {"eval_loss": loss, "step": step}]
        best = {"best_metric": loss, "best_model_checkpoint": f"out/checkpoint-{step}"}
        write_json(folder / "trainer_state.json", {"global_step": step, "log_history": log} | best)
    return root


def sharded(folder):
    """As ``save_pretrained`` leaves a large model."""
    write_json(folder / "config.json", {"model_type": "clip", "architectures": ["CLIPModel"]})
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for name in names:
        weights(folder / name, name[:11])
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": {n[:11]: n for n in names}})
    return folder


def lightning(path, step=1200):
    """As Lightning leaves it: weights nested, the trainer's state beside them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {"model.backbone.weight": torch.ones(2), "model.act_head.weight": torch.ones(2)}
    torch.save({"state_dict": state, "global_step": step, "epoch": 3, "pytorch-lightning_version": "2.4.0"}, path)
    return path
