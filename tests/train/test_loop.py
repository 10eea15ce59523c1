import contextlib
import io
import json
import re
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mobile_vla.checkpoint import Metric, load
from mobile_vla.checkpoint.keep import newest_whole, saved_steps
from mobile_vla.checkpoint.manifest import read_manifest
from mobile_vla.core import CheckpointError, ConfigError, DatasetError, TrainingError
from mobile_vla.train.loop import LoopConfig, Piece, Stage, fit, schedule, validate
from mobile_vla.train.spread import Alone
from mobile_vla.train.steps import Steps

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
    assert validate(network, stage, CONFIG) == validate(network, stage, CONFIG)  # no dropout
    assert [module.training for module in network.modules()] == modes
    assert small.digest(network) == before
    assert validate(network, replace(stage, seed=8), CONFIG) != validate(network, stage, CONFIG)


def test_a_validation_loss_that_is_not_finite_is_none(tmp_path: Path) -> None:
    network = small.small()
    stage = replace(small.stage(network, tmp_path), validation=lambda rng, piece: torch.full((4, 3, 4, 4), np.nan))
    assert validate(network, stage, CONFIG) is None


def test_steps_of_another_network_are_refused(tmp_path: Path) -> None:
    fit_small(tmp_path)
    network = nn.Linear(3, 1)
    stage = replace(small.stage(small.small(), tmp_path), parameters=list(network.parameters()))
    with pytest.raises(CheckpointError, match=r"step-00000040 was saved by a network of other sizes.*another folder"):
        fit(network, stage, CONFIG)


def test_a_gradient_that_is_not_finite_stops_the_training(tmp_path: Path) -> None:
    network = nn.Linear(1, 1)

    def draw(rng: np.random.Generator, piece: Piece) -> Tensor:
        return torch.tensor([[float("inf")]])

    def loss(module: nn.Module, batch: Tensor) -> tuple[Tensor, dict[str, float]]:
        return module(batch).sum(), {}

    with pytest.raises(TrainingError, match=r"test: the gradient is not finite at step 0.*lower learning_rate"):
        fit(network, Stage("test", tmp_path, 1, list(network.parameters()), draw, loss, None, MADE), CONFIG)


