import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mobile_vla.checkpoint import load
from mobile_vla.core import ConfigError
from mobile_vla.train.spread import Alone, Spread, launched

from . import spreading
from .spreading import BATCH, CONFIG, LIMIT_S, Shared

pytestmark = pytest.mark.timeout(1500)
TESTS = Path(__file__).parents[1]
CLOSE = {"rtol": 2e-3, "atol": 2e-4}


@dataclass(frozen=True)
class Played:
    """The runs of ``spreading`` by name: how each process ended."""

    folder: Path
    ended: dict[str, list[dict[str, Any] | None]]

    def only(self, name: str) -> list[dict[str, Any]]:
        """Of the processes that were not killed."""
        return [each for each in self.ended[name] if each is not None]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    folder = tmp_path_factory.mktemp("spread")
    script = [sys.executable, "-W", "error", "-m", "train.spreading", str(folder)]
    done = subprocess.run(script, cwd=TESTS, check=True, capture_output=True, text=True, timeout=1400)
    runs = [json.loads(line) for line in done.stdout.splitlines()]
    return Played(folder, {run["name"]: run["ended"] for run in runs})


def curve(processes: list[dict[str, Any]]) -> np.ndarray:
    """The loss of each step, over all passes of all processes."""
    passes = len(processes[0]["curve"]) // CONFIG.steps or 1
    return np.mean([np.reshape(each["curve"], (-1, passes)).mean(1) for each in processes], axis=0)


def same_result(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    assert [each["error"] for each in (*one, *other)] == [""] * len((*one, *other))
    np.testing.assert_allclose(one[0]["weights"], other[0]["weights"], **CLOSE)
    for each in (*one, *other):
        assert each["metric"]["name"] == one[0]["metric"]["name"]
        assert each["metric"]["value"] == pytest.approx(one[0]["metric"]["value"], rel=1e-3)


@pytest.mark.parametrize("name", ["alone in passes", "ddp", "ddp in passes", "fsdp2", "fsdp2 in passes"])
def test_the_same_batches_give_the_same_curve_and_weights_however_they_are_cut(played: Played, name: str) -> None:
    alone, spread = played.only("alone"), played.only(name)
    same_result(alone, spread)
    assert len(curve(alone)) == CONFIG.steps
    np.testing.assert_allclose(curve(alone), curve(spread), **CLOSE)


@pytest.mark.parametrize(
    ("killed", "resumed"),
    [
        ("ddp killed", "ddp, then fsdp2"),
        ("fsdp2 killed", "fsdp2, then alone"),
        ("alone killed", "alone, then ddp"),
        ("first killed", "fsdp2, then ddp"),
        ("trained only killed", "trained only, then ddp"),
    ],
)
def test_killed_in_the_middle_it_goes_on_in_any_number_of_processes(played: Played, killed: str, resumed: str) -> None:
    assert None in played.ended[killed]
    alone, after = played.only("alone"), played.only(resumed)
    same_result(alone, after)
    np.testing.assert_allclose(curve(alone)[CONFIG.save_every :], curve(after), **CLOSE)


def test_the_average_and_what_it_was_made_of_go_on_too(played: Played) -> None:
    alone = played.only("average alone")
    assert None in played.ended["average fsdp2 killed"]
    same_result(alone, played.only("average, then fsdp2"))
    assert alone[0]["metric"]["name"] == "success"
    assert not np.allclose(alone[0]["weights"], played.only("alone")[0]["weights"], **CLOSE)


def test_two_stages_of_one_network_one_after_the_other(played: Played) -> None:
    alone = played.only("two stages alone")
    same_result(alone, played.only("two stages ddp"))
    same_result(alone, played.only("two stages fsdp2"))


@pytest.mark.parametrize("name", ["ddp killed", "fsdp2 killed", "first killed"])
def test_a_process_that_dies_ends_the_others_with_a_sentence(played: Played, name: str) -> None:
    (left,) = played.only(name)
    assert left["error"].startswith("TrainingError: another process of this training ended")
    assert left["error"].endswith("the same command, given again, goes on at the last whole step")


def test_an_error_of_one_process_is_said_once_and_ends_all(played: Played) -> None:
    errors = [each["error"] for each in played.only("a draw fails")]
    assert sorted(errors) == ["SystemExit: 1", "ValueError: no such file"]
    (said,) = [each["error"] for each in played.only("uneven") if each["error"] != "SystemExit: 1"]
    assert said.startswith("ConfigError: a batch of 7 cannot be cut into 2 equal pieces")
    assert "set batch to 6 or 8" in said


def test_the_first_process_alone_speaks_and_writes(played: Played) -> None:
    for name in ("ddp", "fsdp2"):
        first, second = played.only(name)
        assert "waits" in first["said"]
        assert second["said"] == ""
        (events,) = (played.folder / name / "parts" / "tensorboard").iterdir()
        assert events.stat().st_size > 0


def test_a_step_of_many_processes_is_one_like_any_other(played: Played) -> None:
    alone, many = (load(played.folder / name / "parts" / "step-00000008", training=True) for name in ("alone", "fsdp2"))
    assert set(alone.tensors) == set(many.tensors) == set(spreading.shared().state_dict())
    assert set(alone.training) == set(many.training)
    for name, value in alone.tensors.items():
        assert value.dtype == many.tensors[name].dtype
        np.testing.assert_allclose(value, many.tensors[name], **CLOSE)


def test_a_step_of_what_is_trained_holds_no_more(played: Played) -> None:
    held = load(played.folder / "f" / "parts" / "step-00000008").tensors
    network = spreading.shared()
    trained = {name for name, each in network.named_parameters() if each.requires_grad}
    assert set(held) == trained | {"scale", "flags"}


def test_torchrun_starts_it(tmp_path: Path, played: Played) -> None:
    script = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script += ["-m", "train.spreading", str(tmp_path), "ddp"]
    done = subprocess.run(script, cwd=TESTS, check=True, capture_output=True, text=True, timeout=900)
    ended = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(ended) == 2
    same_result(played.only("alone"), sorted(ended, key=lambda each: -len(each["said"])))


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert launched() == 0
    assert Spread.from_environment("ddp") is None


def test_a_kind_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"by ddp or by fsdp2, not by 'fsdp'"):
        Spread.from_environment("fsdp")  # type: ignore[arg-type]


