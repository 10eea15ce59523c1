"""What the robot perceives and what it is told."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mobile_vla.core.errors import InstructionError
from mobile_vla.core.motion import Twist

MAX_INSTRUCTION_CHARS = 200


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One camera image. ``pixels``: RGB uint8 (H, W, 3). ``capture_ns`` is read on ``clock`` when the light fell in."""

    pixels: NDArray[np.uint8]
    capture_ns: int
    clock: str
    camera: str
    sequence: int

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 3 or self.pixels.shape[2] != 3:
            raise ValueError(f"a Frame needs RGB uint8 (H, W, 3), got {self.pixels.dtype} {self.pixels.shape}")


@dataclass(frozen=True, slots=True)
class Observation:
    """A frame and the velocity of the base measured when it was captured."""

    frame: Frame
    velocity: Twist


@dataclass(frozen=True, slots=True)
class Instruction:
    """What a person asked for, in their own words (English or Korean)."""

    text: str

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise InstructionError('the instruction is empty: say where to go, e.g. "stop at the red cup"')
        if len(self.text) > MAX_INSTRUCTION_CHARS:
            raise InstructionError(
                f"the instruction has {len(self.text)} characters, more than {MAX_INSTRUCTION_CHARS}: shorten it"
            )
