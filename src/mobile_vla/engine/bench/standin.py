"""Refusals of stand-ins: what is timed has to be the policy that it says it is, all of it, fed as a robot feeds it.

A figure of a smaller network, of random input at another size or of empty weights looks like any other figure. So
each of these is looked at before anything is timed, and what does not fit ends the run in one sentence.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mobile_vla.checkpoint.manifest import read_manifest
from mobile_vla.core import NS_PER_S, CheckpointError, Frame, Instruction, Observation, Twist
from mobile_vla.engine.backends.base import Decided, Engine
from mobile_vla.engine.folder import EngineManifest, count_parameters
from mobile_vla.engine.policy import EnginePolicy
from mobile_vla.policy.preprocess import fit
from mobile_vla.policy.step import BELIEF, STATUSES, DecisionStep
from mobile_vla.policy.weights import template

GRAPH_LESS, GRAPH_MORE = 0.02, 0.1
"""An engine's graph may hold so much less or more than the weights that its decision reads: places and masks are worked
out when it is made, which counts in small networks. Normalisation, which is folded into convolutions, is in neither."""
CONSTANT_SHARE = 0.1
"""So many of the numbers in a network's matrices may lie in matrices of one number alone: parts that begin without
effect."""
LEAST_COSINE = 0.5
"""Between the chunks of an engine and those of its checkpoint. Coarser arithmetic stays far above, other weights do
not come near."""

_SMALLEST = {"fp32": 4, "bf16": 2, "fp16": 2}
"""Bytes of a weight in an engine's files; any other precision may take half a byte."""


def require_whole(folder: Path, network: nn.Module) -> None:
    """The checkpoint's tensors have the names and shapes that its own config.json describes, and were learnt.

    CheckpointError says which tensor is not so.
    """
    config = folder / read_manifest(folder).config
    wanted = {name: shape for name, _, shape in template(config)}
    own = {name: tuple(each.shape) for name, each in network.state_dict().items()}
    if differing := sorted(name for name in wanted.keys() | own.keys() if wanted.get(name) != own.get(name)):
        name = differing[0]
        raise CheckpointError(
            f"the checkpoint at {folder} is not what its config.json describes: {name} has shape "
            f"{_shape(own.get(name))} where {_shape(wanted.get(name))} is described"
        )
    require_learnt(network, f"the checkpoint at {folder}")


def require_learnt(network: nn.Module, what: str) -> None:
    """CheckpointError for weights that are not finite, and where many matrices hold one number alone."""
    matrices = [(name, each.detach()) for name, each in network.named_parameters() if each.ndim > 1]
    if strange := next((name for name, each in matrices if not bool(torch.isfinite(each).all())), None):
        raise CheckpointError(f"{what} is of no use: {strange} holds numbers that are not finite")
    flat = [(name, each.numel()) for name, each in matrices if each.numel() > 1 and bool(each.min() == each.max())]
    share = sum(count for _, count in flat) / max(1, sum(each.numel() for _, each in matrices))
    if share > CONSTANT_SHARE:
        largest = max(flat, key=lambda each: each[1])[0]
        raise CheckpointError(
            f"{what} was never trained: {share:.0%} of its matrices hold one number alone ({largest} is the largest); "
            "its speed says nothing of a policy's"
        )


def require_engine(folder: Path, manifest: EngineManifest, step: DecisionStep) -> None:
    """The engine's files hold as many weights as the decision of the checkpoint beside it, in its precision.

    ``step`` is that decision. CheckpointError for fewer or more.
    """
    parameters = count_parameters(step)
    if manifest.parameters != parameters:
        raise CheckpointError(
            f"the engine at {folder} is a stand-in: its engine.json speaks of {manifest.parameters:,} parameters, and "
            f"the decision of its checkpoint has {parameters:,}"
        )
    require_files(folder, sorted(manifest.files), manifest.precision, step)


def require_files(folder: Path, names: Sequence[str], precision: str, step: DecisionStep) -> None:
    """As ``require_engine``, of an engine's files by their names below ``folder``; an engine may have none."""
    if not names:
        return
    read = weights_read(step)
    size, least = sum((folder / name).stat().st_size for name in names), read * _SMALLEST.get(precision, 0.5)
    # an engine may keep its weights in less than it computes in, but never in less than half of that
    if size < least / 2:
        raise CheckpointError(
            f"the engine at {folder} is a stand-in: its files have {size:,} bytes, and the {read:,} weights that a "
            f"decision of its checkpoint reads take {int(least):,} in {precision}"
        )
    graphs = [name for name in names if name.endswith((".onnx", ".xml"))]
    for name in graphs:
        held = _held(folder / name)
        if not (1 - GRAPH_LESS) * read <= held <= (1 + GRAPH_MORE) * read:
            raise CheckpointError(
                f"the engine at {folder} is a stand-in: its graph {name} holds {held:,} weights, and a decision "
                f"of its checkpoint reads {read:,}"
            )


