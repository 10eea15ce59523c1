from pathlib import Path

import numpy as np
import pytest
import torch

from evaluate.recordings import make_chunks, written
from mobile_vla.core import ActionContract, ConfigError, ContractMismatchError, DatasetError
from mobile_vla.engine.inputs import batched, driven_inputs, recorded_inputs
from mobile_vla.policy.compact import CompactConfig, CompactNetwork
from mobile_vla.policy.step import Inputs, step_of
from mobile_vla.policy.weights import SHIPPED, load_network, save_network

pytestmark = pytest.mark.needs("mujoco")


def same(one: Inputs, other: Inputs) -> bool:
    parts = ((each.pixels, *each.words, each.motion, each.history) for each in (one, other))
    return all(torch.equal(*pair) for pair in zip(*parts, strict=True))


def test_driven_ones_are_spread_over_drives_and_come_again(real: list[Inputs]) -> None:
    shapes = step_of(load_network(SHIPPED)).example()
    for each in real:
        assert (each.pixels.shape, each.pixels.dtype) == (shapes.pixels.shape, torch.uint8)
        assert [part.shape for part in each.words] == [part.shape for part in shapes.words]
        assert (each.motion.shape, each.history.shape) == (shapes.motion.shape, shapes.history.shape)
    instructions = {each.words[0].numpy().tobytes() for each in real}
    assert len(instructions) >= 10
    assert sum(not each.history.any() for each in real) >= 10  # the first decision of each drive is among them
    assert len({each.pixels.numpy().tobytes() for each in real}) > 0.7 * len(real)


def test_one_seed_is_one_set() -> None:
    told: list[tuple[int, int]] = []
    first = driven_inputs(SHIPPED, 2, 77, lambda done, total: told.append((done, total)))
    assert told == [(0, 2), (1, 2), (2, 2)]
    again, other = driven_inputs(SHIPPED, 2, 77), driven_inputs(SHIPPED, 2, 78)
    assert len(first) == 2
    assert all(same(*pair) for pair in zip(first, again, strict=True))
    assert not any(same(*pair) for pair in zip(first, other, strict=True))


def test_recorded_ones_come_from_the_data(tmp_path: Path) -> None:
    written(tmp_path / "data", make_chunks(episodes=6), lambda number: "go to the red cup")
    first, again = (recorded_inputs(SHIPPED, tmp_path / "data", 12, 3) for _ in range(2))
    assert len(first) == 12
    assert all(same(*pair) for pair in zip(first, again, strict=True))
    assert any(each.motion.any() for each in first)
    with pytest.raises(DatasetError, match="decisions of use in 6 episodes, 1000 are needed"):
        recorded_inputs(SHIPPED, tmp_path / "data", 1000)


def test_recorded_ones_of_another_contract_or_in_words_of_no_use_are_refused(tmp_path: Path) -> None:
    written(tmp_path / "data", make_chunks(episodes=2), lambda number: "go " * 60)
    with pytest.raises(DatasetError, match=r"the instruction of episode \d of .* is of no use"):
        recorded_inputs(SHIPPED, tmp_path / "data", 4)
    other = CompactNetwork(CompactConfig(memory=8, words=8), ActionContract(limits=(1.0, 1.0, 2.0)))
    save_network(tmp_path / "other", other, {})
    with pytest.raises(ContractMismatchError, match="limits"):
        recorded_inputs(tmp_path / "other", tmp_path / "data", 4)


@pytest.mark.parametrize("collect", [driven_inputs, lambda *given: recorded_inputs(given[0], given[0], given[1])])
def test_none_show_nothing(collect: object, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, DatasetError)):
        collect(SHIPPED, 0)  # type: ignore[operator]


def test_a_batch_holds_its_sessions_in_order(real: list[Inputs]) -> None:
    together = batched(real[3:6])
    assert together.pixels.shape[0] == together.motion.shape[0] == together.history.shape[0] == 3
    np.testing.assert_array_equal(together.pixels[1].numpy(), real[4].pixels[0].numpy())
    np.testing.assert_array_equal(together.words[0][2].numpy(), real[5].words[0][0].numpy())
