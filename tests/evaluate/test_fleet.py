import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from mobile_vla.evaluate.fleet import Job, drive_all
from mobile_vla.evaluate.plan import plan_episodes
from mobile_vla.language import Grammar


@pytest.fixture(scope="module")
def jobs(grammar: Grammar) -> list[Job]:
    return [Job(episode, "expert") for episode in plan_episodes("manoeuvres", 5, grammar)]


def test_episodes_of_killed_workers_are_driven_again_with_the_same_results(jobs: list[Job], checkpoint: Path) -> None:
    results = drive_all(jobs, checkpoint, 2)
    found = [next(results)]
    worker = multiprocessing.active_children()[0]
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    found += results
    assert found == list(drive_all(jobs, checkpoint, 1))
    assert [result.planned for result in found] == [job.planned for job in jobs]
    assert multiprocessing.active_children() == []


def test_a_job_can_be_named(jobs: list[Job]) -> None:
    assert str(jobs[0]).startswith("the episode ")
    assert jobs[0].planned.words in str(jobs[0])
