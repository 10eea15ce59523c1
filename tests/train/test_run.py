from pathlib import Path

import numpy as np
import pytest

from mobile_vla.checkpoint import load
from mobile_vla.core import ActionContract, Frame, Instruction, Observation, Twist
from mobile_vla.data import Dataset
from mobile_vla.policy.preprocess import HEIGHT, WIDTH
from mobile_vla.policy.weights import load_policy
from mobile_vla.train.config import TrainConfig, read_config
from mobile_vla.train.generate import GenerateJob, _make_shard, generate
from mobile_vla.train.run import train

TINY = [
    "processes=1",
    "threads=1",
    "survey_scenes=4",
    "survey_poses=4",
    "drive_rounds=1",
    "drive_episodes=4",
    "lanes=2",
    "max_frames=8",
    *(
        f"{stage}.{key}"
        for stage in ("read", "see", "drive", "final", "settle")
        for key in ("steps=3", "batch=4", "warmup=1")
    ),
    *(f"network.{key}" for key in ("stem=4", "middle=8", "top=16", "embedding=8", "column=4", "words=16", "memory=16")),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainConfig, Path]:
    config, folder = read_config(None, TINY), tmp_path_factory.mktemp("run")
    return config, train(config, folder)


def test_a_run_ends_in_a_policy_that_steps(trained: tuple[TrainConfig, Path]) -> None:
    policy = load_policy(trained[1], ActionContract())
    frame = Frame(np.zeros((HEIGHT, WIDTH, 3), np.uint8), 0, "test", "front", 0)
    step = policy.step(Observation(frame, Twist(0.0, 0.0, 0.0)), policy.reset(Instruction("go to the red cup")))
    assert np.isfinite(step.chunk.velocities).all()


def test_its_checkpoint_tells_what_it_was_made_from(trained: tuple[TrainConfig, Path]) -> None:
    origin = load(trained[1]).origin
    assert origin["config"]["survey_scenes"] == 4
    assert set(origin["data"]) == {"survey", "drive-0", "drive-1"}
    assert all({"data_hash", "split_hash"} <= set(hashes) for hashes in origin["data"].values())


def test_run_again_it_does_nothing_anew(trained: tuple[TrainConfig, Path]) -> None:
    config, final = trained
    before = (final / "weights.safetensors").stat().st_mtime_ns
    assert train(config, final.parent) == final
    assert (final / "weights.safetensors").stat().st_mtime_ns == before


def test_generation_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    contract = ActionContract()
    root = tmp_path / "data"
    shard = tmp_path / "data.parts" / "00"
    job = GenerateJob("survey", first_seed=40, episodes=5, poses=2)
    _make_shard(job, shard, [40, 41], contract)
    kept = (shard / Dataset.open(shard).records[0].path).read_bytes()
    generate(job, root, contract, processes=1)
    dataset = Dataset.open(root)
    assert sorted(record.extras["scene_seed"] for record in dataset.records) == [40, 41, 42, 43, 44]
    assert (root / dataset.records[0].path).read_bytes() == kept
