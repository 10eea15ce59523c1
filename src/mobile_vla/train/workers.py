"""Tasks given to several workers at once, processes of this machine or of a Ray cluster; results in the tasks' order.

A worker opens its workshop (a world, a policy) once and does one task after the other. A worker that is killed is
replaced, and what it had not answered is done again by others. Who may do what is decided here alone; a crew only hires
workers, passes tasks on and says what came back.
"""

import contextlib
import heapq
import multiprocessing
import multiprocessing.connection
import platform
import signal
import tempfile
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import mobile_vla
from mobile_vla.core import ConfigError, MobileVLAError

TRIES: Final = 3
"""So often may a task end its worker, and so many workers in a row may end before their workshop is open."""

WINDOW: Final = 4
"""Tasks for each worker that may be out or done before the first of them was given back: bounds the memory."""

START_LIMIT_S: Final = 600.0
"""So long may pass with no worker ready: one imports torch first, and a Ray cluster may have to find a place."""

LOOK_S: Final = 5.0
"""Seconds between two looks at the clock while nothing comes back."""

T = TypeVar("T")
R = TypeVar("R")

Open = Callable[[], Callable[[T], R]]
"""Opens a workshop: called once in each worker, gives what does one task. Must be picklable, as must tasks and results.

Workers of another machine import it by its name, so its module must be installed there.
"""


class WorkersError(MobileVLAError):
    """A task ends whoever works on it, or no worker can begin."""


def fan_out(
    open_workshop: Open[T, R], tasks: Sequence[T], processes: int, ray: str | None = None
) -> Generator[R, None, None]:
    """The result of each task, in the order of the tasks, as soon as it and all before it are there.

    ``processes`` workers on this machine, or, with the address of a Ray cluster in ``ray``, one for each of its CPUs. A
    task whose worker was killed is given to another; results are neither lost nor given twice. What a workshop raises
    is raised here. WorkersError naming the task (``str``) that ended ``TRIES`` workers; ConfigError where no cluster
    answers, or one whose workers have another version of this package; ModuleNotFoundError where Ray is not installed.
    """
    if not tasks:
        return
    if ray is None:
        crew: Crew = LocalCrew(open_workshop, processes)
    else:
        from mobile_vla.train.ray_workers import RayCrew

        crew = RayCrew(open_workshop, ray)
    hands: dict[Any, deque[int]] = {}
    try:
        yield from _Foreman(crew, tasks, hands).results()
    finally:
        crew.close(hands)


@dataclass(frozen=True)
class Answer:
    """What came of a task, or of opening the workshop: a value, or what was raised."""

    value: Any = None
    error: Exception | None = None
    trace: str = ""


@dataclass(frozen=True)
class Death:
    """A worker is gone with all it had been given; ``words`` follow its name in a sentence."""

    words: str


class Hand(Protocol):
    """A worker, as seen from here."""

    def give(self, task: Any) -> None:
        """One more task, to be done after those it has; never blocks for long, and does not mind a dead worker."""
        ...


class Crew(Protocol):
    """Where workers come from. ``size``: how many there may be; ``far``: they may be of another installation."""

    size: int
    far: bool

    def hire(self) -> Any:
        """A new worker; its first answer is ``setting`` of its place, when its workshop is open."""
        ...

    def answers(self, hands: Sequence[Any], timeout_s: float) -> list[tuple[Any, Answer | Death]]:
        """What came back since, waiting for it; each worker answers in the order of its tasks."""
        ...

    def close(self, hands: Mapping[Any, Sequence[int]]) -> None:
        """End all workers, at once those that still have tasks."""
        ...


class Bench:
    """The far end: one workshop, in a process of its own."""

    def __init__(self, open_workshop: Open[Any, Any]) -> None:
        self._open = open_workshop
        self._work: Callable[[Any], Any] | None = None

    def open(self) -> Answer:
        """Make ready; the answer is the ``setting``."""

        def make_ready(_: None) -> str:
            self._work = self._open()
            return setting()

        return _tried(make_ready, None)

    def do(self, task: Any) -> Answer:
        """One task."""
        assert self._work is not None  # the foreman gives no task before the workshop is open
        return _tried(self._work, task)


