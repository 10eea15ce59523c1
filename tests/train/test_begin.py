import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from mobile_vla.checkpoint import load
from mobile_vla.core import ActionContract, CheckpointError, DamagedCheckpointError
from mobile_vla.policy.compact import CompactConfig, CompactNetwork
from mobile_vla.policy.weights import save_network
from mobile_vla.train.begin import FIRST_PARTS, begin

TINY = CompactConfig(stem=4, middle=8, top=16, embedding=8, column=4, words=16, memory=16)


def tiny(seed: int, config: CompactConfig = TINY) -> CompactNetwork:
    torch.manual_seed(seed)
    return CompactNetwork(config, ActionContract())


def same(one: CompactNetwork, other: CompactNetwork) -> bool:
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    save_network(tmp_path / "source", tiny(5), {})
    return tmp_path / "source"


@pytest.fixture
def begun(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A run's folder that began with the source."""
    begin(tiny(1), tmp_path / "run", source, {"config": "as it was"})
    assert f"tensors are taken from {source}" in capsys.readouterr().out
    return tmp_path / "run"


def start_of(folder: Path) -> Path:
    (start,) = folder.glob("start-*")
    return start


def test_without_a_checkpoint_the_network_stays_as_it_was_drawn(tmp_path: Path) -> None:
    network = tiny(1)
    assert begin(network, tmp_path / "run", None, {}) is None
    assert same(network, tiny(1))


def test_what_it_began_with_is_kept_with_where_it_came_from(begun: Path, source: Path) -> None:
    kept = load(start_of(begun)).origin
    assert kept["config"] == "as it was"
    assert kept["init_from"]["path"] == str(source)
    shutil.rmtree(source)
    for option in (None, source):
        network = tiny(2)
        assert begin(network, begun, option, {}) == kept["init_from"]
        assert same(network, tiny(5))


def test_the_same_weights_from_elsewhere_are_the_same(begun: Path, source: Path) -> None:
    moved = source.rename(source.with_name("moved"))
    network = tiny(2)
    record: Any = begin(network, begun, moved, {})
    assert record["path"] == str(source)
    assert same(network, tiny(5))


def test_other_weights_are_refused(begun: Path, source: Path) -> None:
    save_network(source.with_name("other"), tiny(6), {})
    with pytest.raises(CheckpointError, match=r"began with .*source, and .*other holds other weights.*another folder"):
        begin(tiny(1), begun, source.with_name("other"), {})
    save_network(source, tiny(6), {})
    with pytest.raises(CheckpointError, match="holds other weights"):
        begin(tiny(1), begun, source, {})


@pytest.mark.parametrize("saved", ["see", "read.parts/step-00000500"])
def test_a_run_that_began_without_one_is_refused(tmp_path: Path, source: Path, saved: str) -> None:
    save_network(tmp_path / "run" / saved, tiny(1), {})
    with pytest.raises(CheckpointError, match=r"began without --init-from .*leave the option out"):
        begin(tiny(1), tmp_path / "run", source, {})


def test_data_alone_is_no_beginning(tmp_path: Path, source: Path) -> None:
    (tmp_path / "run" / "data" / "survey").mkdir(parents=True)
    assert begin(tiny(1), tmp_path / "run", source, {}) is not None


def test_a_save_of_the_start_that_did_not_end_is_no_beginning(begun: Path, source: Path) -> None:
    (start_of(begun) / "manifest.json").unlink()
    network = tiny(1)
    assert begin(network, begun, None, {}) is None
    assert begin(network, begun, source, {}) is not None
    assert same(network, tiny(5))


def test_a_network_of_other_sizes_is_refused(begun: Path) -> None:
    with pytest.raises(CheckpointError, match="network of other sizes"):
        begin(tiny(1, CompactConfig(memory=8)), begun, None, {})


def test_a_damaged_start_is_taken_again_where_it_is_given(begun: Path, source: Path) -> None:
    flip_a_bit(start_of(begun) / "weights.safetensors")
    with pytest.raises(DamagedCheckpointError, match="give --init-from again"):
        begin(tiny(1), begun, None, {})
    save_network(source.with_name("other"), tiny(6), {})
    with pytest.raises(CheckpointError, match="holds other weights"):
        begin(tiny(1), begun, source.with_name("other"), {})
    network = tiny(1)
    begin(network, begun, source, {})
    assert same(network, tiny(5))
    assert begin(tiny(1), begun, None, {}) is not None


def test_a_damaged_start_is_needed_no_more_once_a_step_is_whole(
    begun: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = load(start_of(begun)).origin["init_from"]
    save_network(begun / FIRST_PARTS / "step-00000500", tiny(7), {"init_from": record})
    flip_a_bit(start_of(begun) / "manifest.json")
    assert begin(tiny(1), begun, None, {}) == record
    assert "needed no more" in capsys.readouterr().out
