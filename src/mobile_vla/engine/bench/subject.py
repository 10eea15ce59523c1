"""What is timed: a checkpoint as it is, or an engine made of one, in one precision, for so many robots at once."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from mobile_vla.core import CheckpointError, ConfigError, Policy
from mobile_vla.engine.backends import NAMES, backend
from mobile_vla.engine.backends.base import Backend, Making, Opening
from mobile_vla.engine.bench.drawn import DTYPES, drawn, require_full_size
from mobile_vla.engine.bench.standin import require_learnt
from mobile_vla.engine.folder import open_engine, usable
from mobile_vla.engine.policy import EnginePolicy
from mobile_vla.policy.kinds import kind_of
from mobile_vla.policy.memory import require_memory
from mobile_vla.policy.step import step_of
from mobile_vla.policy.weights import load_network, load_policy

ITSELF = "checkpoint"
"""In the place of an engine's name: the checkpoint as a drive loads it, in PyTorch."""
EAGER = ("torch", "fp32")
"""What all others are compared with."""
EAGER_ON_GPU = ("eager-cuda", "fp32")
"""The plain policy moved to the GPU, which engines there are compared with in speed. Not yet run on a device."""

_IN_PYTORCH = ("torch", "compile", "cudagraph", "cudagraph_compiled")
"""Engines that take a network in any precision; the others are made from float32."""
_FOOTPRINT_S = 900.0


@dataclass(frozen=True)
class Subject:
    """``folder``: a checkpoint, or an engine; empty for ``random``, a kind whose weights are drawn. Plain values."""

    engine: str
    precision: str
    folder: str = ""
    random: str = ""
    sessions: int = 1
    threads: int = 1

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.engine} {self.precision}"

    @property
    def device(self) -> str:
        """ "cpu" or "cuda"."""
        if self.engine == EAGER_ON_GPU[0]:
            return "cuda"
        return "cpu" if self.engine == ITSELF else backend(self.engine).device


@dataclass(frozen=True)
class LeftOut:
    """What was asked for by "all" and cannot run here, and why."""

    engine: str
    precision: str
    why: str


@dataclass(frozen=True)
class Choice:
    """``wanted``: (engine, precision) each once."""

    wanted: tuple[tuple[str, str], ...]
    left_out: tuple[LeftOut, ...] = ()


def choose(engines: Sequence[str], precisions: Sequence[str]) -> Choice:
    """Which engines in which precisions; "all" engines are those that run here, no precisions are all that they have.

    ConfigError for one that is unknown, not installed, or cannot run here, and for a precision that none of them has.
    """
    everything = "all" in engines
    wanted: list[tuple[str, str]] = []
    left_out: list[LeftOut] = []
    offered: set[str] = set()
    for name in (*NAMES, EAGER_ON_GPU[0]) if everything else dict.fromkeys(engines):
        try:
            runs: Backend | _EagerOnGpu = _EagerOnGpu() if name == EAGER_ON_GPU[0] else backend(name)
        except (ConfigError, ModuleNotFoundError) as error:
            if not everything:
                raise
            left_out.append(LeftOut(name, "", str(error)))
            continue
        offered.update(runs.precisions)
        for precision in [each for each in runs.precisions if not precisions or each in precisions]:
            if why := runs.unusable(precision):
                left_out.append(LeftOut(name, precision, why))
            else:
                wanted.append((name, precision))
    if strange := [each for each in precisions if each not in offered]:
        raise ConfigError(
            f"{' and '.join(dict.fromkeys(engines))} cannot compute in {strange[0]!r}: choose among "
            f"{', '.join(sorted(offered))}"
        )
    if not everything:
        for name in dict.fromkeys(engines):
            if not any(engine == name for engine, _ in wanted):
                gone = next((each for each in left_out if each.engine == name), None)
                why = f"cannot run here: {gone.why}" if gone else f"has no precision {precisions[0]!r}"
                raise ConfigError(f"the engine {name} {why}; leave it out")
    return Choice(tuple(wanted), tuple(left_out))


class _EagerOnGpu:
    """What a backend says of itself."""

    precisions = tuple(DTYPES)

    def unusable(self, precision: str) -> str:
        return "" if torch.cuda.is_available() else "PyTorch finds no CUDA device"


def open_subject(subject: Subject) -> Policy:
    """Ready to decide. Errors of whatever it is opened by."""
    if subject.device == "cpu":
        torch.set_num_threads(subject.threads)
    if subject.engine == EAGER_ON_GPU[0]:
        return _eager_on_gpu(subject)
    if subject.random:
        return _drawn(subject)
    if subject.engine == ITSELF:
        return load_policy(Path(subject.folder))
    return open_engine(Path(subject.folder), subject.threads)


def _eager_on_gpu(subject: Subject) -> Policy:
    from mobile_vla.policy.vla import VlaNetwork

    if subject.random:
        network = drawn(subject.random, subject.precision, "cuda")
        require_full_size(network)
        require_learnt(network, f"this {subject.random} of random weights")
    else:
        network = load_network(Path(subject.folder))
    kind = kind_of(network)
    if not issubclass(kind.network, VlaNetwork):
        raise ConfigError(f"{kind.name} decides on the CPU: leave {subject.engine} out")
    return kind.drive(network.to("cuda", DTYPES[subject.precision]))


def _drawn(subject: Subject) -> EnginePolicy:
    runs = usable(subject.engine, subject.precision)
    narrow = subject.precision if subject.precision in DTYPES else "bf16"
    require_memory(drawn(subject.random, narrow, "meta"))
    network = drawn(subject.random, narrow if subject.engine in _IN_PYTORCH else "fp32")
    require_full_size(network)
    require_learnt(network, f"this {subject.random} of random weights")
    step = step_of(network)
    with tempfile.TemporaryDirectory(prefix="mobile-vla-bench-") as folder:
        runs.write(Making(step, subject.precision, subject.sessions, Path(folder)))
        opening = Opening(step, subject.precision, subject.sessions, Path(folder), subject.threads)
        return EnginePolicy(runs.open(opening), step)


@dataclass(frozen=True)
class Footprint:
    """Peaks in bytes, of a process that does nothing but open the subject and decide a few times.

    ``before``: what Python and its libraries held already. ``opening``: while it was opened; ``deciding``: after that.
    Of the device None without one.
    """

    before: int
    opening: int
    deciding: int
    device_opening: int | None
    device_deciding: int | None

    def to_dict(self) -> dict[str, int | None]:
        """Plain values."""
        return asdict(self)


def footprint(subject: Subject, camera: tuple[int, int]) -> Footprint:
    """Of a process of its own. CheckpointError with its last words where it fails."""
    asked = json.dumps({"subject": asdict(subject), "camera": camera})
    command = [sys.executable, "-m", "mobile_vla.engine.bench.footprint", asked]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_FOOTPRINT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise CheckpointError(
            f"{subject.name} was not ready within {_FOOTPRINT_S:.0f} s in a process of its own"
        ) from error
    if answer.returncode != 0:
        words = (answer.stderr.strip().splitlines() or [f"exit code {answer.returncode}"])[-1]
        raise CheckpointError(f"{subject.name} fails in a process of its own: {words}")
    values: dict[str, Any] = json.loads(answer.stdout)
    return Footprint(**values)
