"""Episodes driven by several workers at once, each with one world, one policy and one thread."""

import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

import torch

from mobile_vla.core import ConfigError, Policy
from mobile_vla.engine.load import load_policy
from mobile_vla.evaluate.blind import BlindPolicy
from mobile_vla.evaluate.episode import EpisodeResult, run_episode
from mobile_vla.evaluate.oracle import OraclePolicy
from mobile_vla.evaluate.plan import PlannedEpisode
from mobile_vla.language import Grammar
from mobile_vla.sim.world import World, renderer_name
from mobile_vla.train.workers import Carried, fan_out

DriverName = Literal["policy", "blind", "expert"]
"""The policy of the checkpoint; the same told of an object drawn by lot; the expert that sees the truth."""
DRIVERS: Final[tuple[DriverName, ...]] = get_args(DriverName)


@dataclass(frozen=True, slots=True)
class Job:
    """An episode and who drives it."""

    planned: PlannedEpisode
    driver: DriverName

    def __str__(self) -> str:
        return f"the episode {self.planned.scenario} {self.planned.seed} ({self.planned.words!r}, {self.driver})"


def drive_all(jobs: Sequence[Job], checkpoint: Path, processes: int, ray: str | None = None) -> Iterator[EpisodeResult]:
    """Results in the order of the jobs, the same for any number of processes; in this process where that is 1.

    ``ray``: by the workers of the Ray cluster at that address, which need not see the checkpoint's folder. The number
    of threads that torch uses in this process is put back. ValueError for fewer than one process; ConfigError where a
    worker of the cluster draws its frames by other means than this machine; others as ``fan_out``.
    """
    if ray is None and processes == 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        workshop = _Workshop(checkpoint)
        try:
            yield from map(workshop.drive, jobs)
        finally:
            workshop.world.close()
            torch.set_num_threads(threads)
        return
    renderer = None if ray is None else renderer_name()
    yield from fan_out(_Opening(Carried.of(checkpoint, far=ray is not None), renderer), jobs, processes, ray)


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


@dataclass(frozen=True)
class _Opening:
    checkpoint: Carried
    renderer: str | None

    def __call__(self) -> Callable[[Job], EpisodeResult]:
        torch.set_num_threads(1)
        with self.checkpoint.here() as folder:
            workshop = _Workshop(folder)
        if self.renderer not in (None, workshop.world.renderer_name):
            raise ConfigError(
                f"{platform.node()} draws by {workshop.world.renderer_name}, this machine by {self.renderer}: "
                "figures of the two do not mix; evaluate from a machine like those of the cluster"
            )
        return workshop.drive
