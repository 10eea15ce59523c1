"""Graphs: as the step they were made from, in silence, whole."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.little import little
from mobile_vla.core import ActionContract, CheckpointError
from mobile_vla.engine import onnx_
from mobile_vla.engine.folder import count_parameters
from mobile_vla.engine.onnx_ import OUTPUTS, arrays, graph_parameters, input_names, write_graph
from mobile_vla.policy.compact import CompactConfig, CompactNetwork
from mobile_vla.policy.step import DecisionStep, Inputs, step_of
from mobile_vla.policy.weights import SHIPPED, load_network

pytestmark = [pytest.mark.timeout(1800), pytest.mark.needs("onnx"), pytest.mark.needs("onnxruntime")]


def small_step() -> DecisionStep:
    torch.manual_seed(1)
    sizes = CompactConfig(stem=4, middle=8, top=16, embedding=8, column=4, words=16, memory=16)
    return step_of(CompactNetwork(sizes, ActionContract()))


def drawn(step: DecisionStep, sessions: int) -> Inputs:
    generator = torch.Generator().manual_seed(2)
    pixels, words, motion, history = step.example(sessions)
    return Inputs(
        torch.randint(0, 256, pixels.shape, dtype=torch.uint8, generator=generator),
        words,
        torch.randn(motion.shape, generator=generator),
        0.3 * torch.randn(history.shape, generator=generator),
    )


def require_equal(step: DecisionStep, path: Path, sessions: int) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    inputs = drawn(step, sessions)
    given = session.run(OUTPUTS, arrays(inputs, input_names(step)))
    with torch.no_grad():
        wanted = step(*inputs)
    for one, other in zip(wanted, given, strict=True):
        np.testing.assert_allclose(other, one.numpy(), atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("case", ["kosmos_clip", "clip_lstm, without end"])
def test_the_graph_of_a_full_size_kind_is_its_step(case: str, tmp_path: Path) -> None:
    step = step_of(little(case))
    write_graph(step, tmp_path / "step.onnx")
    require_equal(step, tmp_path / "step.onnx", 1)


def test_the_graph_of_a_compact_one_is_its_step_and_is_made_in_silence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    step = small_step()
    write_graph(step, tmp_path / "step.onnx", 3)
    assert capfd.readouterr() == ("", "")
    assert [each.name for each in tmp_path.iterdir()] == ["step.onnx"]
    require_equal(step, tmp_path / "step.onnx", 3)


@pytest.mark.needs("mujoco")
def test_the_weights_of_a_graph_tell_what_it_was_made_of(graph: Callable[[str], Path], tmp_path: Path) -> None:
    own = count_parameters(step_of(load_network(SHIPPED)))
    for precision in ("fp32", "int8"):
        assert own <= graph_parameters(graph(precision)) <= 1.02 * own
    write_graph(small_step(), tmp_path / "small.onnx")
    assert graph_parameters(tmp_path / "small.onnx") < 0.1 * own


def test_large_weights_stand_beside_their_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_, "LARGE", 10_000)
    step = small_step()
    write_graph(step, tmp_path / "step.onnx")
    assert (tmp_path / "step.onnx.data").stat().st_size > 10_000
    require_equal(step, tmp_path / "step.onnx", 1)
    assert graph_parameters(tmp_path / "step.onnx") >= count_parameters(step)


def test_what_is_no_graph_and_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "other.onnx").write_bytes(b"\xff" * 100)
    with pytest.raises(CheckpointError, match=r"other\.onnx is no ONNX graph .*export the engine again"):
        graph_parameters(tmp_path / "other.onnx")
    with pytest.raises(CheckpointError, match="cannot write"):
        write_graph(small_step(), tmp_path / "nowhere" / "step.onnx")
