import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mobile_vla.core import ConfigError
from mobile_vla.train.ema import Average


def parameter(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values))


@given(st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=30), st.floats(0.1, 0.999))
def test_it_is_the_average_that_its_decay_says(values: list[float], decay: float) -> None:
    weight, expected = parameter(1.0), 1.0
    average = Average({"weight": weight}, decay)
    for step, value in enumerate(values):
        with torch.no_grad():
            weight.fill_(value)
        average.update(step)
        share = min(decay, (1 + step) / (10 + step))
        expected = share * expected + (1 - share) * value
    with average.applied():
        assert weight.item() == pytest.approx(expected, abs=1e-4)
        assert average.raw["weight"].item() == values[-1]
    assert weight.item() == values[-1]
    assert average.raw == {}


def test_the_weights_come_back_though_something_fails_meanwhile() -> None:
    weight = parameter(1.0, 2.0)
    average = Average({"weight": weight}, 0.5)
    with torch.no_grad():
        weight.fill_(5.0)

    def judge() -> None:
        assert weight.tolist() == [1.0, 2.0]
        raise KeyError

    with pytest.raises(KeyError), average.applied():
        judge()
    assert weight.tolist() == [5.0, 5.0]


def test_without_a_decay_there_is_none_whatever_the_weights_are() -> None:
    weight = nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    average = Average({"weight": weight}, 0.0)
    average.update(0)
    with average.applied():
        assert average.raw == {}
    assert weight.tolist() == [1.0, 1.0]


def test_narrow_weights_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"a\.weight is of torch\.float16"):
        Average({"a.weight": nn.Parameter(torch.ones(1, dtype=torch.float16))}, 0.9)
