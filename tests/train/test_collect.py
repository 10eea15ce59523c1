import numpy as np
import pytest
from numpy.typing import NDArray

from mobile_vla.core import ActionContract, Instruction, Status
from mobile_vla.data import schema
from mobile_vla.language import Grammar, parse
from mobile_vla.policy.preprocess import HEIGHT, WIDTH
from mobile_vla.train.collect import Recording, drive, survey
from mobile_vla.train.drive import dead_reckoning, goal_of

CONTRACT = ActionContract()


@pytest.fixture(scope="module")
def grammar() -> Grammar:
    return Grammar.load()


@pytest.fixture(scope="module")
def expert_drives(grammar: Grammar) -> list[Recording]:
    return list(drive(range(500, 506), grammar, CONTRACT, None, lanes=3, max_frames=100))


def test_a_survey_sees_every_object_of_its_scene_in_truth_columns(grammar: Grammar) -> None:
    (made,) = survey([3], 5, grammar, CONTRACT)
    assert len(made.rows) == 5
    for row in made.rows:
        assert row[schema.IMAGE_FRONT].shape == (HEIGHT, WIDTH, 3)
        objects = row[schema.OBJECTS].reshape(schema.MAX_OBJECTS, len(schema.OBJECT_FIELDS))
        placed = objects[objects[:, 0] >= 0]
        assert len(placed) >= 1
        assert (placed[:, 6] >= 0).all()
        assert (row[schema.RANGES] > 0).all()


def test_the_same_seed_makes_the_same_survey(grammar: Grammar) -> None:
    (one,), (two,) = survey([9], 2, grammar, CONTRACT), survey([9], 2, grammar, CONTRACT)
    assert one.instruction == two.instruction
    assert np.array_equal(one.rows[1][schema.IMAGE_FRONT], two.rows[1][schema.IMAGE_FRONT])


def test_the_expert_arrives_and_every_frame_carries_its_advice(expert_drives: list[Recording]) -> None:
    assert len(expert_drives) == 6
    assert sum(made.extras["outcome"] == "settled" for made in expert_drives) >= 5
    for made in expert_drives:
        for row in made.rows:
            chunk = row[schema.ACTION_CHUNK].reshape(CONTRACT.horizon, 3)
            assert (np.abs(chunk) <= CONTRACT.limits_array).all()
        if made.extras["outcome"] == "settled":
            assert list(Status)[made.rows[-1][schema.STATUS]].is_final


def test_the_words_of_an_episode_say_what_its_extras_say(expert_drives: list[Recording], grammar: Grammar) -> None:
    understood = [parse(made.instruction, grammar) == goal_of(made.extras) for made in expert_drives]
    assert sum(understood) >= len(understood) - 1  # a typo may be beyond the parser


class Spinner:
    """A learner that only turns, and notes what it was asked."""

    def __init__(self) -> None:
        self.begun: list[str] = []

    def reset(self, place: int, instruction: Instruction) -> None:
        self.begun.append(instruction.text)

    def act(self, frames: NDArray[np.uint8], velocities: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.tile(np.array([0.0, 0.0, 0.5], np.float32), (len(frames), CONTRACT.horizon, 1))


def test_a_learner_drives_and_the_expert_still_labels(grammar: Grammar) -> None:
    learner = Spinner()
    made = list(drive(range(700, 704), grammar, CONTRACT, learner, lanes=2, max_frames=12))
    assert sorted(learner.begun) == sorted(recording.instruction for recording in made)
    driven = [row for recording in made for row in recording.rows[:8]]
    assert sum(np.allclose(row[schema.ACTION], [0.0, 0.0, 0.5]) for row in driven) > len(driven) // 2
    assert any(np.abs(row[schema.ACTION_CHUNK]).max() > 0.2 for row in driven)


def test_dead_reckoning_follows_the_recorded_truth_of_a_turn() -> None:
    velocities = np.tile(np.array([0.0, 0.0, 0.5], np.float32), (11, 1))
    odometry = dead_reckoning(velocities, rate_hz=5.0)
    assert odometry[0] == (0.0, 0.0, 0.0)
    assert odometry[-1][2] == pytest.approx(10 * 0.2 * 0.5)
