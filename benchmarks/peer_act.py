"""LeRobot's ACT as a peer: trained on the same drives, and put behind the same protocol as our policies.

LeRobot needs an older torch than ours, so it lives in an environment of its own, with what an evaluation needs:

    python3.11 -m venv lerobot
    lerobot/bin/pip install lerobot==0.4.4 mujoco==4.0.0 scikit-fmm scipy matplotlib dacite rich rapidfuzz simplejpeg
    python benchmarks/peer_act.py DATASET --out DIR --lerobot lerobot/bin/python

LeRobot reads the data set itself, and its network, loss and normalisation are used as they are. Only the sizes are
small and the weights begin at random: its ImageNet weights were not at hand. ACT (Zhao et al. 2023) is told no words,
and it has no way to say that it has arrived. So DIR holds the same weights as two checkpoints: ``never`` drives on, and
``standing`` says that it has arrived where it asks for next to no speed for a second. ``benchmarks/policies.py`` takes
both. There ACT is a kind of policy like any other, by an entry point that a small folder on the path provides.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from machine import describe, latencies
from mobile_vla.core import ActionChunk, ActionContract, Grounding, Instruction, Observation, Status, Step
from mobile_vla.policy.kinds import PolicyKind
from mobile_vla.policy.preprocess import HEIGHT, WIDTH, fit
from mobile_vla.policy.weights import load_policy, save_network

NAME = "lerobot_act"
NEVER, STANDING = "never", "standing"
IMAGE, STATE, ACTION, CHUNK = "observation.images.front", "observation.state", "action", "action.chunk"

STILL_FRAMES = 5
"""So many frames in a row, one second, with next to no speed asked for count as the end in ``standing``."""
STILL_SHARE = 0.1
"""Of the limits: below this on every axis is next to no speed."""

BATCH, LEARNING_RATE, WEIGHT_DECAY, CLIP_NORM, WARMUP_SHARE = 32, 3e-4, 1e-4, 10.0, 0.03
SAVE_EVERY_S = 120.0


@dataclass(frozen=True)
class ActSizes:
    """Sizes of LeRobot's ACT over its ResNet-18, and the data's means and deviations, which LeRobot normalises by.

    ``shrink``: frames of 96x192 are averaged over squares of so many pixels. ``ends``: NEVER or STANDING.
    """

    shrink: int = 2
    dim_model: int = 128
    heads: int = 4
    feedforward: int = 512
    encoder_layers: int = 2
    decoder_layers: int = 1
    vae_layers: int = 2
    ends: str = NEVER
    stats: Mapping[str, Mapping[str, Any]] | None = None


class ActNetwork(nn.Module):
    """LeRobot's ACTPolicy, with its own normalisation before and after."""

    kind: ClassVar = NAME

    def __init__(self, sizes: ActSizes, contract: ActionContract) -> None:
        from lerobot.configs.types import FeatureType, PolicyFeature
        from lerobot.policies.act.configuration_act import ACTConfig
        from lerobot.policies.act.modeling_act import ACTPolicy
        from lerobot.policies.act.processor_act import make_act_pre_post_processors

        super().__init__()
        self.sizes, self.contract = sizes, contract
        axes = len(contract.axes)
        picture = (3, HEIGHT // sizes.shrink, WIDTH // sizes.shrink)
        config = ACTConfig(
            input_features={
                IMAGE: PolicyFeature(FeatureType.VISUAL, picture),
                STATE: PolicyFeature(FeatureType.STATE, (axes,)),
            },
            output_features={ACTION: PolicyFeature(FeatureType.ACTION, (axes,))},
            chunk_size=contract.horizon,
            n_action_steps=1,
            pretrained_backbone_weights=None,
            dim_model=sizes.dim_model,
            n_heads=sizes.heads,
            dim_feedforward=sizes.feedforward,
            n_encoder_layers=sizes.encoder_layers,
            n_decoder_layers=sizes.decoder_layers,
            n_vae_encoder_layers=sizes.vae_layers,
            device="cpu",
            push_to_hub=False,
        )
        self.act = ACTPolicy(config)
        stats = {name: {key: np.array(value) for key, value in each.items()} for name, each in sizes.stats.items()}
        self.before, self.after = make_act_pre_post_processors(config, stats)

    def batch(self, pixels: Tensor, velocities: Tensor) -> dict[str, Tensor]:
        """Frames (N, 3, 96, 192) in 0..1 and measured velocities (N, 3), as LeRobot takes them before normalising."""
        small = F.avg_pool2d(pixels, self.sizes.shrink)
        return {IMAGE: small.contiguous(memory_format=torch.channels_last), STATE: velocities}


class ActState(NamedTuple):
    """``still``: frames in a row, up to the last, with next to no speed asked for."""

    still: int


class ActPolicy:
    """Behind our protocol. Each step is a whole forward pass; the words are not read."""

    def __init__(self, network: ActNetwork) -> None:
        self.network = network.eval()
        self.contract = network.contract

    def reset(self, instruction: Instruction) -> ActState:
        return ActState(0)

    @torch.inference_mode()
    def step(self, observation: Observation, state: ActState) -> Step:
        pixels = torch.tensor(fit(observation.frame.pixels)).permute(2, 0, 1)[None].float() / 255.0
        velocities = torch.from_numpy(observation.velocity.as_array())[None]
        batch = self.network.before(self.network.batch(pixels, velocities))
        asked = self.network.after(self.network.act.predict_action_chunk(batch))[0].numpy()
        limits = self.contract.limits_array
        chunk = np.clip(asked, -limits, limits).astype(np.float32)
        is_still = bool((np.abs(chunk[: self.contract.rows_per_frame]) < STILL_SHARE * limits).all())
        still = state.still + 1 if is_still else 0
        has_ended = self.network.sizes.ends == STANDING and still >= STILL_FRAMES
        if has_ended:
            chunk[:] = 0.0
        status = Status.ARRIVED if has_ended else Status.DRIVING
        return Step(
            ActionChunk(chunk, observation.frame.capture_ns, self.contract.rate_hz),
            Grounding(0.0, 0.0, 0.0, (0.0, 0.0, 0.0, 0.0), status),
            ActState(still),
        )


def _make(sizes: ActSizes, contract: ActionContract) -> ActNetwork:
    return ActNetwork(sizes, contract)


def _sizes(network: ActNetwork) -> dict[str, Any]:
    return asdict(network.sizes)


def _build(sizes: Mapping[str, Any], contract: ActionContract) -> ActNetwork:
    return ActNetwork(ActSizes(**sizes), contract)


KIND = PolicyKind(NAME, ActNetwork, ActSizes, _make, _sizes, _build, ActPolicy)


def surroundings(folder: Path) -> dict[str, str]:
    """What a Python with LeRobot in it needs around it: our source, and in ``folder`` the entry point of this kind."""
    about = folder / "peer_act-0.dist-info"
    about.mkdir(parents=True, exist_ok=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: peer-act\nVersion: 0\n")
    (about / "entry_points.txt").write_text(f"[mobile_vla.policies]\n{NAME} = peer_act:KIND\n")
    here = Path(__file__).resolve().parent
    path = [here.parent / "src", here, folder.resolve()]
    own = {"PYTHONPATH": os.pathsep.join(map(str, path)), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return {"HF_HOME": str(folder.resolve() / "hf")} | os.environ | own


def train(root: Path, out: Path, sizes: ActSizes, minutes: float) -> None:
    """For so many minutes by the clock, on one thread; the learning rate falls to zero over them."""
    from mobile_vla.data import Dataset, data_hash, load_split

    torch.set_num_threads(1)
    torch.manual_seed(0)
    ours = Dataset.open(root)
    split = load_split(ours)
    frames, stats = _read(root, split.train)
    network = ActNetwork(replace(sizes, stats=stats), ours.contract)
    rng = np.random.default_rng(0)
    _settle(network, _drawn(network, frames, rng))
    origin = {
        "trained_by": "LeRobot 0.4.4, ACT",
        "minutes": minutes,
        "batch": BATCH,
        "learning_rate": LEARNING_RATE,
        "data": {str(root): {"data_hash": data_hash(ours.all_records), "split_hash": split.split_hash}},
    }
    describe()
    print(f"{_count(network):,} parameters; {len(frames)} frames to learn from, batch {BATCH}", flush=True)
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    began, cpu, saved, step, recent = time.monotonic(), time.process_time(), 0.0, 0, []
    network.act.train()
    while (share := (time.monotonic() - began) / (60 * minutes)) < 1.0:
        rate = LEARNING_RATE * min(1.0, share / WARMUP_SHARE) * 0.5 * (1.0 + np.cos(np.pi * share))
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16):
            loss, parts = network.act(_drawn(network, frames, rng))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), CLIP_NORM)
        optimizer.step()
        step += 1
        recent.append(parts["l1_loss"])
        if time.monotonic() - began - saved > SAVE_EVERY_S:
            saved = time.monotonic() - began
            print(f"{saved:4.0f} s  step {step}  l1 {np.mean(recent[-100:]):.4f} deviations", flush=True)
            _save(out, network, origin | {"frames_seen": step * BATCH})
    spent = time.process_time() - cpu
    _save(out, network, origin | {"frames_seen": step * BATCH, "cpu_seconds": round(spent)})
    print(f"{step} steps, {step * BATCH} frames, {spent:.0f} s of one core; l1 {np.mean(recent[-100:]):.4f} deviations")


