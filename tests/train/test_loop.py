from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mobile_vla.train.loop import LoopConfig, fit, schedule

CONFIG = LoopConfig(steps=40, batch=8, learning_rate=0.01, warmup=5, save_every=10)


class Killed(BaseException):
    """Stands for a kill: nothing in the loop may catch it."""


def train(folder: Path, kill_at: int | None = None) -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.2), nn.Tanh(), nn.Linear(8, 1))
    calls = 0

    def loss(rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        nonlocal calls
        calls += 1
        if kill_at is not None and calls > kill_at:
            raise Killed
        x = torch.from_numpy(rng.normal(size=(CONFIG.batch, 3))).float()
        error = (network(x) - x.sum(1, keepdim=True)).square().mean()
        return error, {"error": error.item()}

    fit(network, list(network.parameters()), loss, CONFIG, folder, seed=7, name="test")
    return network


@pytest.mark.parametrize("kill_at", [3, 10, 27, 39])
def test_killed_and_started_again_it_ends_with_the_same_weights(tmp_path: Path, kill_at: int) -> None:
    whole = train(tmp_path / "whole")
    with pytest.raises(Killed):
        train(tmp_path / "cut", kill_at)
    resumed = train(tmp_path / "cut")
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_gradient_that_is_not_finite_stops_the_training(tmp_path: Path) -> None:
    network = nn.Linear(1, 1)

    def loss(rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        return network(torch.tensor([[float("inf")]])).sum(), {}

    with pytest.raises(FloatingPointError, match="step 0"):
        fit(network, list(network.parameters()), loss, CONFIG, tmp_path, seed=1, name="test")


@given(st.integers(0, 10_000))
def test_the_learning_rate_rises_then_falls(step: int) -> None:
    config = LoopConfig(steps=10_000, batch=1, learning_rate=1.0, warmup=100)
    assert 0.0 < schedule(step, config) <= 1.0
    if step < 99:
        assert schedule(step, config) < schedule(step + 1, config)
    elif 100 <= step < 9_999:
        assert schedule(step, config) > schedule(step + 1, config)
