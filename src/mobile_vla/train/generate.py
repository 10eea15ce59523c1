"""Data sets made by several workers at once. Killed and started again, it makes only what is missing.

Workers drive batches of seeds and give back whole episodes, their images already coded; one writer takes them in, in
the order of the seeds. A batch is the same whoever drives it, so a data set does not hang on the number of workers, nor
on which of them were killed.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch

from mobile_vla.core import ActionContract
from mobile_vla.core.provenance import git_commit
from mobile_vla.data import Dataset, EpisodeWriter, Recording, merge_shards
from mobile_vla.language import Grammar
from mobile_vla.policy.preprocess import HEIGHT, WIDTH
from mobile_vla.sim.robot import SimClock
from mobile_vla.sim.world import renderer_name
from mobile_vla.train import collect
from mobile_vla.train.collect import Learner, drive, survey
from mobile_vla.train.learner import load_learner
from mobile_vla.train.workers import Carried, fan_out

IMAGE_SHAPE = (HEIGHT, WIDTH, 3)

SURVEY_BATCH = 100
"""Scenes; about three seconds of work, and 7 MB."""

DRIVE_LANES_FULL = 6
"""Episodes of a batch for each lane. The last ones of a batch leave lanes empty, for which the learner computes all the
same: 19 % of the time at 2, 6 % at 4 (shipped policy, 12 lanes, one core)."""

BATCHES = 24
"""As many batches does a small job still have, so that there is work for more than a few."""


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

    @property
    def batch_size(self) -> int:
        """Seeds that are driven together; the same however many workers there are."""
        most = SURVEY_BATCH if self.kind == "survey" else DRIVE_LANES_FULL * self.lanes
        least = 1 if self.kind == "survey" else 2 * self.lanes
        return min(most, max(least, self.episodes // BATCHES))


@dataclass(frozen=True)
class Batch:
    """Seeds in ascending order."""

    seeds: tuple[int, ...]

    def __str__(self) -> str:
        return f"the batch of the seeds {self.seeds[0]} to {self.seeds[-1]}"


@dataclass(frozen=True)
class Made:
    """One episode for each seed of a batch, in their order. ``renderer`` is the worker's."""

    renderer: str
    episodes: tuple[Recording, ...]


def generate(job: GenerateJob, root: Path, contract: ActionContract, processes: int, ray: str | None = None) -> None:
    """Make the data set at ``root``; returns at once where it is already whole.

    By ``processes`` workers here, or by a Ray cluster, which need not see our disk; errors as ``fan_out``.
    """
    if root.exists():
        return
    parts = root.with_name(root.name + ".parts")
    whole = parts / "whole"
    if shards := sorted(parts.glob("[0-9][0-9]")):
        merge_shards(whole, shards)  # begun by a version whose workers each had a folder of their own
    _make_shard(job, whole, range(job.first_seed, job.first_seed + job.episodes), contract, processes, ray)
    os.replace(whole, root)


def _make_shard(
    job: GenerateJob,
    shard: Path,
    seeds: Sequence[int],
    contract: ActionContract,
    processes: int = 1,
    ray: str | None = None,
) -> None:
    """Bring the data set at ``shard`` up to one episode for each of ``seeds``.

    A batch that is there in part is made again as a whole, for the same lanes, and only what is missing is kept.
    """
    done = _seeds_of(shard)
    batches = [Batch(tuple(seeds[start : start + job.batch_size])) for start in range(0, len(seeds), job.batch_size)]
    missing = [batch for batch in batches if not done.issuperset(batch.seeds)]
    policy = None if job.policy is None else Carried.of(job.policy, far=ray is not None)
    results = fan_out(_Opening(job, contract, policy), missing, processes, ray)
    with closing(results):
        first = next(results, None)
        metadata = {
            "job": job.kind,
            "first_seed": job.first_seed,
            "clock": SimClock.name,
            "renderer": first.renderer if first else None,
            "git_commit": git_commit(),
            "grammar_split": Grammar.load().split_hash,
        }
        with _Collector(shard, contract, IMAGE_SHAPE, metadata) as writer:
            for made in chain([first] if first else [], results):
                for episode in made.episodes:
                    if episode.extras["scene_seed"] not in done:
                        if made.renderer != metadata["renderer"]:
                            episode.note(renderer=made.renderer)
                        writer.take(episode)


def _seeds_of(shard: Path) -> set[object]:
    if not shard.exists():
        return set()
    return {record.extras["scene_seed"] for record in Dataset.open(shard).records}


class _Collector(EpisodeWriter):
    def take(self, episode: Recording) -> None:
        """An episode that was recorded, and its images coded, by another process; durable when this returns."""
        self._require_space()
        self._commit(episode)


@dataclass(frozen=True)
class _Opening:
    job: GenerateJob
    contract: ActionContract
    policy: Carried | None

    def __call__(self) -> "_Workshop":
        return _Workshop(self.job, self.contract, self.policy)


class _Workshop:
    """Makes one batch after the other, on one thread."""

    def __init__(self, job: GenerateJob, contract: ActionContract, policy: Carried | None) -> None:
        torch.set_num_threads(1)
        self._job, self._contract, self._grammar = job, contract, Grammar.load()
        self._renderer = renderer_name()
        self._learner: Learner | None = None
        if policy is not None:
            with policy.here() as folder:
                self._learner = load_learner(folder, job.lanes)

    def __call__(self, batch: Batch) -> Made:
        """Drive, or survey, one batch."""
        coded = {made.extras["scene_seed"]: self._code(made) for made in self._recordings(batch.seeds)}
        return Made(self._renderer, tuple(coded[seed] for seed in batch.seeds))

    def _recordings(self, seeds: Sequence[int]) -> Iterator[collect.Recording]:
        job = self._job
        if job.kind == "survey":
            return survey(seeds, job.poses, self._grammar, self._contract)
        return drive(seeds, self._grammar, self._contract, self._learner, job.lanes, job.max_frames)

    def _code(self, made: collect.Recording) -> Recording:
        episode = Recording(made.instruction, made.extras, self._contract, IMAGE_SHAPE)
        for row in made.rows:
            episode.add(row)
        return episode
