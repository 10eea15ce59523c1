"""What shortening a full-size policy saves, counted, and what it costs in success, driven.

    python benchmarks/shortened.py --policy runs/kosmos/final --episodes 17 --out out/shortened \
        --setting "patches=0.5" --setting "latents=0.5" --setting "decoder_layers=2" --setting "vision_layers=4"

The policy is driven whole and under each setting, in the same held-out scenes. Nothing is trained again. A setting is
of the policy that drives; beside it stands what it comes to at the full size, layers in proportion, where the products
and the weights are counted on the meta device. Floors are of bf16 (``engine.roofline``, predicted from published or
earlier measured rates). Drives are kept one by one in DIR, a file for each setting: started again after a kill, what
is there is not driven again. After a change of the code choose another DIR.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import CLIPConfig, Kosmos2Config

from machine import describe as describe_machine
from mobile_vla.checkpoint.atomic import write_bytes
from mobile_vla.core import ActionContract, ConfigError, MobileVLAError
from mobile_vla.core.provenance import git_commit
from mobile_vla.engine.bench.counting import Count, count
from mobile_vla.engine.bench.roofline import PREDICTED, floor_s
from mobile_vla.evaluate.episode import EpisodeResult, run_episode
from mobile_vla.evaluate.journal import Journal
from mobile_vla.evaluate.plan import GROUPS, plan_suites
from mobile_vla.evaluate.provenance import provenance
from mobile_vla.evaluate.statistics import Estimate, Paired, Share
from mobile_vla.language import Grammar
from mobile_vla.policy.encoders.kosmos import KosmosTower
from mobile_vla.policy.encoders.sources import describe
from mobile_vla.policy.encoders.tower import Seen, TowerSpec
from mobile_vla.policy.kosmos_clip import KosmosClipConfig, KosmosClipNetwork
from mobile_vla.policy.shorten import Shortening, read_shortening, shorten
from mobile_vla.policy.vla import VlaNetwork, VlaPolicy
from mobile_vla.policy.vla_step import VlaStep
from mobile_vla.policy.weights import load_network
from mobile_vla.sim.world import World

WORDS = 31
"""Pieces of an instruction: with 64 latents, the marks and the action token the decoder then reads 99 tokens."""
FLOORS = (("h200-seen", 1), ("h200-seen", 8), ("orin-agx-64gb", 1))
"""Devices of ``PREDICTED``, and sessions at once."""
PRECISION, DRIVER = "bf16", "policy"
WHOLE, JSON, TABLE = "", "shortened.json", "shortened.md"

Row = dict[str, Any]
"""Plain values, as in ``shortened.json``: a setting's figures."""


@dataclass(frozen=True)
class Asked:
    """What is driven."""

    folder: Path
    episodes: int
    out: Path
    first_seed: int = 0


def measure(asked: Asked, settings: Sequence[str]) -> list[Row]:
    """A row for the whole policy and for each setting, in this order."""
    torch.set_num_threads(1)
    network, full = cast(VlaNetwork, load_network(asked.folder)), full_size()
    rows: list[Row] = []
    first: list[EpisodeResult] = []
    for setting in (WHOLE, *settings):
        how = read_shortening(setting)
        large = in_proportion(how, network, full)
        row = {"setting": str(how), "full_setting": str(large)}
        row |= {"reduced": counted(shorten(network, how)).to_dict(), "full": saved(shorten(full, large))}
        results = list(drive(asked, shorten(network, how), str(how)))
        first = first or results
        rows.append(row | judged(results, first))
    return rows


def drive(asked: Asked, network: VlaNetwork, setting: str) -> Iterator[EpisodeResult]:
    """Every scene, from the journal of the setting where it was driven before."""
    grammar = Grammar.load()
    planned = plan_suites(GROUPS, asked.episodes, grammar, asked.first_seed)
    seed, suites = asked.first_seed, list(GROUPS)
    made_by = provenance(asked.folder, grammar, first_seed=seed, episodes=asked.episodes, suites=suites)
    parts = (made_by.checkpoint_sha256, made_by.renderer, made_by.base, sorted(made_by.versions.items()), setting)
    asked.out.mkdir(parents=True, exist_ok=True)
    name = setting.replace(" ", ",") or "whole"
    journal = Journal(asked.out / f"{name}.jsonl", hashlib.sha256(repr(parts).encode()).hexdigest())
    policy, world = VlaPolicy(network), World(base=made_by.base)
    try:
        for episode in planned:
            if (episode, DRIVER) not in journal:
                journal.add(run_episode(episode, world, lambda *_: policy, DRIVER))
                print(f"{name}: {episode.scenario} {episode.seed}", file=sys.stderr, flush=True)
            yield journal[episode, DRIVER]
    finally:
        world.close()