@pytest.fixture
def one_of_one(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Spread]:
    """Makes a Spread of this process alone."""
    places = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    for name, value in places.items():
        monkeypatch.setenv(name, value)

    def make(*arguments: Any) -> Spread:
        spread = Spread.from_environment(*arguments, limit_s=LIMIT_S)
        assert spread is not None
        return spread

    return make


def test_a_single_number_that_learns_cannot_be_sharded(one_of_one: Callable[..., Spread]) -> None:
    network = Shared()
    network.number.requires_grad_(True)
    with one_of_one("fsdp2") as spread, pytest.raises(ConfigError, match=r"fsdp2 cannot shard number"):
        spread.wrap(network, spreading.error)


def test_tensors_go_out_and_come_back_as_they_were(one_of_one: Callable[..., Spread]) -> None:
    with one_of_one("fsdp2", lambda module: isinstance(module, spreading.Block)) as spread:
        network = spreading.shared()
        before = {name: value.clone() for name, value in network.state_dict().items()}
        spread.wrap(network, spreading.error)
        for name, value in network.state_dict().items():
            assert torch.equal(spread.gather(value), before[name])
            spread.fill(value, torch.zeros_like(before[name]))
            assert not spread.gather(value).any()
            spread.fill(value, before[name])
            assert torch.equal(spread.gather(value), before[name])
        assert spread.mean({"a": 2.0}) == {"a": 2.0}
        assert spread.tell("word") == "word"
        spread.barrier()
    assert not torch.distributed.is_initialized()


def test_alone_it_is_all_the_same() -> None:
    alone, network = Alone(), spreading.shared()
    assert alone.is_first
    assert alone.tell(3) == 3
    assert alone.mean({"a": 2.0}) == {"a": 2.0}
    with alone.whole(network) as whole:
        assert whole is network
    target = torch.zeros(2)
    alone.fill(target, torch.ones(2))
    assert torch.equal(alone.gather(target), torch.ones(2))
    alone.fill(target, None)
    assert torch.equal(target, torch.ones(2))
    alone.barrier()


def test_pieces_are_the_batch() -> None:
    batch, _ = spreading.draw(np.random.default_rng(3), spreading.Piece())
    parts = [spreading.draw(np.random.default_rng(3), spreading.Piece(place, 4))[0] for place in range(4)]
    assert torch.equal(torch.cat(parts), batch)
    assert len(batch) == BATCH
    assert "MASTER_ADDR" not in os.environ
