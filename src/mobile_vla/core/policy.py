"""The one protocol behind which every policy stands: a pure step, its state passed in and out."""

from dataclasses import dataclass
from typing import Any, Protocol

from mobile_vla.core.backports import StrEnum
from mobile_vla.core.contract import ActionContract
from mobile_vla.core.motion import ActionChunk
from mobile_vla.core.observation import Instruction, Observation


class Status(StrEnum):
    """What the policy says it is doing."""

    DRIVING = "driving"
    SEARCHING = "searching"
    ARRIVED = "arrived"
    ABSENT = "absent"  # searched all round; the named target is not here

    @property
    def is_final(self) -> bool:
        """The policy considers the instruction finished."""
        return self in (Status.ARRIVED, Status.ABSENT)


@dataclass(frozen=True, slots=True)
class Grounding:
    """Where the policy believes the named target to be.

    ``visibility`` is a probability. ``bearing_rad`` and ``distance_m`` are in ``base_link`` (left positive; base centre
    to the nearest surface of the target). ``box`` is (left, top, right, bottom) as shares of the image. The last three
    mean something only while ``visibility`` is high.
    """

    visibility: float
    bearing_rad: float
    distance_m: float
    box: tuple[float, float, float, float]
    status: Status


@dataclass(frozen=True, slots=True)
class Step:
    """What one step of a policy gives: motion, the belief behind it, and the state for the next step."""

    chunk: ActionChunk
    grounding: Grounding
    state: Any


class Policy(Protocol):
    """``step`` has no side effects on later steps: one policy object may serve many robots, each with its own state."""

    @property
    def contract(self) -> ActionContract:
        """What the numbers in the chunks mean."""
        ...

    def reset(self, instruction: Instruction) -> Any:
        """A fresh state for an episode under ``instruction``."""
        ...

    def step(self, observation: Observation, state: Any) -> Step:
        """Decide on one observation."""
        ...
