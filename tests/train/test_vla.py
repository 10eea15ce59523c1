import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from mobile_vla.checkpoint import load
from mobile_vla.core import (
    ActionContract,
    CheckpointError,
    ConfigError,
    ContractMismatchError,
    DatasetError,
    Frame,
    Instruction,
    Observation,
    Policy,
    Twist,
)
from mobile_vla.data import Dataset, make_split
from mobile_vla.policy.kinds import kind_named
from mobile_vla.policy.weights import load_policy
from mobile_vla.train import vla
from mobile_vla.train.config import VlaTrainConfig, read_vla_config
from mobile_vla.train.vla import train_vla

from .vla_data import CONTRACT, SMALL, TOWERS, written

KINDS = tuple(TOWERS)


def config(kind: str, *settings: str) -> VlaTrainConfig:
    return read_vla_config(kind_named(kind), None, [*SMALL, *TOWERS[kind], *settings])


def run(folder: Path, data: list[Path], kind: str = "clip_lstm", *settings: str) -> Path:
    return train_vla(kind_named(kind), config(kind, *settings), folder, data)


def tensors(folder: Path) -> dict[str, Tensor]:
    return {name: torch.from_numpy(value) for name, value in load(folder).tensors.items()}


def chunk(policy: Policy) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (96, 192, 3), dtype=np.uint8)
    state = policy.reset(Instruction("go to the red cup"))
    return policy.step(Observation(Frame(pixels, 0, "test", "front", 0), Twist(0.1, 0.0, 0.0)), state).chunk.velocities


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("data") / "drives")


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("data") / "by_hand", labelled=False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_ends_in_a_policy_that_steps(kind: str, data: Path, tmp_path: Path) -> None:
    policy = load_policy(run(tmp_path, [data], kind), ActionContract())
    assert chunk(policy).shape == (CONTRACT.horizon, 3)
    origin = load(tmp_path / "final").origin
    assert set(origin["data"]) == {str(data)}
    assert origin["config"]["network"]["head"]["hidden"] == 16
    assert {"start", "see", "drive-0", "final"} <= {each.name for each in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("kind", "way"),
    [
        ("kosmos_clip", "full"),
        ("kosmos_clip", "lora"),
        ("kosmos_lstm", "lora"),
        ("clip_lstm", "lora"),
        ("clip_lstm", "frozen"),
    ],
)
def test_the_towers_learn_as_they_are_told(kind: str, way: str, data: Path, tmp_path: Path) -> None:
    run(tmp_path, [data], kind, f"drive_towers={way}")
    before, after = tensors(tmp_path / "see"), tensors(tmp_path / "final")
    assert set(before) == set(after)  # what LoRA added is merged
    matrices = [name for name in before if name.startswith("towers.") and "_proj.weight" in name]
    changed = {name for name in matrices if not torch.equal(before[name], after[name])}
    assert not changed if way == "frozen" else changed
    assert not torch.equal(before["head.status.weight"], after["head.status.weight"])
    if way == "lora":  # norms and biases stay
        norms = [name for name in before if name.startswith("towers.") and "norm" in name]
        assert all(torch.equal(before[name], after[name]) for name in norms)


@pytest.mark.parametrize("way", ["full", "lora", "frozen"])
@pytest.mark.parametrize("stage", ["see", "drive"])
def test_a_run_cut_off_ends_as_one_that_was_not(
    way: str, stage: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    see_way = "full" if way == "frozen" else way
    settings = ("see.save_every=1", "drive.save_every=1", f"drive_towers={way}", f"see_towers={see_way}")
    whole = run(tmp_path / "whole", [data], "clip_lstm", *settings)
    name = "ask_loss" if stage == "see" else "imitation_loss"
    real, left = getattr(vla, name), [2]

    def cut(*arguments: object) -> object:
        left[0] -= torch.is_grad_enabled()
        if left[0] == 0:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(vla, name, cut)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", [data], "clip_lstm", *settings)
    monkeypatch.setattr(vla, name, real)
    again = tensors(run(tmp_path / "cut", [data], "clip_lstm", *settings))
    assert all(torch.equal(again[key], value) for key, value in tensors(whole).items())


def test_recordings_by_hand_teach_driving_alone(by_hand: Path, tmp_path: Path) -> None:
    run(tmp_path, [by_hand])
    assert not (tmp_path / "see").exists()
    before, after = tensors(tmp_path / "start"), tensors(tmp_path / "final")
    assert not torch.equal(before["head.decoder.out.weight"], after["head.decoder.out.weight"])


def test_two_data_sets_teach_together(data: Path, by_hand: Path, tmp_path: Path) -> None:
    run(tmp_path, [data, by_hand])
    assert set(load(tmp_path / "final").origin["data"]) == {str(data), str(by_hand)}


def test_a_judge_decides_which_step_is_kept(data: Path, tmp_path: Path) -> None:
    asked: list[Policy] = []

    def judge(policy: Policy) -> float:
        asked.append(policy)
        return [0.2, 0.9, 0.1][len(asked) - 1]

    settings = config("clip_lstm", "see.steps=0", "drive.patience=5", "drive.save_every=1")
    final = train_vla(kind_named("clip_lstm"), settings, tmp_path, [data], judge=judge)
    metric = load(final).metric
    assert metric is not None
    assert (metric.name, metric.value) == ("closed-loop success", 0.9)
    assert len(asked) == 3


def test_another_contract_is_refused(data: Path, tmp_path: Path) -> None:
    faster = replace(CONTRACT, frame_rate_hz=10.0)
    other = written(tmp_path / "other", contract=faster)
    with pytest.raises(ContractMismatchError, match=r"frame_rate_hz.*5.0.*10.0"):
        run(tmp_path / "run", [data, other])


def test_data_of_another_contract_than_the_weights_begun_with_are_refused(data: Path, tmp_path: Path) -> None:
    begun = run(tmp_path / "begun", [data])
    other = written(tmp_path / "other", contract=replace(CONTRACT, rate_hz=5.0))
    with pytest.raises(ContractMismatchError, match="rate_hz"):
        train_vla(kind_named("clip_lstm"), config("clip_lstm"), tmp_path / "run", [other], begun)


@pytest.mark.parametrize("way", ["full", "frozen"])
def test_a_number_that_is_none_is_named_with_its_place(way: str, tmp_path: Path) -> None:
    root = written(tmp_path / "data")
    path = sorted((root / "data").rglob("*.parquet"))[0]
    content = pq.read_table(path)
    column = content.column_names.index("action")
    values = np.stack(content.column("action").to_pylist()).astype(np.float32)
    values[2, 1] = np.nan
    broken = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 3)
    pq.write_table(content.set_column(column, "action", broken), path)
    journal = root / "meta" / "journal.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    for line in lines:
        if line.get("episode_index", 0) == 0:
            line["size_bytes"] = os.path.getsize(path)
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(DatasetError, match=r"episode 0, frame 2: action holds nan.*data validate"):
        run(tmp_path / "run", [root], "clip_lstm", "see.steps=0", f"drive_towers={way}")


