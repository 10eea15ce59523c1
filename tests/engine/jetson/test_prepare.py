"""Folders for a Jetson: whole, able to stand alone, and proven by ONNX Runtime in TensorRT's place."""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.jetson.conftest import REPLACING
from engine.jetson.runners import GraphRunner
from mobile_vla.core import CheckpointError, ConfigError
from mobile_vla.engine.backends.base import Opening
from mobile_vla.engine.backends.torch_ import TorchBackend
from mobile_vla.engine.fingerprint import fingerprint
from mobile_vla.engine.folder import is_engine, open_engine, read_engine
from mobile_vla.engine.jetson.build_engine import __main__ as command
from mobile_vla.engine.jetson.build_engine.check import References, compare, exceeded
from mobile_vla.engine.jetson.build_engine.finish import PLAN, PLAN_MACHINE, read_draft
from mobile_vla.engine.jetson.build_engine.work import examine
from mobile_vla.engine.jetson.graph import batches
from mobile_vla.engine.jetson.plain import PRECISIONS
from mobile_vla.engine.jetson.prepare import BUILDER, REFERENCES, TOLERANCES, prepare_for_jetson, references
from mobile_vla.engine.onnx_ import GRAPH
from mobile_vla.policy.step import Inputs, step_of
from mobile_vla.policy.weights import SHIPPED, load_network

pytestmark = pytest.mark.timeout(900)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_agrees_within_its_tolerance(folders, precision: str) -> None:
    folder = folders(precision)
    found = compare(GraphRunner(folder / GRAPH), References(folder / REFERENCES))
    assert exceeded(found, TOLERANCES[precision]) == []
    if precision != "fp32":
        assert found["chunk_worst"] > 1e-5, "it is another precision indeed"


def test_references_are_what_pytorch_says(frames: list[Inputs], tmp_path: Path) -> None:
    np.savez(tmp_path / "kept.npz", **references(step_of(load_network(SHIPPED)), frames))
    kept = References(tmp_path / "kept.npz")
    assert len(kept) == len(frames)
    step = step_of(load_network(SHIPPED))
    engine = TorchBackend().open(Opening(step, "fp32", 1, SHIPPED))
    for frame, inputs, chunk, history in zip(
        frames, kept, kept.outputs["chunk"], kept.outputs["next_history"], strict=True
    ):
        assert np.array_equal(inputs["pixels"], frame.pixels.numpy())
        assert np.array_equal(inputs["words_0"], frame.words[0].numpy())
        decided = engine.decide(frame.pixels.numpy(), [tuple(each.numpy() for each in frame.words)],
                                frame.motion.numpy(), [frame.history.numpy()])  # fmt: skip
        np.testing.assert_allclose(chunk, decided.chunk, atol=1e-5)
        np.testing.assert_allclose(history, decided.histories[0], atol=1e-5)


def test_an_instruction_is_kept_once(folders, frames: list[Inputs]) -> None:
    with np.load(folders("fp16") / REFERENCES) as kept:
        told = {each.words[0].numpy().tobytes() for each in frames}
        assert 1 < len(kept["input.words_0"]) == len(told) < len(frames)
        assert kept["which.words_0"].shape == (len(frames),)


def test_batches_go_round(frames: list[Inputs]) -> None:
    made = batches(frames, 3)
    assert len(made) == len(frames)
    assert made[-1].pixels.shape[0] == 3
    assert torch.equal(made[-1].pixels[0], frames[-1].pixels[0])
    assert torch.equal(made[-1].motion[1], frames[0].motion[0])
    assert batches(frames, 1) == frames


def test_what_is_copied_stands_alone(folder: Path) -> None:
    sources = sorted((folder / BUILDER).glob("*.py"))
    for source in sources:
        tree = ast.parse(source.read_text(encoding="utf-8"), feature_version=(3, 10))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                assert {each.name.partition(".")[0] for each in node.names} <= {*sys.stdlib_module_names, "numpy"}
            if isinstance(node, ast.ImportFrom) and not node.level:
                assert node.module.partition(".")[0] in {*sys.stdlib_module_names, "numpy"}
    program = (
        "import sys; sys.path.insert(0, '.')\nimport build_engine.__main__ as command\n"
        "assert not [name for name in sys.modules if name.startswith(('torch', 'mobile_vla'))]\n"
        "sys.modules['tensorrt'] = None\nsys.exit(command.main([]))"
    )
    answer = subprocess.run(
        [sys.executable, "-I", "-c", program], cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )
    assert answer.returncode == 2, answer.stderr
    assert answer.stderr.startswith("build_engine: TensorRT cannot be imported")
    assert answer.stderr.count("\n") == 1
    assert "building compact in fp16" in answer.stdout


