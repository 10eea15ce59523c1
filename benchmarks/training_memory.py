"""Memory and time of a training step of the full-size hybrid, with LoRA at bf16.

On a CUDA device steps are run and measured. Elsewhere they are computed, and every figure is marked so: the network
stands on PyTorch's meta device, which has shapes and no numbers. There a step is gone through, forwards and backwards;
what autograd keeps is added up by its hooks, and operations are counted by ``torch.utils.flop_counter``. What is not
counted: the allocator's gaps, the CUDA context (about 0.5 GiB), and temporary buffers of single operations. Attention
is counted as if its matrix were kept, which flash attention does not do.
"""

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPConfig, Kosmos2Config
from transformers.modeling_layers import GradientCheckpointingLayer

from machine import describe as describe_machine
from mobile_vla.core import ActionContract
from mobile_vla.policy.compact import MOTION_SIZE
from mobile_vla.policy.encoders.sources import describe
from mobile_vla.policy.encoders.tower import TowerSpec
from mobile_vla.policy.kosmos_clip import KosmosClipConfig, KosmosClipNetwork
from mobile_vla.policy.vla import Drives
from mobile_vla.train.adapt import LORA, WAYS, LoraSettings, adapt

H200_FLOPS, H200_BYTES = 790e12, 4.3e12
"""A second, bf16, of field notes section 7."""
WORDS = 16
"""Word pieces of an instruction."""
GIB = 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--towers", default=LORA, choices=WAYS, help="how the towers learn (default lora)")
    parser.add_argument("--windows", type=int, nargs="+", default=[1, 4, 16], help="batch sizes (default 1 4 16)")
    parser.add_argument("--length", type=int, default=8, help="frames a window (default 8)")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.3, 0.5], help="of the peak (default 0.3 0.5)")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file too")
    options = parser.parse_args()
    describe_machine()
    measure = torch.cuda.is_available()
    rows = list(_measured(options) if measure else _computed(options))
    print(f"\ntowers {options.towers}, windows of {options.length} frames; {'MEASURED' if measure else 'COMPUTED'}")
    for row in rows:
        print(_line(row))
    if options.out:
        options.out.write_text(json.dumps(rows, indent=2))