class _Foreman:
    """Gives tasks out and puts results in order. ``hands``: all workers, with the numbers of the tasks they have."""

    def __init__(self, crew: Crew, tasks: Sequence[Any], hands: dict[Any, deque[int]]) -> None:
        self._crew, self._tasks, self._hands = crew, tasks, hands
        self._ready: set[Any] = set()
        self._waiting = list(range(len(tasks)))
        self._finished: dict[int, Any] = {}
        self._given_back = 0
        self._strikes: Counter[int] = Counter()
        self._suspects: set[int] = set()
        self._stillborn = 0
        self._last_ready_s = time.monotonic()
        self._setting = setting() if crew.far else None

    def results(self) -> Iterator[Any]:
        """All of them."""
        while self._given_back < len(self._tasks):
            while len(self._hands) < min(self._crew.size, len(self._tasks) - self._given_back):
                self._hands[self._crew.hire()] = deque()
            self._hand_out()
            for hand, answer in self._crew.answers(list(self._hands), LOOK_S):
                if isinstance(answer, Death):
                    self._bury(hand, answer)
                else:
                    self._take(hand, answer)
            self._require_someone()
            while self._given_back in self._finished:
                result = self._finished.pop(self._given_back)
                self._given_back += 1
                yield result

    def _hand_out(self) -> None:
        """One task for every worker first, then a second one, so that none waits for us between two.

        A task that was lost with a worker goes alone: what the worker had answered before may have been lost on its
        way, and only where there is but one task is it sure which one ended it.
        """
        horizon = self._given_back + WINDOW * self._crew.size
        for most in (1, 2):
            for hand in self._ready:
                if not self._waiting or self._waiting[0] >= horizon:
                    return
                few_are_left = len(self._waiting) <= len(self._hands)
                alone = not self._suspects.isdisjoint((*self._hands[hand], self._waiting[0]))
                if not self._hands[hand] or (len(self._hands[hand]) < most and not few_are_left and not alone):
                    number = heapq.heappop(self._waiting)
                    self._hands[hand].append(number)
                    hand.give(self._tasks[number])

    def _take(self, hand: Any, answer: Answer) -> None:
        if answer.error is not None:
            raise answer.error from _FarError(answer.trace)
        if hand in self._ready:
            self._finished[self._hands[hand].popleft()] = answer.value
            return
        if self._setting not in (None, answer.value):
            raise ConfigError(
                f"a worker of the cluster has {answer.value} where this machine has {self._setting}: "
                "install the same on all nodes, or their work would not be the same"
            )
        self._ready.add(hand)
        self._stillborn = 0

    def _bury(self, hand: Any, death: Death) -> None:
        """A worker does its tasks in turn, so the first that it had not answered is the one that it was at."""
        held = self._hands.pop(hand)
        if hand not in self._ready:
            self._stillborn += 1
            if self._stillborn == TRIES:
                raise WorkersError(
                    f"{TRIES} workers in a row ended before they could begin, the last {death.words}: look for the "
                    "reason above, or for a lack of memory, then start again; what is finished is kept"
                )
        self._ready.discard(hand)
        self._suspects.update(held)
        for number in held:
            heapq.heappush(self._waiting, number)
        if held:
            self._strikes[held[0]] += 1
            if self._strikes[held[0]] == TRIES:
                raise WorkersError(
                    f"{self._tasks[held[0]]} ended {TRIES} workers, the last {death.words}: give it more memory, "
                    "e.g. by fewer processes, or leave it out; what is finished is kept"
                )

    def _require_someone(self) -> None:
        now = time.monotonic()
        if self._ready:
            self._last_ready_s = now
        elif now - self._last_ready_s > START_LIMIT_S:
            raise WorkersError(
                f"no worker was ready for {START_LIMIT_S:.0f} s: see whether the machine, or the cluster, is taken "
                "by other work, then start again; what is finished is kept"
            )


