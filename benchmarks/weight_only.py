"""What weights of 8 or 4 bits (torchao) do for a decoder of full size on this CPU, beside fp32 and bf16: time, bytes,
difference. Random weights; the widths of Kosmos-2's text decoder.

    python -m venv --system-site-packages ao && ao/bin/pip install --no-deps torchao==0.18.0
    ao/bin/python benchmarks/weight_only.py

torchao is no dependency of this package: wherever it is installed, importing transformers loads it too, and it then
prints to stderr.
"""

import argparse
import copy
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, INNER, HEADS = 2048, 8192, 32
"""Of Kosmos-2's text decoder, which has 24 such layers."""


class Block(nn.Module):
    """One layer of a decoder, its arithmetic in five linear layers; normalisation first."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.asked, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.widen, self.narrow = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        rows, tokens, _ = x.shape
        parts = self.asked(self.before(x)).view(rows, tokens, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(*parts.unbind(0), is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(rows, tokens, WIDTH))
        return x + self.narrow(F.gelu(self.widen(self.between(x))))


def variants(base: nn.Module) -> dict[str, nn.Module]:
    """The same weights in each representation; torchao's where it is installed."""
    from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig, quantize_

    made = {"fp32": base, "bf16": copy.deepcopy(base).bfloat16()}
    for name, config in {
        "int8 weights": Int8WeightOnlyConfig(),
        "int4 weights": PrototypeInt4WeightOnlyConfig(group_size=128),
        "int8 weights and activations": Int8DynamicActivationInt8WeightConfig(),
    }.items():
        network = copy.deepcopy(made["bf16"])
        try:
            quantize_(network, config)
        except Exception as error:  # torchao raises whatever its kernels do: the row says so
            print(f"{name}: cannot be made here: {str(error).partition(chr(10))[0]}", file=sys.stderr)
            continue
        made[name] = network
    return made


def held(network: nn.Module) -> int:
    """Bytes of the weights as they are kept."""
    total = 0
    for each in network.state_dict().values():
        inner = (
            [getattr(each, name) for name in each.__tensor_flatten__()[0]]
            if type(each) is not Tensor and hasattr(each, "__tensor_flatten__")
            else [each]
        )
        total += sum(part.untyped_storage().nbytes() for part in inner)
    return total


def best_ms(calls: dict[str, Callable[[], Tensor]], rounds: int) -> dict[str, list[float]]:
    """Sorted times of each, taken in turns so that a busy machine hits all alike."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 2):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if turn >= 2:
                taken[name].append(1e3 * (time.perf_counter() - began))
    return {name: sorted(times) for name, times in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 16, 99], help="99: one decision of kosmos_clip")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="time torch.compile's programs too (minutes)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    networks = variants(nn.Sequential(*(Block() for _ in range(options.layers))).eval())
    print(f"torch {torch.__version__}, {options.threads} thread(s), {options.layers} layers of {WIDTH}/{INNER}")
    print(f"{'tokens':>6}  {'weights':34}{'MB':>7}{'p50 ms':>9}{'best ms':>9}{'to bf16':>9}{'1 - cosine':>12}")
    for tokens in options.tokens:
        x = torch.randn(1, tokens, WIDTH)
        calls: dict[str, Callable[[], Tensor]] = {}
        for name, network in networks.items():
            given = x if name == "fp32" else x.bfloat16()
            calls[name] = lambda network=network, given=given: network(given)  # type: ignore[misc]
            if options.compile:
                torch._dynamo.reset()
                compiled = torch.compile(network, fullgraph=True)
                calls[f"{name}, compiled"] = lambda network=compiled, given=given: network(given)  # type: ignore[misc]
        with torch.inference_mode():
            exact = networks["fp32"](x)
            apart = {
                name: 1 - float(F.cosine_similarity(call().float().flatten(), exact.flatten(), dim=0))
                for name, call in calls.items()
            }
            times = best_ms(calls, options.rounds)
        usual = times["bf16"][options.rounds // 2]
        for name, each in times.items():
            middle = each[options.rounds // 2]
            size = held(networks[name.removesuffix(", compiled")]) / 1e6
            print(
                f"{tokens:6}  {name:34}{size:7.0f}{middle:9.1f}{each[0]:9.1f}{usual / middle:8.2f}x{apart[name]:12.1e}",
                flush=True,
            )


if __name__ == "__main__":
    main()
