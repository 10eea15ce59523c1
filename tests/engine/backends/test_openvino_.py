import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.backends.arrays import Conformance, decided
from engine.cpu import Graph, opened
from mobile_vla.core import CheckpointError
from mobile_vla.engine.backends import backend
from mobile_vla.engine.backends.base import Opening
from mobile_vla.engine.folder import count_parameters
from mobile_vla.policy.step import Inputs, step_of
from mobile_vla.policy.weights import SHIPPED, load_network

pytestmark = [
    pytest.mark.timeout(1800),
    *map(pytest.mark.needs, ("mujoco", "onnx", "onnxruntime", "onnxscript", "openvino")),
]


class TestOpenVino(Conformance):
    name = "openvino"


def test_its_model_holds_the_policys_weights(graph: Graph, tmp_path: Path) -> None:
    from mobile_vla.engine.backends.openvino_ import MODEL, model_parameters, write_model

    own = count_parameters(step_of(load_network(SHIPPED)))
    for precision in ("fp32", "int8"):
        write_model(graph(precision, 1), tmp_path / MODEL)
        assert own <= model_parameters(tmp_path / MODEL) <= 1.02 * own
    assert sorted(each.name for each in tmp_path.iterdir()) == ["decision.bin", MODEL]


def test_a_damaged_model_and_one_for_other_sessions_are_refused(graph: Graph, tmp_path: Path) -> None:
    from mobile_vla.engine.backends.openvino_ import MODEL, model_parameters, write_model

    step, runs = step_of(load_network(SHIPPED)), backend("openvino")
    write_model(graph("fp32", 1), tmp_path / MODEL)
    with pytest.raises(CheckpointError, match=r"takes pixels 1x96x192x3, .*decision takes pixels 4x96x192x3"):
        runs.open(Opening(step, "fp32", 4, tmp_path))
    text = (tmp_path / MODEL).read_bytes()
    (tmp_path / MODEL).write_bytes(text[: len(text) // 2])
    for use in (lambda: runs.open(Opening(step, "fp32", 1, tmp_path)), lambda: model_parameters(tmp_path / MODEL)):
        with pytest.raises(CheckpointError, match=r"decision\.xml cannot be read by OpenVINO .*: export"):
            use()
    (tmp_path / "no.onnx").write_bytes(b"\0" * 10)
    with pytest.raises(CheckpointError, match=r"OpenVINO cannot make .*decision\.xml of no\.onnx"):
        write_model(tmp_path / "no.onnx", tmp_path / MODEL)


NO_NETWORK = """
import sys
told = []
sys.addaudithook(lambda event, args: told.append(event) if event.startswith(("socket.", "urllib.")) else None)
from mobile_vla.engine.backends import backend
assert backend("openvino").unusable("fp32") == ""
backend("openvino").unusable("bf16")
import threading, time
assert "openvino" in sys.modules
assert not [name for name in sys.modules if name.startswith("openvino_telemetry")]
assert threading.enumerate() == [threading.main_thread()], threading.enumerate()
time.sleep(0.5)
assert told == [], told
"""


def test_its_library_tells_nobody_that_it_is_used() -> None:
    subprocess.run([sys.executable, "-c", NO_NETWORK], check=True, timeout=600)


def test_on_one_thread_the_callers_does_it_all(graph: Graph, tmp_path: Path, real: list[Inputs]) -> None:
    engine, cores = opened("openvino", "fp32", graph, tmp_path, threads=1), os.sched_getaffinity(0)
    decided(engine, real[0])
    mine, everyones = time.thread_time(), time.process_time()
    for inputs in real[:50]:
        decided(engine, inputs)
    mine, everyones = time.thread_time() - mine, time.process_time() - everyones
    assert everyones < 1.1 * mine + 0.02
    assert os.sched_getaffinity(0) == cores