def judged(results: Sequence[EpisodeResult], first: Sequence[EpisodeResult]) -> Row:
    """Success beside that of the whole policy in the same scenes, and the named object reached."""
    targets = [result.verdict.right_target for result in results if result.verdict.right_target is not None]
    pairs = list(zip((each.success for each in first), (each.success for each in results), strict=True))
    differences = np.array([float(now) - float(before) for before, now in pairs])
    rng = np.random.default_rng(0)
    return {
        "success": Share.of(result.success for result in results).to_dict(),
        "right_object": Share.of(targets).to_dict(),
        "paired": Paired.of(pairs).to_dict(),
        "difference": _plain(Estimate.of(differences, np.ones(len(pairs), dtype=np.int64), rng, draws=10_000)),
        "groups": {
            group: Share.of(each.success for each in results if each.planned.group == group).to_dict()
            for group in GROUPS
        },
    }


def _plain(estimate: Estimate) -> dict[str, float]:
    """For JSON."""
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def full_size() -> KosmosClipNetwork:
    """The hybrid in its true sizes on the meta device; the tokenizer is a small one, and only counts."""
    text, grey = describe("tiny", "kosmos").tokenizer, (0.5, 0.5, 0.5)
    configs = {"kosmos": Kosmos2Config().to_dict(), "clip": CLIPConfig().to_dict()}
    specs = {name: TowerSpec("full", config, text, grey, grey) for name, config in configs.items()}
    with torch.device("meta"):
        return KosmosClipNetwork(KosmosClipConfig(), ActionContract(horizon=10), specs)


def depths(network: VlaNetwork) -> tuple[int, int]:
    """Layers of the leading tower's vision transformer and decoder. ConfigError for one that is not Kosmos-2."""
    tower = network.towers[network.config.towers[0]]
    if not isinstance(tower, KosmosTower):
        raise ConfigError(f"a policy of kind {network.kind} has no decoder to shorten: measure a kosmos_clip")
    return len(tower.model.vision_model.model.encoder.layers), len(tower.model.text_model.model.layers)


def in_proportion(how: Shortening, network: VlaNetwork, full: VlaNetwork) -> Shortening:
    """The same at the full size: shares as they are, layers in proportion."""
    (vision, decoder), (full_vision, full_decoder) = depths(network), depths(full)

    def at(layers: int | None, of: int, among: int) -> int | None:
        return None if layers is None else max(1, round(layers * among / of))

    return replace(
        how,
        decoder_layers=at(how.decoder_layers, decoder, full_decoder),
        vision_layers=at(how.vision_layers, vision, full_vision),
        after_layer=at(how.after_layer, vision, full_vision),
    )


def counted(network: VlaNetwork, sessions: int = 1) -> Count:
    """Of one decision; the words were read before."""
    step = VlaStep(network, WORDS).eval()
    return count(step, tuple(step.example(sessions)), PRECISION)


def saved(network: VlaNetwork) -> Row:
    """Products and weights of a decision, and the least time that devices can take for it."""
    by_sessions = {sessions: counted(network, sessions) for sessions in {sessions for _, sessions in FLOORS}}
    floors = []
    for device, sessions in FLOORS:
        floor = floor_s(by_sessions[sessions], PREDICTED[device], PRECISION)
        floors.append({"device": device, "sessions": sessions} | floor.to_dict())
    return by_sessions[1].to_dict() | {"floors": floors}


class _Ask(nn.Module):
    def __init__(self, tower: KosmosTower) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, latents: Tensor, words: Tensor, lengths: Tensor) -> Tensor:
        return self.tower.ask(Seen(latents, latents), (words, lengths))


def parts(network: KosmosClipNetwork) -> dict[str, Row]:
    """Where the products and the weights of the full size are, and the least time of each part on the first device."""
    tower, clip = cast(KosmosTower, network.towers["kosmos"]), cast(Any, network.towers["clip"])
    words, lengths, _ = VlaStep(network, WORDS).read("stop")
    with tower.marks.device:
        planes = torch.zeros(1, 3, *network.config.size)
        features = torch.zeros(1, tower.grid[0] * tower.grid[1] + 1, tower.patch)
        latents = torch.zeros(1, tower.latents, tower.answer)
    modules: dict[str, tuple[nn.Module, tuple[Any, ...]]] = {
        "vision transformer": (tower.model.vision_model, (planes,)),
        "projector": (tower.model.image_to_text_projection, (features,)),
        "decoder": (_Ask(tower), (latents, words, lengths)),
        "CLIP's vision transformer": (clip.model.vision_model, (planes,)),
    }
    device = PREDICTED[FLOORS[0][0]]
    rows = {}
    for name, (module, inputs) in modules.items():
        made = count(module, inputs, PRECISION)
        rows[name] = made.to_dict() | {"floor": floor_s(made, device, PRECISION).to_dict()}
    return rows


