import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from engine.small import checkpoint
from mobile_vla.core import CheckpointError, ConfigError
from mobile_vla.engine.bench.footprint import main
from mobile_vla.engine.bench.subject import Choice, Subject, choose, footprint, open_subject


def test_engines_have_all_their_precisions_unless_some_are_named() -> None:
    assert choose(["torch"], []) == Choice((("torch", "fp32"), ("torch", "bf16")))
    assert choose(["torch", "torch"], ["bf16"]) == Choice((("torch", "bf16"),))


def test_all_engines_are_those_that_run_here_and_the_others_say_why_not() -> None:
    choice = choose(["all"], ["fp32"])
    assert ("torch", "fp32") in choice.wanted
    assert {precision for _, precision in choice.wanted} == {"fp32"}
    assert all(each.why for each in choice.left_out)
    assert not {each.engine for each in choice.left_out} & {engine for engine, _ in choice.wanted}


@pytest.mark.parametrize(
    ("engines", "precisions", "words"),
    [
        (["torsh"], [], "there is no engine called 'torsh'.*torch"),
        (["torch"], ["int4"], "torch cannot compute in 'int4': choose among bf16, fp32"),
        (["all"], ["fp7"], "all cannot compute in 'fp7'"),
    ],
)
def test_what_there_is_not_is_refused(engines: list[str], precisions: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        choose(engines, precisions)


def test_an_engine_that_cannot_run_here_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    from mobile_vla.engine.backends.torch_ import TorchBackend

    monkeypatch.setattr(TorchBackend, "unusable", lambda self, precision: "its arithmetic is missing")
    with pytest.raises(ConfigError, match="the engine torch cannot run here: its arithmetic is missing"):
        choose(["torch"], [])
    assert {each.why for each in choose(["all"], []).left_out if each.engine == "torch"} == {
        "its arithmetic is missing"
    }


def test_the_memory_is_that_of_a_process_of_its_own(tmp_path: Path) -> None:
    found = footprint(Subject("checkpoint", "fp32", str(checkpoint(tmp_path / "slim"))), (64, 48))
    assert 20 * 2**20 < found.before < found.opening
    assert found.deciding > found.before / 2
    assert (found.device_opening, found.device_deciding) == (None, None)
    assert json.loads(json.dumps(found.to_dict())) == asdict(found)


def test_what_cannot_be_opened_elsewhere_gives_its_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"checkpoint fp32 fails in a process of its own: no checkpoint at .*gone"
    ):
        footprint(Subject("checkpoint", "fp32", str(tmp_path / "gone")), (64, 48))


def test_the_process_asks_for_its_subject(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["footprint"])
    assert main() == 2
    assert capsys.readouterr().err.startswith("usage: ")


def test_random_weights_open_in_any_engine_at_full_size() -> None:
    policy = open_subject(Subject("torch", "bf16", random="compact"))
    assert policy.contract.horizon == 8


def test_pytorch_on_a_gpu_needs_one() -> None:
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="the engine eager-cuda cannot run here: PyTorch finds no CUDA device"):
            choose(["eager-cuda"], [])
    assert Subject("eager-cuda", "fp32", random="clip_lstm").device == "cuda"
