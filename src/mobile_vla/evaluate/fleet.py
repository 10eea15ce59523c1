"""Episodes driven by several processes at once, each with one world, one policy and one thread."""

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal, get_args

import torch

from mobile_vla.core import Policy
from mobile_vla.evaluate.blind import BlindPolicy
from mobile_vla.evaluate.episode import EpisodeResult, run_episode
from mobile_vla.evaluate.oracle import OraclePolicy
from mobile_vla.evaluate.plan import PlannedEpisode
from mobile_vla.language import Grammar
from mobile_vla.policy.weights import load_policy
from mobile_vla.sim.world import World

DriverName = Literal["policy", "blind", "expert"]
"""The policy of the checkpoint; the same told of an object drawn by lot; the expert that sees the truth."""
DRIVERS: Final[tuple[DriverName, ...]] = get_args(DriverName)


@dataclass(frozen=True, slots=True)
class Job:
    """An episode and who drives it."""

    planned: PlannedEpisode
    driver: DriverName


def drive_all(jobs: Sequence[Job], checkpoint: Path, processes: int) -> Iterator[EpisodeResult]:
    """Results in the order of the jobs, whatever the number of processes; in this process where that is 1.

    The number of threads that torch uses in this process is put back. ValueError for fewer than one process.
    """
    if processes < 1:
        raise ValueError(f"{processes} processes cannot drive: ask for at least 1")
    if processes == 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        workshop = _Workshop(checkpoint)
        try:
            yield from map(workshop.drive, jobs)
        finally:
            workshop.world.close()
            torch.set_num_threads(threads)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context) as pool:
        try:
            yield from pool.map(_drive, [checkpoint] * len(jobs), jobs)
        finally:
            pool.shutdown(cancel_futures=True)


class _Workshop:
    """What a process makes once and uses for every episode."""

    def __init__(self, checkpoint: Path) -> None:
        self.world = World(base="rollers")
        self._policy = load_policy(checkpoint)
        self._grammar = Grammar.load()

    def drive(self, job: Job) -> EpisodeResult:
        """Drive one job."""
        return run_episode(job.planned, self.world, lambda world, planned: self._choose(job, world), job.driver)

    def _choose(self, job: Job, world: World) -> Policy:
        match job.driver:
            case "policy":
                return self._policy
            case "blind":
                return BlindPolicy(self._policy, world.scene, job.planned, self._grammar)
            case "expert":
                return OraclePolicy(world, job.planned.goal, self._policy.contract)


@lru_cache(maxsize=1)
def _workshop(checkpoint: Path) -> _Workshop:
    torch.set_num_threads(1)
    return _Workshop(checkpoint)


def _drive(checkpoint: Path, job: Job) -> EpisodeResult:
    return _workshop(checkpoint).drive(job)