def test_a_checked_folder_is_an_engine_of_this_machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ONNX Runtime in TensorRT's place; what the plan's file holds, nothing here asks."""
    (folder / PLAN).write_bytes(b"a plan")
    (folder / PLAN_MACHINE).write_text(json.dumps({"gpu": "Orin"}))
    assert not is_engine(folder)
    wrong = examine(folder, read_draft(folder), GraphRunner(folder / GRAPH), {"power_mode": "MAXN"}, 2, 10)
    assert wrong == []
    manifest = read_engine(folder)
    assert (manifest.engine, manifest.precision, manifest.sessions, manifest.policy) == (
        "tensorrt",
        "fp16",
        1,
        "compact",
    )
    assert manifest.machine.differences(fingerprint(())) == []
    assert set(manifest.files) == {PLAN, PLAN_MACHINE}
    assert manifest.notes["by"] == "a test"
    assert manifest.notes["power_mode"] == "MAXN"
    assert manifest.notes["timing"]["steady"]["times"] == 10
    assert manifest.parameters == sum(each.numel() for each in step_of(load_network(SHIPPED)).parameters())
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(ConfigError, match=r"the engine tensorrt cannot run in fp16 here: TensorRT cannot be imported"):
        open_engine(folder)


def test_an_engine_that_differs_too_much_is_none(folder: Path, folders) -> None:
    draft = read_draft(folder)
    draft["tolerances"] = {"chunk_worst": 1e-9, "status_equal": 1.0}
    wrong = examine(folder, draft, GraphRunner(folders("int8") / GRAPH), {}, 0, 1)
    assert len(wrong) >= 1
    assert wrong[0].startswith("chunk_worst is ")
    assert not is_engine(folder)


def test_a_failed_build_takes_the_old_engine_with_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "engine.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert command.main(["--folder", str(folder)]) == 2
    assert not is_engine(folder)


@pytest.mark.parametrize("name", [GRAPH, REFERENCES, f"{BUILDER}/check.py"])
def test_a_folder_that_was_copied_badly_is_refused(folder: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    assert command.main(["--folder", str(folder)]) == 2
    assert f"{folder / name} is not what was exported: copy the folder again" in capsys.readouterr().err
    (folder / name).unlink()
    assert command.main(["--folder", str(folder)]) == 2
    assert f"{folder / name} cannot be read" in capsys.readouterr().err


def test_a_folder_takes_the_place_of_an_older_one_and_of_nothing_else(
    folders, frames: list[Inputs], tmp_path: Path
) -> None:
    folder = folders(REPLACING)
    assert read_draft(folder)["manifest"]["precision"] == REPLACING
    assert [each.name for each in folder.parent.iterdir()] == [REPLACING], "nothing half made is left"
    assert not (folder / "old").exists()
    other = tmp_path / "mine"
    other.mkdir()
    (other / "thesis.txt").touch()
    with pytest.raises(ConfigError, match="holds something that is no engine"):
        prepare_for_jetson(SHIPPED, other, frames[:1])
    assert [each.name for each in other.iterdir()] == ["thesis.txt"]


def test_what_makes_no_sense_is_refused(tmp_path: Path, frames: list[Inputs]) -> None:
    with pytest.raises(ConfigError, match="at least one session, and at least one frame"):
        prepare_for_jetson(SHIPPED, tmp_path / "out", [])
    with pytest.raises(ConfigError, match="at least one session"):
        prepare_for_jetson(SHIPPED, tmp_path / "out", frames, sessions=0)
    with pytest.raises(ConfigError, match="no precision 'fp8'"):
        prepare_for_jetson(SHIPPED, tmp_path / "out", frames, "fp8")
    with pytest.raises(CheckpointError):
        prepare_for_jetson(tmp_path / "nothing", tmp_path / "out", frames)
    assert not list(tmp_path.iterdir())


def test_a_copy_of_the_checkpoint_goes_along(folder: Path) -> None:
    for each in SHIPPED.iterdir():
        if each.is_file() and (folder / "checkpoint" / each.name).exists():
            assert (folder / "checkpoint" / each.name).read_bytes() == each.read_bytes()
    load_network(folder / "checkpoint")
    shutil.rmtree(folder)
