"""What a policy can do on this machine: engines and precisions in turn, the whole way and its stages, beside the limit.

Nothing is timed that was not looked at first (``standin``). All candidates are timed in one run, in turn, so that what
else the machine does hits all alike. Memory is looked at in a process for each.
"""

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from mobile_vla import __version__
from mobile_vla.checkpoint.manifest import CHECKPOINT, read_manifest
from mobile_vla.core import ZERO_TWIST, ConfigError, Frame, Instruction, Observation, Policy
from mobile_vla.core.provenance import git_commit, machine
from mobile_vla.engine.agreement import Agreement, agreement, answers, stepped
from mobile_vla.engine.bench import standin
from mobile_vla.engine.bench.counting import PRECISIONS, Count, count
from mobile_vla.engine.bench.drawn import drawn
from mobile_vla.engine.bench.report import Rates, Report, Row
from mobile_vla.engine.bench.roofline import Device, Floor, floor_s, measure
from mobile_vla.engine.bench.subject import EAGER, EAGER_ON_GPU, ITSELF, Choice, Subject, footprint, open_subject
from mobile_vla.engine.bench.timing import Taken, interleave, latency
from mobile_vla.engine.bench.way import ENGINE, WHOLE, WORDS, Pictures, Way, pictures
from mobile_vla.engine.folder import decision_of, is_engine, make_engine, read_engine, require_sound
from mobile_vla.engine.policy import EnginePolicy
from mobile_vla.policy.kinds import kind_of
from mobile_vla.policy.preprocess import fit
from mobile_vla.policy.step import DecisionStep, Inputs, step_of
from mobile_vla.policy.weights import load_network

LEAST_TIMES = 100
"""Below that a 99th percentile is the longest time and nothing else."""
WARM_UP = 30
LEAST_SIDE, MOST_SIDE = 48, 8192
"""Of a camera's picture, in pixels."""

_LIMIT_S = 2.0
_LARGE = 100_000_000
"""Parameters beyond which a network is counted without its weights."""
_SAME_FRAMES = 10
_PACKAGES = ("torch", "numpy", "onnxruntime", "openvino", "transformers", "tensorrt")

Tell = Callable[[str], None]


@dataclass(frozen=True)
class BenchConfig:
    """``camera``: (width, height) of its pictures; ``batch``: robots decided for at once; ``threads`` of the CPU.

    ConfigError for what measures nothing.
    """

    camera: tuple[int, int] = (640, 480)
    batch: int = 1
    threads: int = 1
    times: int = 500

    def __post_init__(self) -> None:
        if not all(LEAST_SIDE <= side <= MOST_SIDE for side in self.camera):
            raise ConfigError(
                f"no camera gives pictures of {self.camera[0]}x{self.camera[1]}: choose sides of {LEAST_SIDE} to "
                f"{MOST_SIDE} pixels, e.g. 640x480"
            )
        if self.times < LEAST_TIMES:
            raise ConfigError(f"{self.times} times make no p99: choose at least {LEAST_TIMES}")
        if self.batch < 1:
            raise ConfigError(f"a batch of {self.batch} decides nothing: choose at least 1")
        cores = os.cpu_count() or 1
        if not 1 <= self.threads <= cores:
            raise ConfigError(f"{self.threads} threads on {cores} logical cores: choose 1 to {cores}")


@dataclass(frozen=True)
class Target:
    """A checkpoint's or an engine's folder; or ``random``, the kind of a network of full size with random weights."""

    folder: Path | None = None
    random: str = ""


def subjects(
    target: Target,
    choice: Choice,
    config: BenchConfig,
    scratch: Path,
    calibration: Callable[[], Sequence[Inputs]],
    tell: Tell,
) -> list[Subject]:
    """What will be timed; engines of a checkpoint are made below ``scratch``. ``calibration`` is asked for int8 alone.

    Where several are compared, PyTorch in float32 is among them, on their device (of random weights, where it was asked
    for). ConfigError for an engine that was made for fewer robots than there are; errors of making engines.
    """

    def subject(engine: str, precision: str, **where: str) -> Subject:
        return Subject(engine, precision, sessions=config.batch, threads=config.threads, **where)

    if target.random:
        return [subject(*each, random=target.random) for each in choice.wanted or (EAGER,)]
    assert target.folder is not None
    checkpoint, ready, to_make = target.folder, [], list(choice.wanted)
    if is_engine(target.folder):
        manifest = require_sound(target.folder)
        if manifest.sessions < config.batch:
            raise ConfigError(
                f"the engine at {target.folder} decides for {manifest.sessions} robots at once, not for "
                f"{config.batch}: make one with mobile-vla export --batch {config.batch}"
            )
        ready = [subject(manifest.engine, manifest.precision, folder=str(target.folder))]
        checkpoint = target.folder / CHECKPOINT
    elif not to_make and config.batch == 1:
        return [subject(ITSELF, "fp32", folder=str(checkpoint))]
    device = subject(*to_make[0]).device if to_make else "cpu"
    exact = EAGER if device == "cpu" else EAGER_ON_GPU
    if not any((each.engine, each.precision) == exact for each in ready):
        to_make = [exact, *(each for each in to_make if each != exact)]
    made = []
    for engine, precision in to_make:
        if engine == EAGER_ON_GPU[0]:
            made.append(subject(engine, precision, folder=str(checkpoint)))
            continue
        tell(f"making {engine} {precision}")
        out = scratch / f"{engine}-{precision}"
        inputs = calibration() if precision == "int8" else ()
        make_engine(checkpoint, out, engine, precision, config.batch, inputs)
        made.append(subject(engine, precision, folder=str(out)))
    return made + ready


