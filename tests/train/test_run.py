import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobile_vla.checkpoint import load, save
from mobile_vla.checkpoint.manifest import read_manifest
from mobile_vla.core import ActionContract, CheckpointError, Frame, Instruction, Observation, Twist
from mobile_vla.data import Dataset
from mobile_vla.policy.compact import CompactNetwork
from mobile_vla.policy.preprocess import HEIGHT, WIDTH
from mobile_vla.policy.weights import load_policy
from mobile_vla.train import run, see
from mobile_vla.train.config import TrainConfig, read_config
from mobile_vla.train.drive import Drives
from mobile_vla.train.generate import GenerateJob, _make_shard, generate
from mobile_vla.train.loop import LoopConfig, Piece, Stage
from mobile_vla.train.run import load_frames, train
from mobile_vla.train.see import Frames

TINY = [
    "processes=1",
    "threads=1",
    "survey_scenes=15",  # the last of them is of the validation part
    "survey_poses=2",
    "drive_rounds=1",
    "drive_episodes=19",  # so is the last of the first round, and one of the second
    "lanes=2",
    "max_frames=4",
    *(
        f"{stage}.{key}"
        for stage in ("read", "see", "drive", "final", "settle")
        for key in ("steps=3", "batch=4", "warmup=1", "save_every=1")
    ),
    *(f"network.{key}" for key in ("stem=4", "middle=8", "top=16", "embedding=8", "column=4", "words=16", "memory=16")),
]


@pytest.fixture(scope="module", autouse=True)
def fewer_wordings() -> Iterator[None]:
    """Most of a tiny run goes into wordings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(see, "_WORDINGS", 2)
        yield


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
    assert origin["config"]["survey_scenes"] == 15
    assert set(origin["data"]) == {"survey", "drive-0", "drive-1"}
    assert all({"data_hash", "split_hash"} <= set(hashes) for hashes in origin["data"].values())
    assert origin["init_from"] is None


def test_the_checkpoint_of_each_stage_tells_its_step_and_its_validation_loss(trained: tuple[TrainConfig, Path]) -> None:
    for stage, name in (("see", "see"), ("drive-0", "drive-0"), ("drive-1", "drive-1"), ("final", "settle")):
        ended = read_manifest(trained[1].parent / stage)
        last = read_manifest(trained[1].parent / f"{name}.parts" / "step-00000003")
        assert (ended.step, ended.metric) == (3, last.metric)
        assert ended.metric is not None
        assert ended.metric.name == f"{name} validation loss"
        assert ended.identity == last.identity


def test_validation_is_on_scenes_that_are_not_learnt_from(
    trained: tuple[TrainConfig, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {}

    def size(draw: Any) -> int | None:
        data = draw(np.random.default_rng(0), Piece()).data
        return len(data) if isinstance(data, Frames | Drives) else None

    def note(network: CompactNetwork, stage: Stage, loop: LoopConfig) -> None:
        sizes[stage.name] = size(stage.draw), size(stage.validation)

    monkeypatch.setattr(run, "fit", note)
    shutil.copytree(trained[1].parent / "data", tmp_path / "data")
    train(trained[0], tmp_path)
    assert sizes == {
        "read": (None, None),  # phrases are drawn
        "see": (13 * 2, 1 * 2),  # the one scene that is left is of the test part
        "drive-0": (18, 1),
        "drive-1": (18 + 18, 1 + 1),
        "settle": (None, None),
    }


@pytest.fixture
def copied(trained: tuple[TrainConfig, Path], tmp_path: Path) -> Path:
    """The folder of a finished run, to be damaged."""
    shutil.copytree(trained[1].parent, tmp_path / "run")
    return tmp_path / "run"


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def identities(folder: Path) -> dict[str, str]:
    return {stage: read_manifest(folder / stage).identity for stage in ("see", "drive-0", "drive-1", "final")}


def test_damaged_stages_are_said_and_made_again_just_the_same(
    trained: tuple[TrainConfig, Path], copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = identities(copied)
    for stage in ("see", "drive-1", "final"):
        flip_a_bit(copied / stage / "weights.safetensors")
    flip_a_bit(copied / "drive-0" / "manifest.json")
    flip_a_bit(copied / "drive-1.parts" / "step-00000003" / "weights.safetensors")
    train(trained[0], copied)
    said = capsys.readouterr().out
    for stage in ("see", "drive-0", "drive-1", "final"):
        assert f"{copied / stage} is damaged (" in said
    assert f"{copied / 'drive-1.parts' / 'step-00000003'} is damaged (" in said
    assert "goes on at step-00000002" in said
    assert identities(copied) == before


def test_a_finished_run_does_not_need_what_it_came_from(trained: tuple[TrainConfig, Path], copied: Path) -> None:
    for stage in ("see", "drive-0", "drive-1"):
        flip_a_bit(copied / stage / "weights.safetensors")
    assert train(trained[0], copied) == copied / "final"


def test_a_stage_of_another_version_is_not_overwritten(trained: tuple[TrainConfig, Path], copied: Path) -> None:
    (copied / "final" / "manifest.json").write_text('{"format": 1, "files": {}}')
    with pytest.raises(CheckpointError, match="another version"):
        train(trained[0], copied)


def test_a_run_that_begins_with_a_checkpoint_keeps_it(
    trained: tuple[TrainConfig, Path], copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(trained[0], read=replace(trained[0].read, steps=0), see=replace(trained[0].see, steps=0))
    whole, source, folder = load(trained[1]), copied / "source", copied / "new"
    given = {name: value for name, value in whole.tensors.items() if name != "query.bias"}
    save(source, replace(whole, tensors=given, missing=("query.bias",)))
    shutil.copytree(copied / "data", folder / "data")
    train(config, folder, source)
    assert "start fresh: query.bias" in capsys.readouterr().out
    seen = load(folder / "see").tensors
    assert [name for name, value in whole.tensors.items() if not np.array_equal(seen[name], value)] == ["query.bias"]
    for stage in ("see", "drive-1", "final"):
        record = load(folder / stage).origin["init_from"]
        assert record["fresh"] == ["query.bias"]
        assert record["sha256"] == read_manifest(source).identity
    assert train(config, folder, source) == train(config, folder) == folder / "final"
    with pytest.raises(CheckpointError, match="leave --init-from out"):
        train(config, folder, trained[1])


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


def test_no_episodes_are_no_frames(trained: tuple[TrainConfig, Path]) -> None:
    survey = Dataset.open(trained[1].parent / "data" / "survey")
    assert len(load_frames(survey, ())) == 0