class _Frames:
    """What LeRobot's own loader gives, with the columns that ACT learns from alone."""

    def __init__(self, table: Any, rows: np.ndarray) -> None:
        self._table, self._rows = table, rows

    def __len__(self) -> int:
        return len(self._rows)

    def draw(self, count: int, rng: np.random.Generator) -> dict[str, Any]:
        return self._table[self._rows[rng.integers(len(self._rows), size=count)].tolist()]


def _read(root: Path, episodes: tuple[int, ...]) -> tuple[_Frames, dict[str, Any]]:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset("ours/set", root=root)
    known = [dataset.meta.episodes[number] for number in episodes]
    rows = np.concatenate([np.arange(each["dataset_from_index"], each["dataset_to_index"]) for each in known])
    stats = {
        name: {key: np.asarray(dataset.meta.stats[name][key]).tolist() for key in ("mean", "std")}
        for name in (IMAGE, STATE, ACTION)
    }
    return _Frames(dataset.hf_dataset.select_columns([IMAGE, STATE, CHUNK]), rows), stats


def _drawn(network: ActNetwork, frames: _Frames, rng: np.random.Generator) -> dict[str, Tensor]:
    """A batch as ACT takes it. Its actions are the expert's chunks, the same rows that our policies learn."""
    drawn = frames.draw(BATCH, rng)
    wanted = torch.stack(list(drawn[CHUNK])).view(BATCH, network.contract.horizon, -1)
    unknown = wanted.isnan().any(dim=2)
    batch = network.batch(torch.stack(list(drawn[IMAGE])), torch.stack(list(drawn[STATE])))
    return network.before(batch | {ACTION: wanted.nan_to_num(), "action_is_pad": unknown})


