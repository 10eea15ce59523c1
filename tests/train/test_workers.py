import multiprocessing
import pickle
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobile_vla.core import ConfigError
from mobile_vla.train import workers
from mobile_vla.train.workers import TRIES, WINDOW, Answer, Carried, Death, WorkersError, fan_out, setting

from .toil import Task, Toil

PATIENCE_S = 120.0


def wait_for(what: Callable[[], Any]) -> Any:
    until = time.monotonic() + PATIENCE_S
    while not (found := what()):
        assert time.monotonic() < until, "it did not come to that"
        time.sleep(0.02)
    return found


@pytest.fixture
def toil(tmp_path: Path) -> Toil:
    return Toil(tmp_path)


class Drawn:
    """A crew of made-up workers that answer and die in an order drawn by lot."""

    far, setting = False, "here"

    def __init__(self, size: int, tasks: Sequence[int], deaths: float, draw: random.Random) -> None:
        self.size, self._tasks, self._deaths, self._draw = size, tasks, deaths, draw
        self.killed: dict[int, int] = {}
        self.out: set[int] = set()
        self.closed = False
        self.furthest = 0

    def hire(self) -> "DrawnHand":
        return DrawnHand(self)

    def answers(self, hands: Sequence["DrawnHand"], timeout_s: float) -> list[tuple["DrawnHand", Answer | Death]]:
        busy = [hand for hand in hands if not hand.open or hand.tasks]
        assert busy, "everybody waits for everybody"
        idle = [hand for hand in hands if hand not in busy and self._draw.random() < self._deaths]
        at_work = self._draw.sample(busy, self._draw.randint(1, len(busy)))
        return [(hand, Death("at rest")) for hand in idle] + [self._answer(hand) for hand in at_work]

    def _answer(self, hand: "DrawnHand") -> tuple["DrawnHand", Answer | Death]:
        if not hand.open:
            hand.open = True
            return hand, Answer(self.setting)
        if self._draw.random() < self._deaths:
            self.killed[hand.tasks[0]] = self.killed.get(hand.tasks[0], 0) + 1
            self.out -= set(hand.tasks)
            return hand, Death("by lot")
        task = hand.tasks.pop(0)
        self.out.remove(task)
        return hand, Answer(task * 2)

    def close(self, hands: Mapping["DrawnHand", Sequence[int]]) -> None:
        self.closed = True


class DrawnHand:
    def __init__(self, crew: Drawn) -> None:
        self.crew, self.open = crew, False
        self.tasks: list[int] = []

    def give(self, task: int) -> None:
        assert self.open
        assert task not in self.crew.out, "two workers are at one task"
        self.tasks.append(task)
        self.crew.out.add(task)
        self.crew.furthest = max(self.crew.furthest, task)
        assert len(self.tasks) <= 2


@given(
    size=st.integers(1, 6), count=st.integers(0, 60), deaths=st.sampled_from([0.0, 0.1, 0.5]), seed=st.integers(0, 9999)
)
def test_whoever_dies_results_are_whole_in_order_and_few_are_held(
    size: int, count: int, deaths: float, seed: int
) -> None:
    crew = Drawn(size, range(count), deaths, random.Random(seed))
    results: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "LocalCrew", lambda *_: crew)
        error = None
        try:
            for result in fan_out(lambda: lambda task: task, range(count), size):
                results.append(result)
                assert crew.furthest < len(results) + WINDOW * size
        except WorkersError as raised:
            error = str(raised)
    guilty = [task for task, kills in crew.killed.items() if kills == TRIES]
    assert bool(guilty) == (error is not None)
    assert error is None or error.partition(":")[0] in {f"{task} ended 3 workers, the last by lot" for task in guilty}
    assert results == [number * 2 for number in range(len(results) if guilty else count)]
    assert crew.closed == (count > 0)


def test_processes_work_and_are_gone_afterwards(toil: Toil) -> None:
    assert list(fan_out(toil, [Task(number) for number in range(20)], 2)) == [number**2 for number in range(20)]
    assert len(toil.noted("begun")) == 20
    assert len(toil.noted("opened")) in (1, 2)  # one may do it all before the other is ready
    assert multiprocessing.active_children() == []


