import contextlib
import json
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mobile_vla.checkpoint.keep import newest_whole, saved_steps
from mobile_vla.checkpoint.manifest import read_manifest
from mobile_vla.core import CheckpointError, ConfigError
from mobile_vla.train.loop import LoopConfig, Stage, fit, schedule, validate

from . import small
from .small import CONFIG, MADE, fit_small


class Killed(BaseException):
    """Stands for a kill: nothing in the loop may catch it."""


def after(calls: int, do: Callable[[], None]) -> Callable[[], None]:
    """To be called before each step: does nothing ``calls`` times, then ``do``."""
    left = [calls]

    def count() -> None:
        left[0] -= 1
        if left[0] < 0:
            do()

    return count


def die() -> None:
    raise Killed


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest that a training ends with that nothing cuts off."""
    return fit_small(tmp_path_factory.mktemp("whole"))[0]


def cut_off(folder: Path, steps: int) -> None:
    with pytest.raises(Killed):
        fit_small(folder, before_each=after(steps, die))


@pytest.mark.parametrize("kill_at", [3, 10, 27, 39])
def test_killed_and_started_again_it_ends_with_the_same_weights(tmp_path: Path, whole: str, kill_at: int) -> None:
    cut_off(tmp_path, kill_at)
    assert fit_small(tmp_path)[0] == whole


def test_killed_at_any_change_to_its_files_it_loses_no_step_and_ends_the_same(tmp_path: Path) -> None:
    script = [sys.executable, "-W", "error", "-m", "train.small", str(tmp_path)]
    tests = Path(__file__).parents[1]
    drill = subprocess.run(script, cwd=tests, check=True, capture_output=True, text=True, timeout=280)
    kills = [json.loads(line) for line in drill.stdout.splitlines()]
    assert [kill["killed"] for kill in kills] == [True] * (len(kills) - 1) + [False]
    assert len(kills) > 35
    newest = [kill["newest"] or "" for kill in kills]
    assert newest == sorted(newest)  # the later the kill, the later the step that is whole
    assert {kill["ended"] for kill in kills} == {kills[-1]["ended"]}


@pytest.mark.parametrize("file", ["weights.safetensors", "training.safetensors", "config.json", "manifest.json"])
def test_a_damaged_newest_step_is_named_and_the_one_before_it_serves(tmp_path: Path, whole: str, file: str) -> None:
    cut_off(tmp_path, 35)
    flip_a_bit(tmp_path / "step-00000030" / file)
    ended, _, said = fit_small(tmp_path)
    (line,) = [line for line in said.splitlines() if "damaged" in line]
    assert line.startswith(f"{tmp_path}/step-00000030 is damaged")
    assert file in line or "tensors" in line
    assert line.endswith("this stage goes on at step-00000020")
    assert ended == whole
    assert newest_whole(tmp_path) == tmp_path / "step-00000040"


def test_with_every_step_damaged_the_stage_begins_anew(tmp_path: Path, whole: str) -> None:
    cut_off(tmp_path, 25)
    for step in saved_steps(tmp_path):
        flip_a_bit(step / "weights.safetensors")
    ended, _, said = fit_small(tmp_path)
    assert said.count("goes on from its beginning") == 2
    assert ended == whole


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@contextlib.contextmanager
def no_room() -> Iterator[Callable[[], None]]:
    """A function that takes all room for files away, as a full disk does; it is back afterwards."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_said_and_loses_no_step(tmp_path: Path, whole: str) -> None:
    with (
        no_room() as fill,
        pytest.raises(CheckpointError, match=r"step 30 could not be saved.*full.*goes on at step-00000020"),
    ):
        fit_small(tmp_path, before_each=after(25, fill))
    assert [step.name for step in saved_steps(tmp_path)] == ["step-00000010", "step-00000020"]
    assert newest_whole(tmp_path) == tmp_path / "step-00000020"
    assert not list(tmp_path.rglob("*.partial"))
    assert fit_small(tmp_path)[0] == whole