@torch.no_grad()
def _settle(network: ActNetwork, batch: dict[str, Tensor]) -> None:
    """Give the backbone's frozen normalisation, which pretrained weights would bring, the statistics of a batch."""
    from torchvision.ops.misc import FrozenBatchNorm2d

    def take(layer: Any, inputs: tuple[Tensor]) -> None:
        layer.running_mean.copy_(inputs[0].mean((0, 2, 3)))
        layer.running_var.copy_(inputs[0].var((0, 2, 3)))

    layers = [each for each in network.modules() if isinstance(each, FrozenBatchNorm2d)]
    hooks = [each.register_forward_pre_hook(take) for each in layers]
    network.act(batch)
    for hook in hooks:
        hook.remove()


def _save(out: Path, network: ActNetwork, origin: dict[str, Any]) -> None:
    learnt = network.sizes
    for ends in (NEVER, STANDING):
        network.sizes = replace(learnt, ends=ends)
        save_network(out / ends, network, origin)
    network.sizes = learnt


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def time_select(folder: Path, times: int = 200) -> None:
    """LeRobot's own ``select_action``, a whole forward pass each time, from a normalised batch."""
    torch.set_num_threads(1)
    network = load_policy(folder).network
    pixels, velocities = torch.rand(1, 3, HEIGHT, WIDTH), torch.zeros(1, 3)
    spent = []
    for _ in range(times + 20):
        network.act.reset()
        began = time.perf_counter()
        network.after(network.act.select_action(network.before(network.batch(pixels, velocities))))
        spent.append(1e3 * (time.perf_counter() - began))
    latencies("select_action, one thread", spent[20:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="drives of ours, divided; only read")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the two checkpoints go")
    parser.add_argument("--lerobot", type=Path, metavar="PYTHON", help="Python of an environment with lerobot 0.4.4")
    parser.add_argument("--minutes", type=float, default=10.0, help="of training, by the clock (default 10)")
    parser.add_argument("--sizes", type=json.loads, default={}, metavar="JSON", help="e.g. '{\"dim_model\": 256}'")
    options = parser.parse_args()
    if options.lerobot:
        arguments = [str(options.dataset), "--out", str(options.out), "--minutes", str(options.minutes)]
        command = [str(options.lerobot), __file__, *arguments, "--sizes", json.dumps(options.sizes)]
        sys.exit(subprocess.run(command, env=surroundings(options.out / "plugin")).returncode)
    train(options.dataset, options.out, ActSizes(**options.sizes), options.minutes)
    time_select(options.out / NEVER)


if __name__ == "__main__":
    main()