@pytest.mark.parametrize("wrong", [{"steps": -1}, {"batch": 0}, {"save_every": 0}, {"keep_last": 0}, {"keep_best": -1}])
def test_numbers_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    (name,) = wrong
    with pytest.raises(ConfigError, match=f"{name} needs to be at least"):
        replace(CONFIG, **wrong)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"accumulate": 3}, "set batch to 3 or 6"),
        ({"ema": 1.0}, "ema is a decay from 0"),
        ({"precision": "half"}, "precision is one of fp32, bf16, fp16, not 'half'"),
        ({"patience": 2, "keep_best": 0}, "keep_best needs to be at least 1"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        replace(CONFIG, **wrong)


@given(st.integers(1, 12), st.integers(1, 12))
def test_pieces_cut_a_batch_into_equal_parts(size: int, of: int) -> None:
    parts = [Piece(place, of).part(size * of) for place in range(of)]
    assert [sample for part in parts for sample in range(size * of)[part]] == list(range(size * of))
    assert {part.stop - part.start for part in parts} == {size}
    if of > 1:
        with pytest.raises(ConfigError, match=f"set batch to {size * of} or {(size + 1) * of}"):
            Piece(0, of).part(size * of + 1)


@pytest.mark.parametrize("ahead", [0, 1, 7])
def test_drawing_ahead_changes_nothing(tmp_path: Path, whole: str, ahead: int) -> None:
    assert fit_small(tmp_path, replace(CONFIG, ahead=ahead))[0] == whole


@pytest.mark.parametrize("settings", [{"ema": 0.8}, {"precision": "bf16"}, {"accumulate": 2}])
def test_with_other_settings_too_it_goes_on_where_it_was_killed(tmp_path: Path, settings: dict[str, Any]) -> None:
    config = replace(CONFIG, **settings)
    at_once, metric, _ = fit_small(tmp_path / "at once", config)
    with pytest.raises(Killed):
        fit_small(tmp_path / "cut", config, after(27 * config.accumulate, die))
    assert fit_small(tmp_path / "cut", config)[:2] == (at_once, metric)
    assert fit_small(tmp_path / "cut", config)[:2] == (at_once, metric)  # from the last step, without training


def test_bf16_learns_about_the_same(tmp_path: Path) -> None:
    metrics = [fit_small(tmp_path / name, replace(CONFIG, precision=name))[1] for name in ("fp32", "bf16")]
    assert metrics[0] != metrics[1]
    values = [metric.value for metric in metrics if metric]
    assert values[1] == pytest.approx(values[0], rel=0.2)


def test_with_an_average_that_is_what_is_judged_saved_and_left_in_the_network(tmp_path: Path, whole: str) -> None:
    network = small.small()
    metric = fit(network, small.stage(network, tmp_path), replace(CONFIG, ema=0.9))
    assert small.digest(network) != whole
    assert metric == validate(network, small.stage(network, tmp_path), CONFIG)
    saved = load(tmp_path / "step-00000040", training=True)
    for name, value in network.state_dict().items():
        np.testing.assert_array_equal(saved.tensors[name], value.numpy())
    raw = {name: value for name, value in saved.training.items() if name.startswith("raw.")}
    assert set(raw) == {f"raw.{name}" for name, _ in network.named_parameters()}
    without, plain = small.small(), tmp_path / "plain"
    fit(without, small.stage(without, plain), CONFIG)
    for name, value in without.named_parameters():
        np.testing.assert_array_equal(raw[f"raw.{name}"], value.detach().numpy())


def judged_by(values: list[float], network: nn.Module, folder: Path) -> Stage:
    """A stage whose judge says these values, one after the other."""
    left = iter(values)
    return replace(small.stage(network, folder), judge=lambda _: Metric("success", next(left), "higher"))


def test_out_of_patience_it_ends_with_the_best_step(tmp_path: Path) -> None:
    config = replace(CONFIG, patience=2, keep_last=1)
    network = small.small()
    assert fit(network, judged_by([0.1, 0.3, 0.3, 0.2], network, tmp_path), replace(config, steps=80)) == Metric(
        "success", 0.3, "higher"
    )
    assert [step.name for step in saved_steps(tmp_path)] == ["step-00000020", "step-00000040"]
    best = load(tmp_path / "step-00000020")
    for name, value in network.state_dict().items():
        np.testing.assert_array_equal(best.tensors[name], value.numpy())
    again = small.small()
    assert fit(again, judged_by([], again, tmp_path), replace(config, steps=80)) == Metric("success", 0.3, "higher")
    assert small.digest(again) == small.digest(network)


def test_with_patience_left_it_ends_with_the_best_step_too(tmp_path: Path) -> None:
    network, config = small.small(), replace(CONFIG, patience=3)
    metric = fit(network, judged_by([0.1, 0.5, 0.2, 0.3], network, tmp_path), config)
    assert metric == Metric("success", 0.5, "higher")
    np.testing.assert_array_equal(
        load(tmp_path / "step-00000020").tensors["unused.weight"], network.unused.weight.detach().numpy()
    )


def test_patience_needs_something_to_be_judged_by(tmp_path: Path) -> None:
    network = small.small()
    stage = replace(small.stage(network, tmp_path), validation=None)
    with pytest.raises(ConfigError, match="patience=1 asks for data that is not learnt from"):
        fit(network, stage, replace(CONFIG, patience=1))


def test_the_judge_sees_the_settled_network_and_the_curves_still_show_the_validation_loss(tmp_path: Path) -> None:
    network, modes = small.small(), []

    def judge(seen: nn.Module) -> Metric:
        modes.append((seen.training, torch.is_grad_enabled()))
        return Metric("success", 0.5, "higher")

    metric = fit(network, replace(small.stage(network, tmp_path), judge=judge), CONFIG)
    assert metric == Metric("success", 0.5, "higher")
    assert modes == [(False, False)] * 4
    assert network.training
    (events,) = (tmp_path / "tensorboard").iterdir()
    for name in (b"validation_loss", b"success", b"waiting", b"error"):
        assert name in events.read_bytes()


def frozen_in_part(folder: Path) -> tuple[small.Small, Stage]:
    network = small.small()
    network.see.requires_grad_(False)
    stage = replace(small.stage(network, folder), trained_only=True)
    return network, replace(stage, parameters=[each for each in network.parameters() if each.requires_grad])


def test_steps_of_what_is_trained_hold_that_and_the_buffers_and_go_on_with_the_rest_in_place(tmp_path: Path) -> None:
    network, stage = frozen_in_part(tmp_path / "whole")
    fit(network, stage, CONFIG)
    held = load(tmp_path / "whole" / "step-00000040").tensors
    assert set(held) == {
        *("see.1.running_mean", "see.1.running_var", "see.1.num_batches_tracked"),
        *("decide.2.weight", "decide.2.bias", "unused.weight", "unused.bias"),
    }
    cut, stage = frozen_in_part(tmp_path / "cut")
    fit(cut, stage, replace(CONFIG, steps=30))
    cut, stage = frozen_in_part(tmp_path / "cut")
    steps = Steps(stage.folder, stage.made, Alone(), trained_only=True)
    assert steps.resume(cut, torch.optim.AdamW(stage.parameters))[0].step == 30
    for name in ("decide.2.weight", "see.1.running_mean"):
        np.testing.assert_array_equal(load(tmp_path / "cut" / "step-00000030").tensors[name], cut.state_dict()[name])
    assert torch.equal(cut.see[0].weight, small.small().see[0].weight)


def test_another_set_of_trained_parameters_is_refused(tmp_path: Path) -> None:
    network, stage = frozen_in_part(tmp_path)
    fit(network, stage, CONFIG)
    network.unused.requires_grad_(False)
    stage = replace(stage, parameters=[each for each in network.parameters() if each.requires_grad])
    with pytest.raises(CheckpointError, match=r"other sizes or parts \(it has unused.weight\)"):
        fit(network, stage, CONFIG)


def test_bfloat16_weights_come_back_as_they_were(tmp_path: Path) -> None:
    network = small.small().bfloat16()
    stage = small.stage(network, tmp_path)
    stage = replace(stage, draw=lambda rng, piece: small.draw(rng, piece).bfloat16(), validation=None)
    fit(network, stage, replace(CONFIG, steps=10))
    again = small.small().bfloat16()
    fit(again, replace(small.stage(again, tmp_path), validation=None), replace(CONFIG, steps=10))
    for name, value in network.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
        assert value.dtype == again.state_dict()[name].dtype
    with pytest.raises(ConfigError, match=r"ema averages weights of float32 and see\.0\.weight"):
        fit(network, stage, replace(CONFIG, steps=20, ema=0.9))


def test_a_draw_that_fails_ends_the_training_with_its_error_and_no_thread_stays(tmp_path: Path) -> None:
    def draw(rng: np.random.Generator, piece: Piece) -> Tensor:
        if rng.bit_generator.seed_seq.entropy[1] == 6:
            raise DatasetError("episode 3 is damaged")
        return small.draw(rng, piece)

    network, steps = small.small(), []
    stage = replace(small.stage(network, tmp_path, lambda: steps.append(1)), draw=draw)
    with pytest.raises(DatasetError, match="episode 3"):
        fit(network, stage, CONFIG)
    assert len(steps) == 6
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("draw-ahead")]