def markdown(rows: Sequence[Row], by_part: dict[str, Row]) -> str:
    """Three tables: what is saved, what it costs, and where the time is."""
    return "\n".join([*_saved(rows), "", *_cost(rows), "", *_where(by_part)])


def _saved(rows: Sequence[Row]) -> Iterator[str]:
    names = [f"floor {PREDICTED[device].name}, batch {sessions}, ms" for device, sessions in FLOORS]
    yield from _head(["reduced policy", "GFLOP", "full size", "GFLOP", "weights read, M", *names])
    for row in rows:
        full = row["full"]
        before = rows[0]["full"]["floors"]
        floors = (_floor(now, then) for now, then in zip(full["floors"], before, strict=True))
        weights = f"{full['weight_bytes'] / 2e6:,.0f}"
        cells = [_name(row["setting"]), f"{row['reduced']['flops'] / 1e9:.2f}", _name(row["full_setting"])]
        yield _line([*cells, f"{full['flops'] / 1e9:.0f}", weights, *floors])


def _floor(now: Row, then: Row) -> str:
    less = 1 - now["seconds"] / then["seconds"]
    return f"{1e3 * now['seconds']:.2f} ({now['bound_by']}{f', -{100 * less:.0f} %' if less > 0.005 else ''})"


def _cost(rows: Sequence[Row]) -> Iterator[str]:
    yield from _head(["setting", "success", "against whole, points", "only whole : only this (p)", "right object"])
    for row in rows:
        difference, paired = row["difference"], row["paired"]
        apart = "" if row is rows[0] else f"{100 * difference['value']:+.0f} [{100 * difference['low']:+.0f}, "
        apart += "" if row is rows[0] else f"{100 * difference['high']:+.0f}]"
        only = f"{paired['only_first']} : {paired['only_second']} ({paired['p_value']:.2g})"
        cells = [_share(row["success"]), apart, "" if row is rows[0] else only, _share(row["right_object"])]
        yield _line([_name(row["setting"]), *cells])


def _where(by_part: dict[str, Row]) -> Iterator[str]:
    device = PREDICTED[FLOORS[0][0]].name
    yield from _head(["part", "GFLOP", "weights, M", f"{device}: weights, ms", "products, ms"])
    for name, row in by_part.items():
        floor = row["floor"]
        times = (f"{1e3 * floor[key]:.2f}" for key in ("memory_s", "arithmetic_s"))
        yield _line([name, f"{row['flops'] / 1e9:.0f}", f"{row['weight_bytes'] / 2e6:,.0f}", *times])


def _name(setting: str) -> str:
    return f"`{setting}`" if setting else "whole"


def _head(names: Sequence[str]) -> Iterator[str]:
    yield _line(names)
    yield "|" + "---|" * len(names)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _share(share: Row) -> str:
    if not share["total"]:
        return "–"
    low, high = 100 * share["low"], 100 * share["high"]
    return f"{100 * share['value']:.0f} % [{low:.0f}, {high:.0f}] ({share['count']}/{share['total']})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", type=Path, required=True, metavar="DIR", help="a kosmos_clip or kosmos_lstm")
    parser.add_argument("--setting", action="append", default=[], metavar="TEXT", help="as policy.shorten reads it")
    parser.add_argument("--episodes", type=int, default=17, metavar="N", help="scenes of each suite (default 17)")
    parser.add_argument("--first-seed", type=int, default=0, metavar="N", help="of the scenes (default 0)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the tables")
    options = parser.parse_args()
    if not options.json:
        describe_machine()
    try:
        asked = Asked(options.policy, options.episodes, options.out, options.first_seed)
        rows = measure(asked, options.setting)
    except MobileVLAError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    by_part = parts(full_size())
    about = {
        "policy": str(options.policy),
        "episodes": options.episodes,
        "commit": git_commit(),
        "groups": list(GROUPS),
    }
    text = json.dumps({"about": about, "rows": rows, "parts": by_part}, indent=1)
    table = markdown(rows, by_part)
    write_bytes(options.out / JSON, text.encode() + b"\n")
    write_bytes(options.out / TABLE, table.encode() + b"\n")
    print(text if options.json else table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