def bench(
    target: Target,
    wanted: Sequence[Subject],
    config: BenchConfig,
    left_out: Sequence[Any] = (),
    compared: Sequence[Inputs] = (),
    tell: Tell = lambda text: None,
) -> Report:
    """Look at all of them, then time them in turn.

    ``compared``: decisions over which actions are compared with PyTorch's in float32; none for random weights.
    CheckpointError for a stand-in; errors of opening.
    """
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    step, about = _looked_at(target, wanted)
    memory = {}
    for subject in wanted:
        tell(f"looking at the memory of {subject.name}")
        memory[subject] = footprint(subject, config.camera)
    shown = pictures(*config.camera)
    policies, began = _opened(wanted, shown, tell)
    _require_real(policies, shown)
    tell("measuring what this device can do")
    kinds = {subject.device for subject in wanted}
    counts = {each: _count(step, target, config.batch, each) for each in dict.fromkeys(s.precision for s in wanted)}
    limits = {kind: _limit(kind, config.threads, wanted) for kind in sorted(kinds)}
    agreements = _agreements(policies, step, compared, tell) if compared else {}
    ways = {subject.name: Way(policy, shown.frames, config.batch) for subject, policy in policies.items()}
    tell(f"timing {', '.join(ways)}")
    size = step.size
    turn = iter(range(WARM_UP + config.times))
    torch.set_num_threads(config.threads)
    calls: dict[str, Callable[[], object]] = {
        _FIT: lambda: fit(shown.frames[next(turn) % len(shown.frames)], size),
        **ways,
    }
    taken = interleave(calls, config.times, WARM_UP)
    limits = {kind: _better(limits[kind], _limit(kind, config.threads, wanted)) for kind in limits}
    rows = []
    for subject, policy in policies.items():
        way = ways[subject.name]
        row = _row(subject, policy, way, taken, counts[subject.precision], limits[subject.device])
        open_s, first_ms = began[subject]
        found = agreements.get(subject)
        rows.append(replace(row, open_s=open_s, first_ms=first_ms, memory=memory[subject], agreement=found))
    for policy in policies.values():
        if isinstance(policy, EnginePolicy):
            policy.engine.close()
    return Report(
        {**about, **_circumstances(config, shown, load, wanted)}, counts, limits, _compared(rows), tuple(left_out)
    )


_FIT = "fit"


def _opened(
    wanted: Sequence[Subject], shown: Pictures, tell: Tell
) -> tuple[dict[Subject, Policy], dict[Subject, tuple[float, float]]]:
    """All of them, and of each the seconds until it was ready, and the milliseconds of its very first decision."""
    policies, spent = {}, {}
    first = Observation(Frame(shown.frames[0], 0, "bench", "front", 0), ZERO_TWIST)
    for subject in wanted:
        tell(f"opening {subject.name}")
        began = time.perf_counter()
        policies[subject] = policy = open_subject(subject)
        state = policy.reset(Instruction(WORDS))
        ready = time.perf_counter()
        policy.step(first, state)
        spent[subject] = ready - began, 1e3 * (time.perf_counter() - ready)
    return policies, spent


def _looked_at(target: Target, wanted: Sequence[Subject]) -> tuple[DecisionStep, dict[str, Any]]:
    """What lies on the disk is what it says it is; the decision that was looked at, and what the policy is."""
    if target.random:
        network = drawn(target.random, device="meta")
        if sum(each.numel() for each in network.parameters()) < _LARGE:
            network = drawn(target.random)
        about: dict[str, Any] = {"policy": f"{target.random} of full size", "weights": None, "random": True}
    else:
        assert target.folder is not None
        checkpoint = target.folder / CHECKPOINT if is_engine(target.folder) else target.folder
        network = load_network(checkpoint)
        standin.require_whole(checkpoint, network)
        about = {"policy": str(target.folder), "weights": read_manifest(checkpoint).identity, "random": False}
    about |= {"kind": kind_of(network).name, "parameters": sum(each.numel() for each in network.parameters())}
    step = step_of(network)
    for subject in wanted:
        if subject.folder and is_engine(Path(subject.folder)):
            made = read_engine(Path(subject.folder))
            whole = step if not made.shorten else decision_of(Path(subject.folder) / CHECKPOINT, made.shorten)
            standin.require_engine(Path(subject.folder), made, whole)
    return step, about