def test_a_killed_workers_task_is_done_again_and_none_twice(toil: Toil) -> None:
    tasks = [Task(number, kills=TRIES - 1 if number in (0, 7) else 0) for number in range(12)]
    assert list(fan_out(toil, tasks, 2)) == [number**2 for number in range(12)]
    begun = [len(toil.noted("begun", number)) for number in range(12)]
    assert begun == [TRIES if number in (0, 7) else 1 for number in range(12)]


def test_a_task_that_ends_every_worker_ends_the_run_by_its_name(toil: Toil) -> None:
    with pytest.raises(WorkersError, match="task 3 ended 3 workers, the last killed by signal 9"):
        list(fan_out(toil, [Task(number, kills=99 if number == 3 else 0) for number in range(6)], 2))
    assert len(toil.noted("begun", 3)) == TRIES
    assert multiprocessing.active_children() == []


def test_a_workshop_that_never_opens_ends_the_run(toil: Toil) -> None:
    with pytest.raises(WorkersError, match="before they could begin, the last with exit code 3"):
        list(fan_out(Toil(toil.notes, never_opens=True), [Task(0)], 1))


def test_what_a_task_raises_is_raised_here_with_where_it_was(toil: Toil) -> None:
    with pytest.raises(ConfigError, match="task 1 cannot be done") as raised:
        list(fan_out(toil, [Task(0), Task(1, refuses=True)], 1))
    assert "toil.py" in str(raised.value.__cause__)


def test_who_stops_early_leaves_nobody_behind(toil: Toil) -> None:
    results = fan_out(toil, [Task(number) for number in range(1000)], 2)
    assert next(results) == 0
    results.close()
    assert multiprocessing.active_children() == []
    assert len(toil.noted("begun")) <= WINDOW * 2


def test_when_the_driver_is_killed_its_workers_end(toil: Toil) -> None:
    driver = subprocess.Popen(
        [sys.executable, "-m", "train.toil", str(toil.notes)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    )
    with driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == b"0\n"
        opened = wait_for(lambda: len(found := toil.noted("opened")) == 2 and found)
        pids = [int(path.name.split("-")[1]) for path in opened]
        driver.kill()
    wait_for(lambda: not any(map(runs, pids)))


def runs(pid: int) -> bool:
    """A process that has ended and that nobody has asked for yet does not run."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_nobody_cannot_work(toil: Toil) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        next(fan_out(toil, [Task(0)], 0))


def test_where_nobody_gets_ready_the_wait_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    crew = Drawn(1, [0], 0.0, random.Random(0))
    monkeypatch.setattr(crew, "answers", lambda *_: [])
    monkeypatch.setattr(workers, "LocalCrew", lambda *_: crew)
    monkeypatch.setattr(workers, "START_LIMIT_S", 0.05)
    with pytest.raises(WorkersError, match="no worker was ready"):
        list(fan_out(lambda: lambda task: task, [0], 1))


def test_workers_of_another_version_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    crew = Drawn(1, [0], 0.0, random.Random(0))
    crew.far, crew.setting = True, setting()
    monkeypatch.setattr(workers, "LocalCrew", lambda *_: crew)
    assert list(fan_out(lambda: lambda task: task, [3], 1)) == [6]
    monkeypatch.setattr(crew, "_answer", lambda hand: (hand, Answer("mobile-vla of last year")))
    with pytest.raises(ConfigError, match="has mobile-vla of last year where this machine has mobile-vla"):
        list(fan_out(lambda: lambda task: task, [3], 1))


@settings(max_examples=25)
@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,5}(/[a-z]{1,5})?\.[a-z]{3}", fullmatch=True), st.binary(max_size=50), max_size=5
    )
)
def test_a_folder_that_is_carried_far_arrives_whole_and_goes_again(files: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "policy")
        folder.mkdir()
        for name, content in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
        near, far = Carried.of(folder, far=False), Carried.of(folder, far=True)
        with near.here() as here:
            assert here == folder
        shutil.rmtree(folder)
        with pickle.loads(pickle.dumps(far)).here() as copy:
            assert copy.name == "policy"
            assert {
                path.relative_to(copy).as_posix(): path.read_bytes() for path in copy.rglob("*") if path.is_file()
            } == files
        assert not copy.exists()