def _line(row: dict[str, Any]) -> str:
    words = [f"{key} {value:,.2f}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()]
    return "  ".join(words)


def _network(device: str, towers: str, checkpointing: bool) -> tuple[KosmosClipNetwork, list[nn.Parameter]]:
    """Of full size with random weights, and the parameters that learn. The tokenizer is a small one."""
    text = describe("tiny", "kosmos").tokenizer
    grey = (0.5, 0.5, 0.5)
    kosmos, clip = Kosmos2Config().to_dict(), CLIPConfig().to_dict()
    specs = {
        "kosmos": TowerSpec("full", kosmos, text, grey, grey),
        "clip": TowerSpec("full", clip, text, grey, grey),
    }
    with torch.device(device):
        network = KosmosClipNetwork(KosmosClipConfig(), ActionContract(horizon=10), specs)
        learning = adapt(network, towers, LoraSettings(), checkpointing)
    return network.train(), learning


def _drives(device: str, windows: int, length: int) -> Drives:
    numbers, lengths = torch.full((windows, WORDS), 5, device=device), torch.full((windows,), WORDS, device=device)
    pixels = torch.zeros(windows, length, 224, 224, 3, dtype=torch.uint8, device=device)
    motion = torch.zeros(windows, length, MOTION_SIZE, device=device)
    return Drives(pixels, ((numbers, lengths), (numbers, lengths)), motion)


def _loss(network: KosmosClipNetwork, drives: Drives) -> Tensor:
    decided = network(drives).decided
    assert decided is not None
    return network.head.chunk(decided.context).float().square().mean() + decided.status.float().square().mean()


# computed


def _computed(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    counted = {kept: _count(options.towers, options.length, kept) for kept in (False, True)}
    for checkpointing, one in counted.items():
        for windows in options.windows:
            flops = windows * one["flops"]
            memory = one["fixed"] + windows * one["activations"] + one["block"] * windows
            moved = one["moved"] + 2.0 * windows * one["activations"]
            yield {
                "how": "computed",
                "checkpointing": checkpointing,
                "windows": windows,
                "frames": windows * options.length,
                "weights_gib": one["weights"] / GIB,
                "cast_gib": one["cast"] / GIB,
                "learning_millions": one["learning"] / 1e6,
                "gradients_and_adamw_gib": 12 * one["learning"] / GIB,
                "activations_gib": windows * (one["activations"] + one["block"]) / GIB,
                "total_gib": memory / GIB,
                "tflop": flops / 1e12,
                **{
                    f"seconds_at_{share:.0%}": max(flops / (share * H200_FLOPS), moved / H200_BYTES)
                    for share in options.shares
                },
            }


def _count(towers: str, length: int, checkpointing: bool) -> dict[str, float]:
    """Bytes and operations of a step on one window."""
    network, learning = _network("meta", towers, checkpointing)
    own = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    weights = sum(each.numel() * each.element_size() for each in network.parameters())
    inputs, blocks = _watched(network)
    with _bf16(network), FlopCounterMode(display=False) as counter, _kept(own) as kept:
        loss = _loss(network, _drives("meta", 1, length))
        loss.backward()
    count = sum(parameter.numel() for parameter in learning)
    block = 0.0
    if checkpointing:
        apart = _count(towers, length, False)
        block = (apart["activations"] - kept[0]) / max(1, len(blocks))
    return {
        "weights": weights,
        "cast": weights / 2,
        "learning": count,
        "fixed": 1.5 * weights + 12 * count,
        "activations": kept[0] + (sum(inputs) if checkpointing else 0),
        "block": block,
        "flops": float(counter.get_total_flops()),
        "moved": (3 if checkpointing else 2) * weights / 2 + weights + weights / 2 + 7 * 4 * count,
    }


def _watched(network: nn.Module) -> tuple[list[int], list[nn.Module]]:
    """Bytes of the inputs of the transformer layers, which checkpointing keeps; and these layers."""
    inputs: list[int] = []
    layers = [module for module in network.modules() if isinstance(module, GradientCheckpointingLayer)]

    def note(_: nn.Module, given: tuple[Any, ...]) -> None:
        inputs.extend(each.numel() * each.element_size() for each in given if isinstance(each, Tensor))

    for layer in layers:
        layer.register_forward_pre_hook(note)
    return inputs, layers


@contextmanager
def _bf16(network: nn.Module) -> Iterator[None]:
    """Autocast knows no meta device: the network itself is made bf16, whose activations are of autocast's sizes."""
    network.bfloat16()
    yield


@contextmanager
def _kept(own: set[int]) -> Iterator[list[int]]:
    """Bytes that autograd keeps, each storage once, the parameters' left out."""
    seen: dict[int, Tensor] = {}
    total = [0]

    def pack(tensor: Tensor) -> Tensor:
        key = tensor.untyped_storage()._cdata
        if key not in own and key not in seen:
            seen[key] = tensor
            total[0] += tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield total


# measured


def _measured(options: argparse.Namespace, steps: int = 5) -> Iterator[dict[str, Any]]:
    for checkpointing in (False, True):
        network, learning = _network("cuda", options.towers, checkpointing)
        optimizer = torch.optim.AdamW(learning, 1e-5)
        for windows in options.windows:
            torch.cuda.reset_peak_memory_stats()
            drives, spent = _drives("cuda", windows, options.length), []
            try:
                for _ in range(steps):
                    torch.cuda.synchronize()
                    began = time.perf_counter()
                    with torch.autocast("cuda", torch.bfloat16):
                        loss = _loss(network, drives)
                    loss.backward()
                    optimizer.step()
                    optimizer.zero_grad()
                    torch.cuda.synchronize()
                    spent.append(time.perf_counter() - began)
            except torch.OutOfMemoryError:
                optimizer.zero_grad()
                yield {"how": "measured", "checkpointing": checkpointing, "windows": windows, "fits": False}
                continue
            yield {
                "how": "measured",
                "device": torch.cuda.get_device_name(),
                "checkpointing": checkpointing,
                "windows": windows,
                "frames": windows * options.length,
                "learning_millions": sum(each.numel() for each in learning) / 1e6,
                "total_gib": torch.cuda.max_memory_allocated() / GIB,
                "seconds": sorted(spent)[len(spent) // 2],
            }
        del network, learning, optimizer
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