def test_every_step_tells_its_validation_loss_and_the_best_stays(tmp_path: Path) -> None:
    _, metric, _ = fit_small(tmp_path, replace(CONFIG, keep_last=99))
    steps = {step.name: read_manifest(step) for step in saved_steps(tmp_path)}
    assert [each.step for each in steps.values()] == [10, 20, 30, 40]
    assert steps["step-00000040"].metric == metric
    assert {(each.metric.name, each.metric.better) for each in steps.values() if each.metric} == {
        ("test validation loss", "lower")
    }
    losses = {name: each.metric.value for name, each in steps.items() if each.metric}
    assert len(set(losses.values())) == 4
    best = min(losses, key=losses.__getitem__)

    fit_small(tmp_path / "again", replace(CONFIG, keep_last=1, keep_best=1))
    assert {step.name for step in saved_steps(tmp_path / "again")} == {best, "step-00000040"}
    fit_small(tmp_path / "last", replace(CONFIG, keep_last=1, keep_best=0))
    assert [step.name for step in saved_steps(tmp_path / "last")] == ["step-00000040"]


def test_validation_changes_nothing_and_is_the_same_when_resumed(tmp_path: Path, whole: str) -> None:
    network = small.small()
    stage = replace(small.stage(network, tmp_path / "without"), validation=None)
    assert fit(network, stage, CONFIG) is None
    assert small.digest(network) == whole
    cut_off(tmp_path / "cut", 25)
    assert fit_small(tmp_path / "cut")[1] == fit_small(tmp_path / "at once")[1]
    assert fit_small(tmp_path / "cut")[1] == fit_small(tmp_path / "at once")[1]  # from the last step, without training


def test_validation_is_of_the_settled_network_and_leaves_it_as_it_was(tmp_path: Path) -> None:
    network = small.small()
    network.unused.eval()
    modes, before = [module.training for module in network.modules()], small.digest(network)
    stage = small.stage(network, tmp_path)
    assert validate(network, stage) == validate(network, stage)  # no dropout
    assert [module.training for module in network.modules()] == modes
    assert small.digest(network) == before
    assert validate(network, replace(stage, seed=8)) != validate(network, stage)


def test_a_validation_loss_that_is_not_finite_is_none(tmp_path: Path) -> None:
    network = small.small()
    stage = replace(small.stage(network, tmp_path), validation=lambda rng: (torch.tensor(float("nan")), {}))
    assert validate(network, stage) is None


def test_steps_of_another_network_are_refused(tmp_path: Path) -> None:
    fit_small(tmp_path)
    network = nn.Linear(3, 1)
    stage = Stage("test", tmp_path, 7, list(network.parameters()), lambda rng: (network.weight.sum(), {}), None, MADE)
    with pytest.raises(CheckpointError, match=r"step-00000040 was saved by a network of other sizes.*another folder"):
        fit(network, stage, CONFIG)


def test_a_gradient_that_is_not_finite_stops_the_training(tmp_path: Path) -> None:
    network = nn.Linear(1, 1)

    def loss(rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        return network(torch.tensor([[float("inf")]])).sum(), {}

    with pytest.raises(FloatingPointError, match="step 0"):
        fit(network, Stage("test", tmp_path, 1, list(network.parameters()), loss, None, MADE), CONFIG)


@pytest.mark.parametrize("wrong", [{"steps": -1}, {"batch": 0}, {"save_every": 0}, {"keep_last": 0}, {"keep_best": -1}])
def test_numbers_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    (name,) = wrong
    with pytest.raises(ConfigError, match=f"{name} needs to be at least"):
        replace(CONFIG, **wrong)


@given(st.integers(0, 10_000))
def test_the_learning_rate_rises_then_falls(step: int) -> None:
    config = LoopConfig(steps=10_000, batch=1, learning_rate=1.0, warmup=100)
    assert 0.0 < schedule(step, config) <= 1.0
    if step < 99:
        assert schedule(step, config) < schedule(step + 1, config)
    elif 100 <= step < 9_999:
        assert schedule(step, config) > schedule(step + 1, config)
