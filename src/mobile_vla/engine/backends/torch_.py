"""PyTorch as it is: the engine that every other one is compared with."""

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from mobile_vla.engine.backends.base import ArrayEngine, Backend, Opening
from mobile_vla.engine.export import PRECISIONS


class TorchBackend(Backend):
    """Eager, on the CPU."""

    name: ClassVar = "torch"
    precisions: ClassVar = ("fp32", "bf16")

    def open(self, opening: Opening) -> "TorchEngine":
        """There are no files."""
        return TorchEngine(opening)


class TorchEngine(ArrayEngine):
    """Arrays are tensors over the same memory; histories and words of a narrower type are held as float32."""

    def __init__(self, opening: Opening) -> None:
        torch.set_num_threads(opening.threads)
        self._dtype = PRECISIONS[opening.precision]
        self._step = opening.step.to(self._dtype)
        super().__init__(self._step, opening.sessions)
        self._run: Any = self._step

    @torch.inference_mode()
    def run(
        self,
        pixels: NDArray[np.uint8],
        words: tuple[NDArray[Any], ...],
        motion: NDArray[np.float32],
        history: NDArray[Any],
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[Any]]:
        """See ``ArrayEngine``."""
        outputs = self._run(
            torch.from_numpy(pixels),
            tuple(self._tensor(part) for part in words),
            torch.from_numpy(motion),
            self._tensor(history),
        )
        chunk, status, belief, after = (part.float().numpy() for part in outputs)
        return chunk, status, belief, after

    def _tensor(self, values: NDArray[Any]) -> torch.Tensor:
        tensor = torch.from_numpy(values)
        return tensor.to(self._dtype) if tensor.is_floating_point() else tensor
