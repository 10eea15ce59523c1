"""Read every byte of a checkpoint and say of each tensor whether it is what was written."""

import hashlib
import os
import time
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mobile_vla.checkpoint.atomic import PIECE
from mobile_vla.checkpoint.formats.kinds import identify
from mobile_vla.checkpoint.layout import Format, Layout, Problem, Run, Scalar, Tensor
from mobile_vla.checkpoint.survey import survey
from mobile_vla.core.backports import StrEnum

SECTOR = 512
"""Bytes that disks and file systems lose together."""


class State(StrEnum):
    """What is known of bytes, best first.

    ``UNPROVEN``: the structure fits, but no checksum was stored. ``DOUBTFUL``: the same, with a reason to doubt: whole
    sectors of zeros between other bytes, as a lost block leaves them, or a checksum in a damaged header that differs.
    """

    WHOLE = "whole"
    UNPROVEN = "unproven"
    DOUBTFUL = "doubtful"
    DAMAGED = "damaged"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Finding:
    """The state of one tensor, and the proof of it in words."""

    tensor: Tensor
    state: State
    proof: str


@dataclass(frozen=True)
class Verdict:
    """``state`` is WHOLE only when a checksum proves every tensor and nothing at all is wrong with the structure.

    ``loose`` are the checks of bytes that are no tensor's: headers, pickles, and data whose name was lost.
    """

    path: Path
    format: Format
    state: State
    findings: tuple[Finding, ...]
    problems: tuple[Problem, ...]
    unknowable: tuple[str, ...]
    bytes_read: int
    seconds: float
    metadata: Mapping[str, Scalar] = field(default_factory=dict)
    loose: tuple["Check", ...] = ()

    @property
    def damage(self) -> str:
        """In one sentence, empty where there is none."""
        bad = [finding for finding in self.findings if finding.state in (State.DAMAGED, State.MISSING)]
        parts = [self.problems[0].what] if self.problems else []
        if bad:
            parts.append(
                f"{len(bad)} of {len(self.findings)} tensors are damaged or missing, {bad[0].tensor.name} first"
            )
        return "; ".join(parts)


def verify(path: Path, *, workers: int = 2, opaque: Collection[str] = ()) -> Verdict:
    """Judge a file or folder of any format, by ``workers`` threads; memory stays at a few MiB for each.

    CheckpointError when there is nothing to read; UnsafeCheckpointError for hostile files. Everything else that is
    wrong is in the verdict.
    """
    began = time.perf_counter()
    if path.is_file() and not path.name.endswith(".index.json"):
        kind = identify(path)
        if kind.format is None:
            problem = Problem(kind.sentence)
            seconds = time.perf_counter() - began
            return Verdict(path, Format.UNKNOWN, State.DAMAGED, (), (problem,), (), 0, seconds)
    return judge(survey(path, opaque), workers, began)


def judge(layout: Layout, workers: int = 2, began: float | None = None) -> Verdict:
    """As ``verify``, of a layout that was read before."""
    began = time.perf_counter() if began is None else began
    checks = {check.run: check for check in _check_all(_runs(layout), workers)}
    lost = _lost_sectors(layout, checks.values())
    findings = tuple(_finding(tensor, checks, lost) for tensor in layout.tensors)
    tensor_runs = {tensor.run for tensor in layout.tensors}
    problems = list(layout.problems)
    loose = tuple(check for run, check in checks.items() if run not in tensor_runs)
    for check in loose:
        if check.state is State.DAMAGED:
            problems.append(Problem(f"{check.run.label} is damaged: {check.proof}"))
    states = {finding.state for finding in findings} | {check.state for check in loose}
    if problems or states & {State.DAMAGED, State.MISSING} or not states:
        state = State.DAMAGED
    else:
        state = next(each for each in (State.DOUBTFUL, State.UNPROVEN, State.WHOLE) if each in states)
    if not states and not problems:
        problems.append(Problem("it holds no tensors"))
    read = sum(check.bytes_read for check in checks.values())
    return Verdict(
        path=layout.path,
        format=layout.format,
        state=state,
        findings=findings,
        problems=tuple(problems),
        unknowable=layout.unknowable,
        bytes_read=read,
        seconds=time.perf_counter() - began,
        metadata=layout.metadata,
        loose=loose,
    )


@dataclass(frozen=True, slots=True)
class Check:
    """What reading a run gave; ``zeros`` are its parts (first, last byte) in whole sectors of zeros."""

    run: Run
    state: State
    proof: str
    bytes_read: int
    zeros: tuple[tuple[int, int], ...] = ()


