"""How fast, and in how much memory, a large checkpoint is verified and salvaged, beside a plain read and hash of it."""

import argparse
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from machine import describe

_PIECE = 4 * 2**20
_TENSOR_MIB = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gib", type=float, default=2.0, help="size of the checkpoint in GiB (default 2)")
    parser.add_argument("--folder", type=Path, help="where to make it (default: the system's temporary folder)")
    parser.add_argument("--work", nargs=2, metavar=("WORK", "PATH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        _work(*options.work)
        return
    describe()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        whole, cut = Path(folder) / "whole.pth", Path(folder) / "cut.pth"
        # in a process of its own: what a process has used at most counts for the processes that it starts, too
        count = max(1, round(options.gib * 1024 / _TENSOR_MIB))
        subprocess.run([sys.executable, __file__, "--work", f"make{count}", str(whole)], check=True)
        size = whole.stat().st_size
        print(f"{size / 1e9:.2f} GB, torch's zip format, tensors of {_TENSOR_MIB} MiB")
        _row("read alone", whole, "read")
        _row("read and SHA-256, one thread", whole, "hash")
        _row("verify, two threads", whole, "verify")
        _row("the same, read from the disk: read alone", whole, "read", cold=True)
        _row("the same, read from the disk: verify", whole, "verify", cold=True)
        os.rename(whole, cut)
        os.truncate(cut, size - 1)  # as little as one byte takes the directory away, and torch's own reader gives up
        for _ in range(2):  # a disk that others share is not as fast each time
            _row("salvage, cut by a byte, its writing included", cut, "salvage")
            _row("read, write with fsync, read back, alone", cut, "copy")


def _make(path: Path, count: int) -> None:
    """Random tensors in files that torch maps, so that making the checkpoint needs no memory of its size."""
    import torch  # here, not above: the work is measured in processes that do not load it

    elements = _TENSOR_MIB * 2**20 // 4
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        state = {}
        for number in range(count):
            name = Path(folder) / str(number)
            name.write_bytes(os.urandom(4 * elements))
            mapped = torch.from_file(str(name), shared=False, size=elements, dtype=torch.float32)
            state[f"layers.{number}.weight"] = mapped.view(4096, -1)
        torch.save(state, path)


def _row(name: str, path: Path, work: str, cold: bool = False) -> None:
    if cold:
        _drop_cache(path)
    command = [sys.executable, __file__, "--work", work, str(path)]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    rate = path.stat().st_size / answer["seconds"] / 1e9
    print(f"{name:46} {rate:6.2f} GB/s  {answer['seconds']:7.1f} s  {answer['memory_mb']:5.0f} MB of memory at most")


def _work(work: str, path: str) -> None:
    """In a process of its own, whose peak of memory is this work's."""
    if work.startswith("make"):
        _make(Path(path), int(work.removeprefix("make")))
        return
    seconds = {"read": _read, "hash": _hash, "copy": _copy, "verify": _verify, "salvage": _salvage}[work](Path(path))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds, "memory_mb": memory * 1024 / 1e6}))


def _read(path: Path) -> float:
    began = time.perf_counter()
    for _ in _pieces(path):
        pass
    return time.perf_counter() - began


def _hash(path: Path) -> float:
    began, digest = time.perf_counter(), hashlib.sha256()
    for piece in _pieces(path):
        digest.update(piece)
    return time.perf_counter() - began


def _copy(path: Path) -> float:
    began = time.perf_counter()
    with path.with_name("copy").open("wb") as target:
        for piece in _pieces(path):
            target.write(piece)
        target.flush()
        os.fsync(target.fileno())
    _drop_cache(path.with_name("copy"))
    for _ in _pieces(path.with_name("copy")):
        pass
    seconds = time.perf_counter() - began
    path.with_name("copy").unlink()
    return seconds


def _verify(path: Path) -> float:
    from mobile_vla.checkpoint.verify import State, verify

    verdict = verify(path)
    if verdict.state is not State.WHOLE:
        raise SystemExit(f"a whole file was called {verdict.state}: {verdict.damage}")
    return verdict.seconds


def _salvage(path: Path) -> float:
    from mobile_vla.checkpoint.salvage import salvage

    began = time.perf_counter()
    rescue = salvage(path, path.with_name("salvaged"))
    seconds = time.perf_counter() - began
    if rescue.lost or not rescue.recovered:
        raise SystemExit(f"{len(rescue.lost)} tensors were lost that are there")
    shutil.rmtree(rescue.out)
    return seconds


def _pieces(path: Path) -> Iterator[memoryview]:
    buffer = bytearray(_PIECE)
    with path.open("rb", buffering=0) as file:
        while got := file.readinto(buffer):
            yield memoryview(buffer)[:got]


def _drop_cache(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    main()
