"""Which engine is the fastest on this machine that still decides as the network does: found out by trying them all.

An engine that differs by more than its precision's tolerance is not timed. The others are timed in turns, from the
camera's frame to the command. In order of speed they then drive, and the first that drives no worse than float32 is
taken; one that is faster and drives worse is listed, not taken.
"""

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mobile_vla.checkpoint.atomic import PARTIAL
from mobile_vla.core import CheckpointError, ConfigError
from mobile_vla.engine.agreement import Agreement, Answers, agreement, answers, reference
from mobile_vla.engine.backends import backend
from mobile_vla.engine.bench.timing import interleave
from mobile_vla.engine.bench.way import Way, pictures
from mobile_vla.engine.folder import exchange, make_engine, note, open_engine, require_room, usable
from mobile_vla.engine.policy import EnginePolicy
from mobile_vla.policy.step import Inputs

CPU = ("torch", "compile", "onnxruntime", "openvino")
"""Engines that run on a CPU."""
EXACT = ("torch", "fp32")
"""What all others are compared with; it is a candidate too, and never drives worse than itself."""
CAMERA = (640, 480)

_TIMES, _WARM_UP = 200, 20


@dataclass(frozen=True)
class Verdict:
    """Of a drive beside float32. ``worse`` is a clause, empty where the engine drives as well."""

    text: str
    worse: str
    figures: Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """A candidate. ``p50_ms`` and ``p99_ms``: camera frame to command, None where it was not timed.

    ``why_not`` is a clause: why it was not taken, or, of one that a person chose, what speaks against it.
    """

    engine: str
    precision: str
    p50_ms: float | None = None
    p99_ms: float | None = None
    agreement: Agreement | None = None
    driven: Verdict | None = None
    why_not: str = ""

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.engine} {self.precision}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Wish:
    """What to make an engine for. ``sessions`` robots at once, on ``threads`` threads of the CPU.

    ``calibration`` finds the ranges of int8; ``compared`` are other decisions, over which engines are judged.
    """

    checkpoint: Path
    out: Path
    calibration: Sequence[Inputs]
    compared: Sequence[Inputs]
    sessions: int = 1
    threads: int = 1
    shorten: str = ""


@dataclass(frozen=True)
class Choice:
    """The engine that was taken, now in the folder ``out``, and all that were tried, the fastest first."""

    taken: Row
    rows: tuple[Row, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "engine": self.taken.engine,
            "precision": self.taken.precision,
            "candidates": [row.to_dict() for row in self.rows],
        }


Drive = Callable[[Path], Verdict]
"""Drives by the engine in a folder, beside float32."""
Say = Callable[[str], None]


def choose(
    wish: Wish,
    drive: Drive | None = None,
    wanted: Sequence[tuple[str, str]] | None = None,
    say: Say = lambda text: None,
) -> Choice:
    """Make, compare, time and drive engines; the one that is taken becomes ``wish.out``, with the table in its notes.

    ``wanted``: (engine, precision); where it is one alone, it is taken whatever is found. By default all of ``CPU``
    that this machine has. Without ``drive`` nothing is driven. ``say`` is told what is being done. ConfigError where
    ``wish.out`` holds something else than an engine, and for one wanted that is not to be had; CheckpointError for a
    checkpoint that cannot be used, and where none of several agrees.
    """
    require_possible(wish.out, wanted)
    candidates, rows = _candidates(wanted)
    wish.out.parent.mkdir(parents=True, exist_ok=True)
    exact = reference(wish.checkpoint, wish.compared)
    with _scratch(wish.out) as scratch:
        folders: dict[str, Path] = {}
        opened: dict[str, EnginePolicy] = {}
        for row in candidates:
            say(f"making {row.name}")
            folder = scratch / row.name.replace(" ", "-")
            row, policy = _tried(row, folder, wish, exact, chosen=wanted is not None and len(wanted) == 1)
            rows.append(row)
            if policy is not None:
                folders[row.name], opened[row.name] = folder, policy
        rows = _timed(rows, opened, wish, say)
        for policy in opened.values():
            policy.engine.close()
        opened.clear()
        rows = _driven(rows, folders, drive, say) if drive is not None else rows
        taken = _taken(rows, folders, wanted)
        rows = [_passed_over(row, taken) for row in rows]
        choice = Choice(taken, tuple(rows))
        note(folders[taken.name], export=_noted(choice, wish))
        exchange(folders[taken.name], wish.out)
    return choice


