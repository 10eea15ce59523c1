"""A recording through the policy again: does it decide as it did on the robot, or how does another one decide?"""

import bisect
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mobile_vla.core import (
    AXES,
    ZERO_TWIST,
    ActionChunk,
    ContractMismatchError,
    DatasetError,
    Frame,
    Grounding,
    Instruction,
    Observation,
    Policy,
    Twist,
)
from mobile_vla.ros.bag import Recorded
from mobile_vla.ros.messages import (
    belief_from_message,
    chunk_from_message,
    frame_from_image,
    measured_from_belief,
    stamp_ns,
    twist_from_message,
)
from mobile_vla.ros.topics import ACTIVE_INSTRUCTION, BELIEF, CHUNK, IMAGE, IMAGE_COMPRESSED, ODOM, Topic

CLOCK = "recording"


@dataclass(frozen=True, slots=True)
class Again:
    """One recorded decision beside the one made now."""

    instruction: str
    stamp_ns: int
    recorded: ActionChunk
    replayed: ActionChunk
    recorded_belief: Grounding
    replayed_belief: Grounding


@dataclass(frozen=True, slots=True)
class Comparison:
    """All of them. ``frames_missing``: decisions whose frame the recording lacks; what follows one may differ."""

    decisions: tuple[Again, ...]
    frames_missing: int
    lossless: bool

    @property
    def same_to_the_bit(self) -> int:
        """Decisions whose chunk is the same to the bit."""
        return sum(np.array_equal(each.recorded.velocities, each.replayed.velocities) for each in self.decisions)

    @property
    def same_status(self) -> int:
        """Decisions whose status is the same."""
        return sum(each.recorded_belief.status is each.replayed_belief.status for each in self.decisions)

    def mean_difference(self) -> dict[str, float]:
        """By axis, m/s and rad/s: mean of |replayed - recorded| over all rows."""
        return self._mean([np.abs(each.replayed.velocities - each.recorded.velocities) for each in self.decisions])

    def mean_of_zero(self) -> dict[str, float]:
        """The same for a policy that never moves: what a figure has to be compared with."""
        return self._mean([np.abs(each.recorded.velocities) for each in self.decisions])

    def largest_difference(self) -> float:
        """Over all rows and axes, in m/s or rad/s."""
        return max(
            (float(np.abs(e.replayed.velocities - e.recorded.velocities).max()) for e in self.decisions), default=0.0
        )

    def _mean(self, values: list[NDArray[np.float32]]) -> dict[str, float]:
        if not values:
            return dict.fromkeys(AXES, math.nan)
        return dict(zip(AXES, np.concatenate(values).mean(axis=0).tolist(), strict=True))


@dataclass(slots=True)
class _Tape:
    """What the recording holds besides pictures. Instructions and beliefs with the time at which they came."""

    velocities: list[tuple[int, Twist]] = field(default_factory=list)
    instructions: list[tuple[int, str]] = field(default_factory=list)
    chunks: dict[int, ActionChunk] = field(default_factory=dict)
    beliefs: dict[int, tuple[Grounding, str, int]] = field(default_factory=dict)
    told: dict[int, Twist] = field(default_factory=dict)
    lossless: bool = False

    def velocity(self, stamp: int) -> Twist:
        """What the policy was told, by its own account; else by odometry, of which it may have had less or more."""
        return self.told[stamp] if stamp in self.told else _velocity_at(self.velocities, stamp)

    def times_told(self, text: str, by_ns: int) -> int:
        """How often ``text`` was the active instruction so far: each time the policy began with a fresh state."""
        return sum(told_ns <= by_ns and told == text for told_ns, told in self.instructions)


def replay(recording: Iterable[Recorded], policy: Policy) -> Comparison:
    """Decide again on each frame that was decided on, with the velocity and under the instruction of then.

    The recording is gone through twice. DatasetError when it holds no decisions or no frames of them;
    ContractMismatchError when its chunks have another horizon or rate than the policy's.
    """
    tape = _read(recording)
    decided = set(tape.chunks) & set(tape.beliefs)
    if not decided:
        raise DatasetError("the recording holds no decisions of a policy: record while it drives")
    made: list[Again] = []
    state, following = None, None
    for frame in _frames(recording, IMAGE if tape.lossless else IMAGE_COMPRESSED, decided):
        stamp = frame.capture_ns
        decided.discard(stamp)
        recorded, (belief, text, came_ns) = tape.chunks[stamp], tape.beliefs[stamp]
        _require_same_form(recorded, policy)
        era = (text, tape.times_told(text, came_ns))
        if era != following:
            state, following = policy.reset(Instruction(text)), era
        step = policy.step(Observation(frame, tape.velocity(stamp)), state)
        state = step.state
        made.append(Again(text, stamp, recorded, step.chunk, belief, step.grounding))
    if not made:
        raise DatasetError("the recording lacks the frames that were decided on: record with --raw, or with JPEGs")
    return Comparison(tuple(made), len(decided), tape.lossless)


def _read(recording: Iterable[Recorded]) -> _Tape:
    tape = _Tape()
    for item in recording:
        message, name = item.message, item.topic
        if name.endswith("/" + IMAGE.name):
            tape.lossless = True
        elif name.endswith("/" + ODOM.name):
            tape.velocities.append((stamp_ns(message), twist_from_message(message)))
        elif name.endswith("/" + ACTIVE_INSTRUCTION.name):
            tape.instructions.append((item.stamp_ns, message.data))
        elif name.endswith("/" + CHUNK.name):
            chunk = chunk_from_message(message)
            tape.chunks[chunk.stamp_ns] = chunk
        elif name.endswith("/" + BELIEF.name):
            grounding, text, _ = belief_from_message(message)
            tape.beliefs[stamp_ns(message)] = (grounding, text, item.stamp_ns)
            if (measured := measured_from_belief(message)) is not None:
                tape.told[stamp_ns(message)] = measured
    tape.velocities.sort(key=lambda entry: entry[0])
    return tape


def _frames(recording: Iterable[Recorded], topic: Topic, wanted: set[int]) -> Iterator[Frame]:
    """Those with a wanted stamp, in the order of the recording, each once."""
    for item in recording:
        if item.topic.endswith("/" + topic.name) and (stamp := stamp_ns(item.message)) in wanted:
            yield frame_from_image(item.message, capture_ns=stamp, clock=CLOCK, camera="recorded", sequence=0)


def _velocity_at(velocities: list[tuple[int, Twist]], stamp: int) -> Twist:
    """The last one measured up to ``stamp``, as ``runtime.decide.VelocityLog`` has it."""
    place = bisect.bisect_right(velocities, stamp, key=lambda entry: entry[0]) - 1
    return velocities[max(place, 0)][1] if velocities else ZERO_TWIST


def _require_same_form(recorded: ActionChunk, policy: Policy) -> None:
    contract = policy.contract
    if (recorded.horizon, recorded.rate_hz) != (contract.horizon, contract.rate_hz):
        raise ContractMismatchError(
            f"the recording has chunks of {recorded.horizon} rows at {recorded.rate_hz:g} Hz, the policy gives "
            f"{contract.horizon} at {contract.rate_hz:g} Hz: replay it through a policy of the same form"
        )