def test_data_that_say_nothing_of_driving_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "mute"
    written(root, labelled=False, contract=CONTRACT)
    for path in sorted((root / "data").rglob("*.parquet")):
        content = pq.read_table(path)
        place = content.column_names.index("action.chunk")
        empty = np.full(content.num_rows * 3 * CONTRACT.horizon, np.nan, np.float32)
        silent = pa.FixedSizeListArray.from_arrays(pa.array(empty), 3 * CONTRACT.horizon)
        pq.write_table(content.set_column(place, "action.chunk", silent), path)
    journal = root / "meta" / "journal.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    for line, path in zip(lines, sorted((root / "data").rglob("*.parquet")), strict=True):
        line["size_bytes"] = os.path.getsize(path)
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(DatasetError, match="says what to do"):
        run(tmp_path / "run", [root])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["network.clip=tinny"], "did you mean tiny"),
        (["network.head.kind=gru"], "lstm, mlp, transformer, flow"),
        (["drive_tower=full"], "drive_towers"),
        (["drive_towers=half"], "full, frozen, lora"),
        (["sharding=zero"], "ddp or fsdp2"),
        (["drive.batch=5", "drive.accumulate=2"], "accumulate"),
    ],
)
def test_settings_that_mean_nothing_are_explained(settings: list[str], words: str, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        run(tmp_path, [data], "clip_lstm", *settings)


def test_two_processes_end_where_one_does(data: Path, tmp_path: Path) -> None:
    still = "lora.dropout=0.0"  # the processes drop different things
    one = run(tmp_path / "one", [data], "kosmos_clip", still)
    program = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    program += ["-m", "mobile_vla", "train", str(tmp_path / "two"), "--policy", "kosmos_clip", "--data", str(data)]
    command = [*program, *SMALL, *TOWERS["kosmos_clip"], still]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("the policy is in") == 1
    for stage in ("see", "drive-0"):
        alone, together = (load(tmp_path / each / stage).metric for each in ("one", "two"))
        assert alone is not None
        assert together is not None
        assert together.value == pytest.approx(alone.value, rel=1e-4)
    assert set(tensors(one)) == set(tensors(tmp_path / "two" / "final"))
    np.testing.assert_allclose(
        chunk(load_policy(tmp_path / "two" / "final")), chunk(load_policy(one)), atol=2e-3
    )  # where gradients are almost nothing, Adam follows their rounding


def test_the_learner_drives_further_rounds(data: Path, tmp_path: Path) -> None:
    rounds = ("drive_rounds=1", "drive_episodes=4", "lanes=2", "max_frames=4", "drive_towers=frozen")
    run(tmp_path, [data], "clip_lstm", *rounds)
    made = Dataset.open(tmp_path / "data" / "drive-1")
    assert len(made) == 4
    assert {record.extras["driver"] for record in made.records} == {"policy"}
    assert set(load(tmp_path / "final").origin["data"]) == {str(data), str(tmp_path / "data" / "drive-1")}


def test_a_finished_run_is_no_other_run(data: Path, by_hand: Path, tmp_path: Path) -> None:
    final = run(tmp_path, [data])
    assert run(tmp_path, [data], "clip_lstm", "threads=2") == final  # how it is done may change
    with pytest.raises(CheckpointError, match="it made a clip_lstm, not a kosmos_lstm: choose another folder"):
        run(tmp_path, [data], "kosmos_lstm")
    with pytest.raises(CheckpointError, match=r"other settings \(names, drive\)"):
        run(tmp_path, [data], "clip_lstm", "names=2", "drive.steps=6")
    with pytest.raises(CheckpointError, match=f"from {data}, not from {by_hand}"):
        run(tmp_path, [by_hand])


def test_a_split_without_training_is_named_as_the_cause(tmp_path: Path) -> None:
    root = written(tmp_path / "data", episodes=2)
    make_split(Dataset.open(root), (0.0, 1.0, 0.0))
    with pytest.raises(DatasetError, match=r"training part of its split.*data split DIR --again"):
        run(tmp_path / "run", [root])


def test_a_data_set_without_episodes_is_refused(tmp_path: Path) -> None:
    root = written(tmp_path / "data", episodes=0)
    with pytest.raises(DatasetError, match="holds no episode"):
        run(tmp_path / "run", [root])