def _require_real(policies: Mapping[Subject, Policy], shown: Pictures) -> None:
    """Engines are fed as a robot feeds them, and decide as their checkpoint does."""
    engines = {subject: policy for subject, policy in policies.items() if isinstance(policy, EnginePolicy)}
    for policy in engines.values():
        standin.require_answers(policy, shown.frames[0], WORDS)
    eager = next((each for subject, each in engines.items() if (subject.engine, subject.precision) == EAGER), None)
    for subject, policy in engines.items():
        if eager is not None and policy is not eager:
            standin.require_same_policy(policy, eager, shown.frames[:_SAME_FRAMES], WORDS, f"the engine {subject.name}")


def _agreements(
    policies: Mapping[Subject, Policy], step: DecisionStep, compared: Sequence[Inputs], tell: Tell
) -> dict[Subject, Agreement]:
    wanted, found = stepped(step, compared), {}
    for subject, policy in policies.items():
        if isinstance(policy, EnginePolicy) and (subject.engine, subject.precision) != EAGER:
            tell(f"comparing the actions of {subject.name}")
            found[subject] = agreement(wanted, answers(policy.engine, compared), step.contract)
    return found


def _count(step: DecisionStep, target: Target, sessions: int, precision: str) -> Count:
    """A large network is counted on the meta device."""
    if target.random or sum(each.numel() for each in step.parameters()) < _LARGE:
        return count(step, tuple(step.example(sessions)), precision)
    assert target.folder is not None
    network = step.network
    kind = kind_of(network)  # type: ignore[arg-type]
    with torch.device("meta"):
        bare = step_of(kind.build(kind.sizes(network), step.contract))
    return count(bare, tuple(bare.example(sessions)), precision)


def _limit(kind: str, threads: int, wanted: Sequence[Subject]) -> Device:
    asked = dict.fromkeys(PRECISIONS[each.precision].arithmetic for each in wanted if each.device == kind)
    return measure(kind, threads, tuple(asked), _LIMIT_S)


def _better(one: Device, other: Device) -> Device:
    """The higher of two measurements of the same device, before and after the run."""
    rates = {name: max(rate, other.matrix_flops_per_s.get(name, 0.0)) for name, rate in one.matrix_flops_per_s.items()}
    cached = max(one.cache_bytes_per_s or 0.0, other.cache_bytes_per_s or 0.0) or None
    copied = max(one.copy_bytes_per_s, other.copy_bytes_per_s)
    return replace(one, copy_bytes_per_s=copied, cache_bytes_per_s=cached, matrix_flops_per_s=rates)


def _row(subject: Subject, policy: Policy, way: Way, taken: Mapping[str, Taken], counted: Count, device: Device) -> Row:
    spent = {name: latency(ns) for name, ns in way.stages_ns(taken[subject.name].steady.times).items()}
    whole = spent.pop(WHOLE)
    floor = _floor(counted, device, subject.precision)
    inferences = 1e3 / whole.mean_ms
    frames = inferences * subject.sessions
    contract = policy.contract
    used = min(contract.rows_per_frame, contract.horizon)
    engine = spent.get(ENGINE)
    return Row(
        name=subject.name,
        device=subject.device,
        precision=subject.precision,
        open_s=0.0,
        first_ms=0.0,
        warm_up=taken[subject.name].warm_up,
        whole=whole,
        stages=spent,
        fit=taken[_FIT].steady,
        rates=Rates(inferences, frames, frames * used, frames * contract.horizon),
        floor=floor,
        whole_share=floor.share(whole.p50_ms * 1e-3) if floor else None,
        engine_share=floor.share(engine.p50_ms * 1e-3) if floor and engine else None,
        times_eager=None,
        memory=None,
        samples_ms=taken[subject.name].samples_ms,
    )


def _floor(counted: Count, device: Device, precision: str) -> Floor | None:
    if PRECISIONS[precision].arithmetic not in device.matrix_flops_per_s:
        return None
    return floor_s(counted, device, precision)


def _compared(rows: Sequence[Row]) -> tuple[Row, ...]:
    """With how many times faster each is than float32 in PyTorch on its device."""
    names = {"cpu": " ".join(EAGER), "cuda": " ".join(EAGER_ON_GPU)}
    exact = {row.device: row.whole.p50_ms for row in rows if row.name == names[row.device]}
    return tuple(
        replace(row, times_eager=exact[row.device] / row.whole.p50_ms) if row.device in exact else row for row in rows
    )


def _circumstances(config: BenchConfig, shown: Pictures, load: float, wanted: Sequence[Subject]) -> dict[str, Any]:
    on_gpu = any(subject.device == "cuda" for subject in wanted)
    return {
        "camera": "x".join(map(str, config.camera)),
        "pictures": shown.source,
        "batch": config.batch,
        "threads": config.threads,
        "times": config.times,
        "warm_up": WARM_UP,
        "machine": machine(),
        "gpu": f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}" if on_gpu else "",
        "versions": {"mobile_vla": __version__, "python": platform.python_version()} | _versions(),
        "commit": git_commit(),
        "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "load": load,
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
