import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Container, Sequence
from pathlib import Path

import pytest
import torch

from mobile_vla.core import ActionContract
from mobile_vla.data import Dataset, validate
from mobile_vla.data.store import JOURNAL_PATH
from mobile_vla.policy.compact import CompactConfig, CompactNetwork
from mobile_vla.policy.weights import save_network
from mobile_vla.train.generate import IMAGE_SHAPE, Batch, GenerateJob, _Collector, _Opening, generate
from mobile_vla.train.workers import Carried

PATIENCE_S = 200.0
CONTRACT = ActionContract()
SURVEY = GenerateJob("survey", first_seed=40, episodes=60, poses=2)
"""Thirty batches of two scenes."""


def content(root: Path) -> list[tuple[object, ...]]:
    """All that was recorded, in its order."""
    dataset = Dataset.open(root)
    return [
        (
            episode.instruction,
            tuple(episode.record.extras.items()),
            tuple(map(bytes, episode.jpegs)),
            tuple((name, values.tobytes()) for name, values in sorted(episode.columns.items())),
        )
        for episode in dataset
    ]


def recorded(parts: Path) -> int:
    path = parts / "whole" / JOURNAL_PATH
    return path.read_bytes().count(b"\n") if path.exists() else 0


def when(what: Callable[[], bool], then: Callable[[], None]) -> threading.Thread:
    def watch() -> None:
        until = time.monotonic() + PATIENCE_S
        while not what() and time.monotonic() < until:
            time.sleep(0.001)
        then()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def record_here(job: GenerateJob, root: Path, batches: Sequence[Sequence[int]], keep: Container[int]) -> None:
    """What a worker does and what its driver does with it, in this process."""
    work = _Opening(job, CONTRACT, None if job.policy is None else Carried.of(job.policy, far=False))()
    with _Collector(root, CONTRACT, IMAGE_SHAPE, {}) as writer:
        for seeds in batches:
            for seed, episode in zip(seeds, work(Batch(tuple(seeds))).episodes, strict=True):
                if seed in keep:
                    writer.take(episode)


def pairs(first: int, end: int) -> list[range]:
    return [range(seed, seed + 2) for seed in range(first, end, 2)]


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made by nobody but this process."""
    root = tmp_path_factory.mktemp("data") / "survey"
    record_here(SURVEY, root, pairs(40, 100), range(40, 100))
    return root


def test_one_that_is_whole_is_left_alone(survey: Path) -> None:
    generate(SURVEY, survey, CONTRACT, processes=0)


def test_a_killed_worker_changes_nothing(survey: Path, tmp_path: Path) -> None:
    root = tmp_path / "survey"
    killed = []

    def kill() -> None:
        worker = multiprocessing.active_children()[0]
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        killed.append(worker.pid)

    thread = when(lambda: recorded(tmp_path / "survey.parts") > 0, kill)
    generate(SURVEY, root, CONTRACT, processes=2)
    thread.join()
    assert len(killed) == 1
    assert [record.extras["scene_seed"] for record in Dataset.open(root).records] == list(range(40, 100))
    assert content(root) == content(survey)
    assert list(validate(root)) == []


def test_a_killed_driver_goes_on_with_what_is_missing(survey: Path, tmp_path: Path) -> None:
    root, parts = tmp_path / "survey", tmp_path / "survey.parts"
    program = (
        "import sys; from pathlib import Path\n"
        "from train.test_generate import CONTRACT, SURVEY, generate\n"
        "generate(SURVEY, Path(sys.argv[1]), CONTRACT, 1)"
    )
    driver = subprocess.Popen([sys.executable, "-c", program, str(root)], cwd=Path(__file__).parents[1])
    when(lambda: recorded(parts) > 3, driver.kill).join()
    assert driver.wait() == -signal.SIGKILL
    kept = {path.relative_to(parts / "whole"): path.stat().st_ino for path in parts.glob("whole/data/*/*.parquet")}
    assert 3 < len(kept) < 60
    generate(SURVEY, root, CONTRACT, processes=1)
    assert content(root) == content(survey)
    assert {path: (root / path).stat().st_ino for path in kept} == kept


def test_what_an_earlier_version_began_is_taken_in(survey: Path, tmp_path: Path) -> None:
    root, parts = tmp_path / "survey", tmp_path / "survey.parts"
    for name, first in (("00", 40), ("01", 41)):
        record_here(SURVEY, parts / name, pairs(40, 60), range(first, 60, 2))
    generate(SURVEY, root, CONTRACT, processes=1)
    seeds = [record.extras["scene_seed"] for record in Dataset.open(root).records]
    assert seeds == [*range(40, 60, 2), *range(41, 60, 2), *range(60, 100)]


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """A small network that has learnt nothing."""
    torch.manual_seed(1)
    sizes = CompactConfig(stem=4, middle=8, top=16, embedding=8, column=4, words=16, memory=16)
    save_network(tmp_path / "policy", CompactNetwork(sizes, CONTRACT), {"untrained": True})
    return tmp_path / "policy"


def test_a_batch_that_is_there_in_part_is_driven_again_for_the_same_lanes(policy: Path, tmp_path: Path) -> None:
    job = GenerateJob("drive", first_seed=70, episodes=10, lanes=2, max_frames=4, policy=policy)
    batches = [range(70, 74), range(74, 78), range(78, 80)]
    kept = [70, 71, 72, 73, 74, 76]  # a drive that was cut off leaves a beginning; holes are harder
    record_here(job, tmp_path / "one", batches, range(70, 80))
    record_here(job, tmp_path / "drive.parts" / "whole", batches, kept)
    generate(job, tmp_path / "drive", CONTRACT, processes=1)
    seeds = [record.extras["scene_seed"] for record in Dataset.open(tmp_path / "drive").records]
    assert seeds == [*kept, 75, 77, 78, 79]
    in_order = [0, 1, 2, 3, 4, 6, 5, 7, 8, 9]
    one, two = content(tmp_path / "one"), content(tmp_path / "drive")
    assert [pixels for _, _, pixels, _ in two] == [one[place][2] for place in in_order]
    assert [extras for _, extras, _, _ in two] == [one[place][1] for place in in_order]


def test_the_size_of_a_batch_hangs_on_the_job_alone() -> None:
    assert GenerateJob("survey", 0, 10_000).batch_size == 100
    assert GenerateJob("survey", 0, 10).batch_size == 1
    assert GenerateJob("drive", 0, 1800, lanes=12).batch_size == 72
    assert GenerateJob("drive", 0, 300, lanes=12).batch_size == 24