def check_run(run: Run) -> Check:
    """Read one run's bytes and compare them with its checksum."""
    crc, digest, read = 0, hashlib.sha256(), 0
    zeros: list[tuple[int, int]] = []
    buffer = bytearray(min(PIECE, max(run.size, 1)))
    with run.file.open("rb", buffering=0) as file:
        handle = file.fileno()
        while read < run.size:
            view = memoryview(buffer)[: min(len(buffer), run.size - read)]
            got = os.preadv(handle, [view], run.offset + read)
            if not got:
                break
            view = view[:got]
            if run.checksum is None:
                zeros += _zero_sectors(view, run.offset + read)
            elif run.checksum.algorithm == "crc32":
                crc = zlib.crc32(view, crc)
            else:
                digest.update(view)
            read += got
    if read < run.size:
        return Check(run, State.DAMAGED, f"the file ends {run.size - read} bytes too early", read)
    if run.checksum is None:
        return Check(run, State.UNPROVEN, "no checksum is stored for these bytes", read, tuple(zeros))
    name = {"crc32": "CRC-32", "sha256": "SHA-256"}[run.checksum.algorithm]
    value = f"{crc:08x}" if run.checksum.algorithm == "crc32" else digest.hexdigest()
    if value != run.checksum.value:
        return Check(run, State.DAMAGED, f"its {name} is {value}, and {run.checksum.value} was stored", read)
    return Check(run, State.WHOLE, f"{name} {value} over {run.size} bytes", read)


def _check_all(runs: Iterable[Run], workers: int) -> list[Check]:
    with ThreadPoolExecutor(max(1, workers)) as pool:
        # large ones first, so that no thread is left with the largest at the end
        return list(pool.map(check_run, sorted(runs, key=lambda run: -run.size)))


def _runs(layout: Layout) -> set[Run]:
    return {*layout.runs, *(tensor.run for tensor in layout.tensors if tensor.run is not None)}


def _finding(tensor: Tensor, checks: Mapping[Run, Check], lost: Mapping[Path, Sequence[tuple[int, int]]]) -> Finding:
    if tensor.run is None:
        return Finding(tensor, State.MISSING, tensor.note or "its bytes are not in the file")
    check = checks[tensor.run]
    proof = f"{check.proof}; {tensor.note}" if tensor.note else check.proof
    if check.state is State.UNPROVEN and tensor.doubtful:
        return Finding(tensor, State.DOUBTFUL, proof)
    if check.state is State.UNPROVEN:
        first, last = _span(tensor, tensor.run)
        for begin, end in lost.get(tensor.run.file, ()):
            if max(begin, first) + SECTOR <= min(end, last):
                return Finding(tensor, State.DOUBTFUL, f"{proof}; bytes {begin} to {end} of the file are all zero")
    return Finding(tensor, check.state, proof)


def _span(tensor: Tensor, run: Run) -> tuple[int, int]:
    if tensor.strides is None:
        return run.offset + tensor.start, run.offset + tensor.start + tensor.size
    return run.offset, run.offset + run.size


def _lost_sectors(layout: Layout, checks: Iterable[Check]) -> dict[Path, list[tuple[int, int]]]:
    """Stretches of zero sectors that begin or end inside a tensor, by file: no tensor's own zeros do that by habit."""
    stretches: dict[Path, list[tuple[int, int]]] = {}
    for check in sorted(checks, key=lambda check: check.run.offset):
        for begin, end in check.zeros:
            known = stretches.setdefault(check.run.file, [])
            if known and begin - known[-1][1] <= SECTOR:  # the sector that two tensors share is seen in neither
                known[-1] = (known[-1][0], max(end, known[-1][1]))
            else:
                known.append((begin, end))
    spans: dict[Path, list[tuple[int, int]]] = {}
    for tensor in layout.tensors:
        if tensor.run is not None and tensor.run.file in stretches:
            spans.setdefault(tensor.run.file, []).append(_span(tensor, tensor.run))
    return {
        file: [
            (begin, end)
            for begin, end in found
            if any(
                first + SECTOR <= edge <= last - SECTOR for edge in (begin, end) for first, last in spans.get(file, ())
            )
        ]
        for file, found in stretches.items()
    }


def _zero_sectors(view: memoryview, offset: int) -> list[tuple[int, int]]:
    """Stretches of whole sectors of zeros, as (first, last) offsets in the file."""
    skip = -offset % SECTOR
    count = (len(view) - skip) // SECTOR
    if count < 1:
        return []
    sectors = np.frombuffer(view, np.uint8, count * SECTOR, skip).reshape(count, SECTOR)
    empty = np.flatnonzero(~sectors.any(axis=1))
    if not len(empty):
        return []
    breaks = np.flatnonzero(np.diff(empty) > 1)
    starts, ends = empty[np.r_[0, breaks + 1]], empty[np.r_[breaks, len(empty) - 1]]
    base = offset + skip
    return [
        (base + int(first) * SECTOR, base + (int(last) + 1) * SECTOR) for first, last in zip(starts, ends, strict=True)
    ]
