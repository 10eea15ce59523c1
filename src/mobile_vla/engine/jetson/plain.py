"""A decision with plain numbers outside, whatever it computes in: what a graph for TensorRT takes and gives."""

import copy

from torch import Tensor

from mobile_vla.engine.export import PRECISIONS as TYPES
from mobile_vla.policy.step import DecisionStep, Inputs

PRECISIONS = ("fp16", "int8", "fp32")
"""No bf16: ONNX has convolutions of it from operator set 22 on, and JetPack 6's TensorRT 10.3 reads 9 to 20."""


class PlainStep(DecisionStep):
    """A decision whose inputs and outputs are float32 but for the pixels, whatever it computes in.

    The pixels become float first of all: TensorRT moves no bytes about, it refuses to transpose uint8.
    """

    def __init__(self, step: DecisionStep) -> None:
        super().__init__()
        self.contract, self.size, self.step = step.contract, step.size, step
        example = step.example(1)
        self._words = tuple(part.dtype for part in example.words)
        self._history = example.history.dtype

    def read(self, text: str) -> tuple[Tensor, ...]:
        """See ``DecisionStep``."""
        return tuple(_plain(part) for part in self.step.read(text))

    def start(self) -> Tensor:
        """See ``DecisionStep``."""
        return _plain(self.step.start())

    def forward(
        self, pixels: Tensor, words: tuple[Tensor, ...], motion: Tensor, history: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See ``DecisionStep``."""
        asked = tuple(part.to(dtype) for part, dtype in zip(words, self._words, strict=True))
        chunk, status, belief, after = self.step(pixels.float(), asked, motion, history.to(self._history))
        return chunk, status, belief, after.float()


def plain_step(step: DecisionStep, precision: str) -> PlainStep:
    """The decision computed in fp32, fp16 or bf16; the step stays as it is, and is copied where it has another type."""
    wanted = TYPES[precision]
    if any(each.dtype != wanted for each in step.parameters()):
        step = copy.deepcopy(step).to(wanted)
    return PlainStep(step).eval()


def plain_inputs(inputs: Inputs) -> Inputs:
    """The same inputs as a ``PlainStep`` takes them."""
    words = tuple(_plain(part) for part in inputs.words)
    return Inputs(inputs.pixels, words, inputs.motion, _plain(inputs.history))


def _plain(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
