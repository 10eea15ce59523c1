"""Small data sets and a policy that plays back what it was given, for tests of the comparison with recorded data."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobile_vla.core import ActionChunk, ActionContract, Instruction, Observation, Step
from mobile_vla.data import Dataset, EpisodeWriter, make_split, schema

from .test_episode import SteadyPolicy

CONTRACT = ActionContract()
EPISODES, FRAMES = 30, 5


class RecallPolicy(SteadyPolicy):
    """Counts frames in its state and plays back what it was given for them; the words end in the episode's number."""

    def __init__(self, chunks: NDArray[np.float32]) -> None:
        super().__init__(0.0, 0.0, 0.0)
        self.chunks = chunks

    def reset(self, instruction: Instruction) -> Any:
        return int(instruction.text.split()[-1]), 0

    def step(self, observation: Observation, state: Any) -> Step:
        episode, place = state
        step = super().step(observation, state)
        chunk = ActionChunk(self.chunks[episode, place], observation.frame.capture_ns, self.contract.rate_hz)
        return Step(chunk, step.grounding, (episode, place + 1))


def make_chunks(noise: float = 0.1, episodes: int = EPISODES) -> NDArray[np.float32]:
    """(episodes, frames, horizon, 3): mostly the same velocity, with some noise."""
    rng = np.random.default_rng(5)
    usual = np.array([0.4, 0.0, 0.2])
    shape = (episodes, FRAMES, CONTRACT.horizon, 3)
    chunks = usual + noise * rng.uniform(-1, 1, shape)
    return np.clip(chunks, -CONTRACT.limits_array, CONTRACT.limits_array).astype(np.float32)


def written(
    root: Path,
    chunks: NDArray[np.float32],
    words: Callable[[int], str] = str,
    scene: Callable[[int], int | None] = lambda number: number,
    contract: ActionContract = CONTRACT,
) -> Dataset:
    """One episode for each row of chunks (episodes, frames, horizon, 3), not divided; NaN is no label.

    What is executed is the first action, and nothing moves where that is unknown.
    """
    with EpisodeWriter(root, contract, (96, 192, 3), {}) as writer:
        for number, course in enumerate(chunks):
            seed = scene(number)
            with writer.episode(words(number), {} if seed is None else {schema.EXTRA_SCENE_SEED: seed}) as episode:
                for place, chunk in enumerate(course):
                    episode.add(
                        {
                            schema.IMAGE_FRONT: np.full((96, 192, 3), place, np.uint8),
                            schema.STATE: np.zeros(3, np.float32),
                            schema.ACTION: np.nan_to_num(chunk[0]),
                            schema.CAPTURE_NS: place * 200_000_000,
                            schema.SEQUENCE: place,
                            schema.ACTION_CHUNK: chunk.ravel(),
                        }
                    )
    return Dataset.open(root)


def recorded(root: Path, chunks: NDArray[np.float32], words: Callable[[int], str] = str) -> Dataset:
    """As ``written``, divided in halves and quarters."""
    dataset = written(root, chunks, words)
    make_split(dataset, (0.5, 0.25, 0.25))
    return dataset