def test_too_little_memory_says_what_to_lower(tmp_path: Path) -> None:
    network = small.small()
    stage = small.stage(network, tmp_path, lambda: torch.empty(2**50))
    with pytest.raises(
        ConfigError, match=r"this machine has no memory for a batch of 4 with accumulate=1: lower batch"
    ):
        fit(network, stage, CONFIG)

    def out_of_memory() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(ConfigError, match="the GPU has no memory"):
        fit(network, small.stage(network, tmp_path, out_of_memory), CONFIG)


def test_another_error_of_the_loss_stays_what_it_is(tmp_path: Path) -> None:
    network = small.small()
    stage = small.stage(network, tmp_path, lambda: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="size"):
        fit(network, stage, CONFIG)


def test_fp16_asks_for_a_gpu(tmp_path: Path) -> None:
    network = small.small()
    with pytest.raises(ConfigError, match="precision=fp16 needs a GPU"):
        fit(network, small.stage(network, tmp_path), replace(CONFIG, precision="fp16"))


def test_the_line_tells_the_share_of_time_that_it_waits_for_data(tmp_path: Path) -> None:
    def slow(rng: np.random.Generator, piece: Piece) -> Tensor:
        time.sleep(0.05)
        return small.draw(rng, piece)

    network, said = small.small(), io.StringIO()
    with contextlib.redirect_stdout(said):
        fit(network, replace(small.stage(network, tmp_path), draw=slow, validation=None), replace(CONFIG, ahead=0))
    shares = [int(share) for share in re.findall(r"waits (\d+) %", said.getvalue())]
    assert shares
    assert 0 < shares[-1] <= 100


@given(st.integers(0, 10_000))
def test_the_learning_rate_rises_then_falls(step: int) -> None:
    config = LoopConfig(steps=10_000, batch=1, learning_rate=1.0, warmup=100)
    assert 0.0 < schedule(step, config) <= 1.0
    if step < 99:
        assert schedule(step, config) < schedule(step + 1, config)
    elif 100 <= step < 9_999:
        assert schedule(step, config) > schedule(step + 1, config)