@contextlib.contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """A folder beside ``out``, on the same disk; what a killed run left of it goes first."""
    folder = out.with_name(f".{out.name}.tried{PARTIAL}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def require_possible(out: Path, wanted: Sequence[tuple[str, str]] | None = None) -> None:
    """The ConfigErrors of ``choose``, before anything is done."""
    for engine, precision in wanted or ():
        usable(engine, precision)
    require_room(out)


def _candidates(wanted: Sequence[tuple[str, str]] | None) -> tuple[list[Row], list[Row]]:
    """Those to be tried, and those that this machine has not."""
    if wanted is not None:
        return [Row(*each) for each in wanted], []
    tried: list[Row] = []
    absent: list[Row] = []
    for name in CPU:
        try:
            runs = backend(name)
        except ConfigError as error:
            absent.append(Row(name, "", why_not=str(error)))
            continue
        for precision in runs.precisions:
            reason = runs.unusable(precision)
            (absent if reason else tried).append(Row(name, precision, why_not=reason))
    return tried, absent


def _tried(row: Row, folder: Path, wish: Wish, exact: Answers, chosen: bool) -> tuple[Row, EnginePolicy | None]:
    """Made, opened and compared; no policy where it is out of the running."""
    try:
        calibration = wish.calibration if row.precision == "int8" else ()
        make_engine(
            wish.checkpoint, folder, row.engine, row.precision, wish.sessions, calibration, shorten=wish.shorten
        )
        policy = open_engine(folder, wish.threads)
    except (CheckpointError, ConfigError) as error:
        if chosen or (row.engine, row.precision) == EXACT:
            raise
        return replace(row, why_not=str(error)), None
    found = agreement(exact, answers(policy.engine, wish.compared), policy.contract)
    beyond = found.within(row.precision)
    row = replace(row, agreement=found, why_not=f"does not agree: {beyond}" if beyond else "")
    if beyond and not chosen:
        policy.engine.close()
        return row, None
    return row, policy


def _timed(rows: list[Row], opened: Mapping[str, EnginePolicy], wish: Wish, say: Say) -> list[Row]:
    """The fastest first; those that were not timed last."""
    say(f"timing {', '.join(opened)}: {_TIMES} decisions each, in turns")
    frames = pictures(*CAMERA).frames
    taken = interleave({name: Way(each, frames, wish.sessions) for name, each in opened.items()}, _TIMES, _WARM_UP)
    timed = [
        replace(row, p50_ms=taken[row.name].steady.p50_ms, p99_ms=taken[row.name].steady.p99_ms)
        if row.name in taken
        else row
        for row in rows
    ]
    return sorted(timed, key=lambda row: float("inf") if row.p50_ms is None else row.p50_ms)


def _driven(rows: list[Row], folders: Mapping[str, Path], drive: Drive, say: Say) -> list[Row]:
    """In order of speed, until one drives as well."""
    done: list[Row] = []
    for place, row in enumerate(rows):
        if row.name not in folders:
            done.append(row)
            continue
        say(f"driving with {row.name}")
        verdict = drive(folders[row.name])
        reasons = "; ".join(filter(None, (row.why_not, verdict.worse)))
        done.append(replace(row, driven=verdict, why_not=reasons))
        if not verdict.worse:
            return [*done, *rows[place + 1 :]]
    return done


def _taken(rows: Sequence[Row], folders: Mapping[str, Path], wanted: Sequence[tuple[str, str]] | None) -> Row:
    if wanted is not None and len(wanted) == 1:
        return next(row for row in rows if (row.engine, row.precision) == wanted[0])
    fit = next((row for row in rows if row.name in folders and not row.why_not), None)
    if fit is None:
        raise CheckpointError(
            "no engine decides as the network does: " + "; ".join(f"{row.name}: {row.why_not}" for row in rows)
        )
    return fit


def _passed_over(row: Row, taken: Row) -> Row:
    return row if row.why_not or row is taken else replace(row, why_not="slower")


def _noted(choice: Choice, wish: Wish) -> dict[str, Any]:
    """What the engine's manifest tells of how it was chosen."""
    return {
        **choice.to_dict(),
        "compared": len(wish.compared),
        "calibration": len(wish.calibration),
        "threads": wish.threads,
        "camera": f"{CAMERA[0]}x{CAMERA[1]}",
        "times": _TIMES,
    }