class LocalCrew:
    """Processes of this machine. ValueError for fewer than one."""

    far = False

    def __init__(self, open_workshop: Open[Any, Any], size: int) -> None:
        if size < 1:
            raise ValueError(f"{size} processes cannot work: ask for at least 1")
        self.size = size
        self._open = open_workshop
        self._context = multiprocessing.get_context("spawn")

    def hire(self) -> "_LocalHand":
        """Start a process."""
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self._open), daemon=True)
        process.start()
        theirs.close()  # else its end would never show here
        return _LocalHand(process, ours)

    def answers(self, hands: Sequence["_LocalHand"], timeout_s: float) -> list[tuple["_LocalHand", Answer | Death]]:
        """What came back since."""
        by_connection = {hand.connection: hand for hand in hands}
        found = multiprocessing.connection.wait(list(by_connection), timeout_s)
        return [(hand, hand.answer()) for connection, hand in by_connection.items() if connection in found]

    def close(self, hands: Mapping["_LocalHand", Sequence[int]]) -> None:
        """End all processes."""
        for hand, held in hands.items():
            hand.dismiss(at_once=bool(held))
        for hand in hands:
            hand.bury()


class _LocalHand:
    def __init__(self, process: Any, connection: "Connection[Any, Any]") -> None:
        self.process, self.connection = process, connection

    def give(self, task: Any) -> None:
        with contextlib.suppress(OSError):  # it is dead, which the next look at it finds
            self.connection.send(task)

    def answer(self) -> Answer | Death:
        try:
            answer: Answer = self.connection.recv()
        except (EOFError, OSError):
            self.dismiss(at_once=False)
            return Death(_how_it_ended(self.bury()))
        return answer

    def dismiss(self, at_once: bool) -> None:
        self.connection.close()
        if at_once:
            self.process.kill()

    def bury(self) -> int:
        """Wait for its end, and help where it does not come; the exit code."""
        self.process.join(LOOK_S)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        code: int = self.process.exitcode
        self.process.close()
        return code


def _serve(connection: "Connection[Any, Any]", open_workshop: Open[Any, Any]) -> None:
    """A worker's process: answer until nobody is there any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; ours are ended by who hired them
    bench = Bench(open_workshop)
    with connection, contextlib.suppress(EOFError, ConnectionError):
        connection.send(bench.open())
        while True:
            connection.send(bench.do(connection.recv()))


def _how_it_ended(code: int) -> str:
    if code == -signal.SIGKILL:
        return "killed by signal 9, as the system does when memory runs out"
    return f"killed by signal {-code}" if code < 0 else f"with exit code {code}"


def _tried(work: Callable[[Any], Any], task: Any) -> Answer:
    try:
        return Answer(work(task))
    except Exception as error:
        return Answer(error=error, trace=traceback.format_exc())


class _FarError(Exception):
    """Where in a worker an error was raised, as text: tracebacks do not travel."""

    def __str__(self) -> str:
        return "\n" + str(self.args[0])


def setting() -> str:
    """What decides the work of this place: the package's own files and the versions of what computes."""
    return f"mobile-vla {source_hash()[:12]}, Python {platform.python_version()}, " + ", ".join(
        f"{name} {_version(name)}" for name in ("numpy", "torch", "mujoco")
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def source_hash() -> str:
    """Over the names and contents of the package's own files, weights aside."""
    root, digest = Path(mobile_vla.__file__).parent, sha256()
    for path in sorted(path for suffix in ("py", "yaml") for path in root.rglob(f"*.{suffix}")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Carried:
    """A folder that workers read: by its place on this machine, or, where they are on others, with all its files."""

    path: Path
    files: Mapping[str, bytes] | None

    @classmethod
    def of(cls, path: Path, far: bool) -> "Carried":
        """``far``: for workers of other machines."""
        if not far:
            return cls(path.absolute(), None)
        inside = (each for each in sorted(path.rglob("*")) if each.is_file())
        return cls(path.absolute(), {each.relative_to(path).as_posix(): each.read_bytes() for each in inside})

    @contextlib.contextmanager
    def here(self) -> Iterator[Path]:
        """The folder, or a copy that is gone afterwards."""
        if self.files is None:
            yield self.path
            return
        with tempfile.TemporaryDirectory(prefix="mobile-vla-") as copy:
            for name, content in self.files.items():
                place = Path(copy, self.path.name, name)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content)
            yield Path(copy, self.path.name)
