"""Data sets made by several processes at once. Killed and started again, it makes only what is missing."""

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mobile_vla.core import ActionContract
from mobile_vla.core.provenance import git_commit
from mobile_vla.data import Dataset, EpisodeWriter, merge_shards
from mobile_vla.language import Grammar
from mobile_vla.policy.preprocess import HEIGHT, WIDTH
from mobile_vla.sim.robot import SimClock
from mobile_vla.sim.world import renderer_name
from mobile_vla.train.collect import Recording, drive, survey
from mobile_vla.train.learner import NetworkLearner


@dataclass(frozen=True)
class GenerateJob:
    """What to make: ``kind`` survey or drive, one episode a seed; ``policy`` is the learner's checkpoint."""

    kind: str
    first_seed: int
    episodes: int
    poses: int = 12
    lanes: int = 12
    max_frames: int = 100
    policy: Path | None = None


def generate(job: GenerateJob, root: Path, contract: ActionContract, processes: int) -> None:
    """Make the data set at ``root`` with ``processes`` workers; returns at once where it is already whole."""
    if root.exists():
        return
    parts = root.with_name(root.name + ".parts")
    shards = [parts / f"{number:02d}" for number in range(processes)]
    seeds = range(job.first_seed, job.first_seed + job.episodes)
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes) as pool:
        work = [(job, shard, list(seeds[number::processes]), contract) for number, shard in enumerate(shards)]
        for result in [pool.apply_async(_make_shard, arguments) for arguments in work]:
            result.get()
    whole = parts / "whole"
    merge_shards(whole, shards)
    os.replace(whole, root)


def _make_shard(job: GenerateJob, shard: Path, seeds: Sequence[int], contract: ActionContract) -> None:
    torch.set_num_threads(1)
    done: set[Any] = set()
    if shard.exists():
        done = {record.extras["scene_seed"] for record in Dataset.open(shard).records}
    grammar = Grammar.load()
    metadata = {
        "job": job.kind,
        "first_seed": job.first_seed,
        "clock": SimClock.name,
        "renderer": renderer_name(),
        "git_commit": git_commit(),
        "grammar_split": grammar.split_hash,
    }
    with EpisodeWriter(shard, contract, (HEIGHT, WIDTH, 3), metadata) as writer:
        for made in _recordings(job, [seed for seed in seeds if seed not in done], grammar, contract):
            with writer.episode(made.instruction, made.extras) as episode:
                for row in made.rows:
                    episode.add(row)


def _recordings(
    job: GenerateJob, seeds: Sequence[int], grammar: Grammar, contract: ActionContract
) -> Iterator[Recording]:
    if job.kind == "survey":
        return survey(seeds, job.poses, grammar, contract)
    learner = None if job.policy is None else NetworkLearner.load(job.policy, job.lanes)
    return drive(seeds, grammar, contract, learner, job.lanes, job.max_frames)
