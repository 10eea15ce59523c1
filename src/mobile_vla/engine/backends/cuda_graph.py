"""Engines of a GPU: everything of one decision in one CUDA graph, over memory that never moves.

A decision is one copy up (bytes and motion together, from pinned memory), one launch of the graph, one copy down, and
one wait. Words go up when an instruction is given; histories stay on the device, and each one given out is a tensor of
its own. The graph holds the towers side by side on streams of their own, and so the recurrent head's view of the past.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mobile_vla.core import ConfigError
from mobile_vla.engine.backends.base import Backend, Decided, Engine, Opening
from mobile_vla.engine.fused.narrow import PRECISIONS, Form
from mobile_vla.engine.fused.step import FusedStep
from mobile_vla.policy.step import BELIEF, STATUSES, DecisionStep, Inputs
from mobile_vla.policy.vla_step import VlaStep

Repeatable = Callable[[Callable[[], None]], Callable[[], None]]
"""Makes of a call that reads and writes the same memory each time another that does the same, sooner."""

WARM_UPS = 3
_ALIGNED, _ENGINES = 16, 200


class StaticEngine(Engine):
    """Decisions of a step over input and output tensors that stay where they are, on whatever device it stands.

    The step is called with the same tensors each time, through what ``repeatable`` makes of the call.
    """

    def __init__(self, step: DecisionStep, sessions: int, repeatable: Repeatable) -> None:
        self.sessions = sessions
        example = step.example(sessions)
        device = example.pixels.device
        self._device, self._start = device, step.start()
        frames, rows = example.pixels.numel(), example.motion.numel()
        begin = -(-frames // _ALIGNED) * _ALIGNED
        host = torch.zeros(begin + 4 * rows, dtype=torch.uint8, pin_memory=device.type == "cuda")
        self._up, self._entered = host, torch.zeros_like(host, device=device)
        self._frames, self._motion = _parts(host, frames, begin, example)
        pixels, motion = _parts(self._entered, frames, begin, example)
        self._inputs = Inputs(pixels, tuple(part.clone() for part in example.words), motion, example.history.clone())
        self._present: list[Any] = [None] * sessions
        width = 3 * step.contract.horizon
        self._split = (width, width + len(STATUSES))
        self._said = torch.zeros(sessions, width + len(STATUSES) + len(BELIEF), device=device)
        self._down = torch.zeros_like(self._said, device="cpu", pin_memory=device.type == "cuda")
        self._after = self._inputs.history.clone()
        self._step = step
        self._repeat = repeatable(self._run)

    @torch.no_grad()
    def _run(self) -> None:
        chunk, status, belief, after = self._step(*self._inputs)
        torch.cat([chunk.flatten(1), status, belief], dim=1, out=self._said)
        self._after.copy_(after)

    def bring(self, words: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """On the device, in its numbers."""
        return tuple(part.to(own.device, own.dtype) for part, own in zip(words, self._inputs.words, strict=True))

    def start(self) -> Tensor:
        """On the device."""
        return self._start

    @torch.no_grad()
    def decide(
        self, pixels: NDArray[np.uint8], words: Sequence[Any], motion: NDArray[np.float32], histories: Sequence[Any]
    ) -> Decided:
        """See ``Engine``. Room that no session needs holds what was there before."""
        count = len(pixels)
        np.copyto(self._frames.numpy()[:count], pixels)
        np.copyto(self._motion.numpy()[:count], motion)
        self._entered.copy_(self._up, non_blocking=True)
        for place, (asked, history) in enumerate(zip(words, histories, strict=True)):
            self._inputs.history[place].copy_(history[0])
            if self._present[place] is not asked:
                for kept, part in zip(self._inputs.words, asked, strict=True):
                    kept[place].copy_(part[0])
                self._present[place] = asked
        self._repeat()
        after = self._after[:count].clone()
        self._down.copy_(self._said, non_blocking=True)
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()
        said = self._down.numpy()[:count].copy()
        chunk, status, belief = np.split(said, self._split, axis=1)
        return Decided(chunk.reshape(count, -1, 3), status, belief, torch.split(after, 1))

    def close(self) -> None:
        """Without its weights and its graph it decides nothing more."""
        self._repeat = _closed
        self._step = None  # type: ignore[assignment]


def _closed() -> None:
    raise RuntimeError("this engine was closed: open it again")


def _parts(packed: Tensor, frames: int, begin: int, like: Inputs) -> tuple[Tensor, Tensor]:
    """Bytes of the frames, then float32 of the motion, within one tensor."""
    return packed[:frames].view(like.pixels.shape), packed[begin:].view(torch.float32).view(like.motion.shape)


def captured(run: Callable[[], None]) -> Callable[[], None]:
    """As one CUDA graph, after some warm-up runs on a stream of their own, in which kernels are compiled and chosen."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    replay: Callable[[], None] = graph.replay
    return replay


