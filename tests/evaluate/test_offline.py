from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mobile_vla.core import (
    ActionChunk,
    ActionContract,
    ContractMismatchError,
    DatasetError,
    Instruction,
    Observation,
    Step,
)
from mobile_vla.data import Dataset, EpisodeWriter, make_split, schema
from mobile_vla.evaluate import offline_errors
from mobile_vla.policy.weights import load_policy

from .test_episode import SteadyPolicy

CONTRACT = ActionContract()
EPISODES, FRAMES = 30, 5
Wanted = Callable[[int, int], NDArray[np.float64]]


class RecallPolicy(SteadyPolicy):
    """Counts frames in its state and plays back what it was given for them; the words are the episode's number."""

    def __init__(self, chunks: NDArray[np.float32]) -> None:
        super().__init__(0.0, 0.0, 0.0)
        self.chunks = chunks

    def reset(self, instruction: Instruction) -> Any:
        return int(instruction.text), 0

    def step(self, observation: Observation, state: Any) -> Step:
        episode, place = state
        step = super().step(observation, state)
        chunk = ActionChunk(self.chunks[episode, place], observation.frame.capture_ns, self.contract.rate_hz)
        return Step(chunk, step.grounding, (episode, place + 1))


def make_chunks(noise: float = 0.1) -> NDArray[np.float32]:
    """(episodes, frames, horizon, 3): mostly the same velocity, with some noise."""
    rng = np.random.default_rng(5)
    usual = np.array([0.4, 0.0, 0.2])
    shape = (EPISODES, FRAMES, CONTRACT.horizon, 3)
    chunks = usual + noise * rng.uniform(-1, 1, shape)
    return np.clip(chunks, -CONTRACT.limits_array, CONTRACT.limits_array).astype(np.float32)


def recorded(root: Path, chunks: NDArray[np.float32], labelled: bool = True) -> Dataset:
    with EpisodeWriter(root, CONTRACT, (96, 192, 3), {}) as writer:
        for number in range(EPISODES):
            with writer.episode(str(number), {schema.EXTRA_SCENE_SEED: number}) as episode:
                for place in range(FRAMES):
                    row: dict[str, Any] = {
                        schema.IMAGE_FRONT: np.full((96, 192, 3), place, np.uint8),
                        schema.STATE: np.zeros(3, np.float32),
                        schema.ACTION: chunks[number, place, 0],
                        schema.CAPTURE_NS: place * 200_000_000,
                        schema.SEQUENCE: place,
                    }
                    episode.add(row | ({schema.ACTION_CHUNK: chunks[number, place].ravel()} if labelled else {}))
    dataset = Dataset.open(root)
    make_split(dataset, (0.5, 0.25, 0.25))
    return dataset


def test_a_perfect_recall_has_no_error_and_the_baselines_have_theirs(tmp_path: Path) -> None:
    chunks = make_chunks()
    dataset = recorded(tmp_path / "data", chunks)
    report = offline_errors(RecallPolicy(chunks), dataset, "test")
    assert report.frames == report.episodes * FRAMES > 0
    assert set(report.errors) == {"policy", "constant", "majority", "hold_last"}
    mine = report.errors["policy"]
    assert [e.value for e in (*mine.first, *mine.chunk)] == [0.0] * 6
    assert mine.within.value == 1.0
    constant = report.errors["constant"]
    assert [e.value for e in constant.first] == pytest.approx([0.05] * 3, abs=0.02)  # mean |uniform(-0.1, 0.1)|
    assert [e.value for e in constant.first_of_range] == pytest.approx(
        [e.value / (2 * limit) for e, limit in zip(constant.first, CONTRACT.limits, strict=True)]
    )
    assert all(e.low <= e.value <= e.high for e in constant.first)
    assert report.tolerance == pytest.approx((0.12, 0.12, 0.3))


def test_hold_last_is_the_action_before_and_zero_at_first(tmp_path: Path) -> None:
    chunks = make_chunks(noise=0.0)
    report = offline_errors(RecallPolicy(chunks), recorded(tmp_path / "data", chunks), "test")
    held = report.errors["hold_last"]
    assert [e.value for e in held.first] == pytest.approx([0.4 / FRAMES, 0.0, 0.2 / FRAMES], abs=1e-6)
    assert held.within.value == pytest.approx(1 - 1 / FRAMES)
    assert report.errors["majority"].first[0].value == pytest.approx(0.02, abs=1e-6)  # the cell around 0.42
    assert [e.value for e in report.errors["constant"].chunk] == pytest.approx([0.0] * 3, abs=1e-6)


def test_a_compact_policy_is_stepped_through(tmp_path: Path, checkpoint: Path) -> None:
    dataset = recorded(tmp_path / "data", make_chunks())
    report = offline_errors(load_policy(checkpoint), dataset, "validation", limit=2)
    assert (report.episodes, report.frames) == (2, 2 * FRAMES)
    assert report.errors["policy"].first[0].value > report.errors["constant"].first[0].value


def test_errors_name_both_sides(tmp_path: Path) -> None:
    chunks = make_chunks()
    policy = RecallPolicy(chunks)
    unlabelled = recorded(tmp_path / "unlabelled", chunks, labelled=False)
    with pytest.raises(DatasetError, match="no frames that an expert labelled"):
        offline_errors(policy, unlabelled)
    policy.contract = replace(CONTRACT, limits=(0.5, 0.5, 1.0))
    with pytest.raises(ContractMismatchError, match=r"limits.*the policy has"):
        offline_errors(policy, recorded(tmp_path / "data", chunks))
