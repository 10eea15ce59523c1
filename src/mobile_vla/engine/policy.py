"""An engine behind the ``Policy`` protocol: what stands around the network is done here, without torch."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mobile_vla.core import ActionChunk, ActionContract, Instruction, Observation, Step
from mobile_vla.engine.backends.base import Engine
from mobile_vla.policy.compact import integrate
from mobile_vla.policy.preprocess import fit
from mobile_vla.policy.step import STATUSES, DecisionStep, grounding_from, motion_row


class EngineState(NamedTuple):
    """What passes from step to step, of one session; words and history are the engine's own."""

    words: Any
    history: Any
    odometry: tuple[float, float, float]
    stamp_ns: int | None


class EnginePolicy:
    """It keeps nothing between steps: any number of robots may share it, one thread at a time.

    ``reader``: the step that the engine was made from; it reads the words.
    """

    def __init__(self, engine: Engine, reader: DecisionStep) -> None:
        self.engine, self.reader = engine, reader

    @property
    def contract(self) -> ActionContract:
        """What the numbers in the chunks mean."""
        return self.reader.contract

    @property
    def size(self) -> tuple[int, int]:
        """(rows, columns) of the picture that the network sees."""
        return self.reader.size

    def reset(self, instruction: Instruction) -> EngineState:
        """Reads the words; nothing remembered, odometry at the origin. InstructionError when the text does not fit."""
        words = self.engine.bring(self.reader.read(instruction.text))
        return EngineState(words, self.engine.start(), (0.0, 0.0, 0.0), None)

    def step(self, observation: Observation, state: EngineState) -> Step:
        """Decide on one observation; ``state`` is unchanged, the next one is in the Step."""
        return self.steps([observation], [state])[0]

    def steps(self, observations: Sequence[Observation], states: Sequence[EngineState]) -> list[Step]:
        """One step of each of up to ``engine.sessions`` robots, as one batch."""
        contract, size = self.contract, self.size
        odometry = [_moved(observation, state) for observation, state in zip(observations, states, strict=True)]
        frames = [fit(each.frame.pixels, size) for each in observations]
        rows = [
            motion_row(each.velocity.as_array(), moved, contract)
            for each, moved in zip(observations, odometry, strict=True)
        ]
        if len(observations) == 1:
            pixels, motion = frames[0][None], rows[0][None]
        else:
            pixels, motion = np.stack(frames), np.stack(rows)
        decided = self.engine.decide(
            pixels, [state.words for state in states], motion, [state.history for state in states]
        )
        velocities = contract.denormalise(decided.chunk)
        steps = []
        for place, (observation, state) in enumerate(zip(observations, states, strict=True)):
            status = STATUSES[int(decided.status[place].argmax())]
            if status.is_final:  # who says that it has finished stands still
                velocities[place] = 0.0
            captured_ns = observation.frame.capture_ns
            steps.append(
                Step(
                    ActionChunk(velocities[place], captured_ns, contract.rate_hz),
                    grounding_from(decided.belief[place], status),
                    EngineState(state.words, decided.histories[place], odometry[place], captured_ns),
                )
            )
        return steps


def _moved(observation: Observation, state: EngineState) -> tuple[float, float, float]:
    elapsed_s = 0.0 if state.stamp_ns is None else (observation.frame.capture_ns - state.stamp_ns) * 1e-9
    return integrate(state.odometry, observation.velocity, elapsed_s)