def _held(graph: Path) -> int:
    """Numbers in the weights of an ONNX graph, or of a model of OpenVINO."""
    if graph.suffix == ".onnx":
        from mobile_vla.engine.onnx_ import graph_parameters

        return graph_parameters(graph)
    from mobile_vla.engine.backends.openvino_ import model_parameters

    return model_parameters(graph)


def weights_read(step: DecisionStep) -> int:
    """Numbers in the parameters that one decision reads, each once, of the whole of a table that it looks things up in.

    Parts that were read beforehand, as of the words, are not among them, nor are normalisations that were folded.
    """
    watch, example = _Read(step), step.example()
    with torch.no_grad(), watch:
        step(*example)
    return watch.numbers


class _Read(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, module: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._unread = {each.untyped_storage()._cdata: each.numel() for each in module.parameters()}
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in _tensors((args, kwargs)):
            self.numbers += self._unread.pop(tensor.untyped_storage()._cdata, 0)
        return func(*args, **(kwargs or {}))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(tuple(value.values()))
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _tensors(each)


def require_answers(policy: EnginePolicy, frame: NDArray[np.uint8], words: str) -> None:
    """The engine is given the camera's ``frame`` as ``preprocess.fit`` makes it, and answers in its contract's shapes.

    CheckpointError says what it was given or answered instead.
    """
    with _watched(policy) as watch:
        policy.step(
            Observation(Frame(frame, 0, "bench", "front", 0), Twist(0.0, 0.0, 0.0)), policy.reset(Instruction(words))
        )
    assert watch.pixels is not None
    assert watch.decided is not None
    right = fit(frame, policy.size)
    if watch.pixels.shape != (1, *right.shape) or not np.array_equal(watch.pixels[0], right):
        raise CheckpointError(
            f"the engine is not fed as a robot feeds it: it gets {watch.pixels.shape} of a frame {frame.shape}, and "
            f"not what the one preprocessing makes of it, {right.shape}"
        )
    axes = (policy.contract.horizon, len(policy.contract.axes))
    wanted = {"chunk": (1, *axes), "status": (1, len(STATUSES)), "belief": (1, len(BELIEF))}
    for name, shape in wanted.items():
        given: NDArray[np.float32] = getattr(watch.decided, name)
        if given.shape != shape or not np.isfinite(given).all():
            raise CheckpointError(
                f"the engine does not answer as its contract says: its {name} is of shape {given.shape} "
                f"({'finite' if np.isfinite(given).all() else 'not finite'}) where {shape} is due"
            )


class _Watch(Engine):
    """The engine within; the last question and answer are kept."""

    def __init__(self, within: Engine) -> None:
        self._within, self.sessions = within, within.sessions
        self.pixels: NDArray[np.uint8] | None = None
        self.decided: Decided | None = None

    def bring(self, words: tuple[Tensor, ...]) -> Any:
        return self._within.bring(words)

    def start(self) -> Any:
        return self._within.start()

    def decide(
        self, pixels: NDArray[np.uint8], words: Sequence[Any], motion: NDArray[np.float32], histories: Sequence[Any]
    ) -> Decided:
        self.pixels, self.decided = pixels, self._within.decide(pixels, words, motion, histories)
        return self.decided


@contextmanager
def _watched(policy: EnginePolicy) -> Iterator[_Watch]:
    within = policy.engine
    policy.engine = watch = _Watch(within)
    try:
        yield watch
    finally:
        policy.engine = within


def require_same_policy(
    engine: EnginePolicy, eager: EnginePolicy, frames: Sequence[NDArray[np.uint8]], words: str, what: str
) -> None:
    """The engine's chunks point the way that those of the checkpoint's own network do, frame for frame.

    CheckpointError where their cosine is below ``LEAST_COSINE``.
    """
    chunks: list[list[NDArray[np.float32]]] = []
    given: list[NDArray[np.float32]]
    for policy in (engine, eager):
        state = policy.reset(Instruction(words))
        chunks.append(given := [])
        with _watched(policy) as watch:
            for place, frame in enumerate(frames):
                observed = Observation(
                    Frame(frame, place * NS_PER_S // 5, "bench", "front", place), Twist(0.3, 0.0, 0.1)
                )
                state = policy.step(observed, state).state
                assert watch.decided is not None
                given.append(watch.decided.chunk.ravel())
    one, other = (np.concatenate(each).astype(np.float64) for each in chunks)
    cosine = float(one @ other / max(1e-12, np.linalg.norm(one) * np.linalg.norm(other)))
    if not cosine >= LEAST_COSINE:
        raise CheckpointError(
            f"{what} is a stand-in: over {len(frames)} frames its actions do not follow those of its checkpoint "
            f"(cosine {cosine:.2f})"
        )


def _shape(shape: tuple[int, ...] | None) -> str:
    return "nothing" if shape is None else "x".join(map(str, shape)) or "one number"