class Lanes:
    """Runs calls side by side: the first on the current stream, the others each on a stream of its own.

    All have begun after what came before on the current stream, and what comes after waits for all of them. So memory
    that one of them gives back is not written to before its last reader is done.
    """

    def __init__(self) -> None:
        self._streams: list[Any] = []

    def __call__(self, calls: Sequence[Callable[[], Any]]) -> list[Any]:
        """Their results, in order."""
        main = torch.cuda.current_stream()
        while len(self._streams) < len(calls) - 1:
            self._streams.append(torch.cuda.Stream())  # type: ignore[no-untyped-call]
        others = []
        for stream, call in zip(self._streams, calls[1:], strict=False):
            stream.wait_stream(main)
            with torch.cuda.stream(stream):
                others.append(call())
        first = calls[0]()
        for stream in self._streams[: len(others)]:
            main.wait_stream(stream)
        return [first, *others]


class CudaGraphBackend(Backend):
    """The decision, fused where it is a full-size policy's, as one CUDA graph of PyTorch's own kernels."""

    name: ClassVar = "cudagraph"
    device: ClassVar = "cuda"
    precisions: ClassVar = PRECISIONS
    needs: ClassVar[tuple[str, ...]] = ("torch", "tokenizers", "transformers")
    extra: ClassVar = "vla"
    compiles: ClassVar = False

    def unusable(self, precision: str) -> str:
        """See ``Backend``."""
        if not torch.cuda.is_available():
            return "PyTorch finds no CUDA device (nvidia-smi should list one, and the PyTorch wheel be one for CUDA)"
        least, has = _CAPABILITY.get(precision, (7, 0)), torch.cuda.get_device_capability()
        if has < least:
            return f"{precision} needs compute capability {least[0]}.{least[1]}, this GPU has {has[0]}.{has[1]}"
        return ""

    def open(self, opening: Opening) -> Engine:
        """There are no files: a graph is of one process. ConfigError where a precision is for full-size policies."""
        step = prepared(opening, torch.device("cuda"))
        if isinstance(step, FusedStep):
            step.abreast = Lanes()
        if not self.compiles:
            return StaticEngine(step, opening.sessions, captured)
        compile_parts(step)
        # it counts by the code that is compiled, whichever engine it is of: from the ninth on it would refuse
        with torch._dynamo.config.patch(recompile_limit=_ENGINES):
            return StaticEngine(step, opening.sessions, captured)


class CompiledGraphBackend(CudaGraphBackend):
    """The same, with each part compiled by Inductor: few kernels, each of them chosen by timing it here."""

    name: ClassVar = "cudagraph_compiled"
    needs: ClassVar[tuple[str, ...]] = (*CudaGraphBackend.needs, "triton")
    libraries: ClassVar = ("torch", "triton")
    compiles: ClassVar = True


_CAPABILITY = {"bf16": (8, 0), "fp8": (8, 9), "int8": (8, 0), "int8_weights": (8, 0)}
"""The least that has such tensor cores, and for fp8 scales a row."""


def prepared(opening: Opening, device: torch.device) -> DecisionStep:
    """The step on this device in the opening's precision; a full-size policy's is fused, and given up layer by layer.

    ConfigError for a precision that narrows layers, and a policy that has no large ones.
    """
    form = Form(opening.precision, device, gives_up=True)
    if isinstance(opening.step, VlaStep):
        return FusedStep(opening.step, form).eval()
    if form.narrows:
        raise ConfigError(
            f"{opening.precision} on a GPU is for the full-size policies: choose fp32, bf16 or fp16 for this one"
        )
    return opening.step.to(device, form.dtype).eval()


def compile_parts(step: DecisionStep, **options: Any) -> None:
    """Each part of it whole, by ``torch.compile`` with these options; in place, when it is first called."""
    chosen: dict[str, Any] = options or {"mode": "max-autotune-no-cudagraphs"}
    for part in step.parts() if isinstance(step, FusedStep) else [step]:
        part.compile(fullgraph=True, dynamic=False, **chosen)
