"""What stands around TensorRT, with ONNX Runtime in its place: it runs the same graph by the same names."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from engine.jetson.runners import GraphRunner
from mobile_vla.core import CheckpointError, ConfigError, DamagedCheckpointError, Frame, Instruction, Observation, Twist
from mobile_vla.engine.backends import backend
from mobile_vla.engine.backends.base import Making, Opening
from mobile_vla.engine.backends.tensorrt_ import TensorRtEngine, require_same
from mobile_vla.engine.folder import usable
from mobile_vla.engine.jetson.build_engine.finish import PLAN_MACHINE
from mobile_vla.engine.jetson.graph import write_typed_graph
from mobile_vla.engine.policy import EnginePolicy
from mobile_vla.policy.step import step_of
from mobile_vla.policy.weights import SHIPPED, load_network, load_policy

pytestmark = pytest.mark.timeout(900)

ORIN = {"gpu": "Orin", "compute_capability": "8.7", "tensorrt": "10.3.0"}


def test_it_decides_as_the_policy_does_and_brings_words_once(tmp_path: Path) -> None:
    step = step_of(load_network(SHIPPED))
    runner = GraphRunner(write_typed_graph(step, tmp_path, "fp16"))
    policy, eager = EnginePolicy(TensorRtEngine(Opening(step, "fp16", 1, tmp_path), runner), step), load_policy()
    random = np.random.default_rng(2)
    for text in ("go to the red cup", "파란 의자로 가"):
        state, wanted_state = policy.reset(Instruction(text)), eager.reset(Instruction(text))
        for turn in range(3):
            frame = Frame(random.integers(0, 256, (96, 192, 3), np.uint8), turn * 200_000_000, "test", "front", turn)
            observation = Observation(frame, Twist(0.1, 0.0, 0.2))
            given, wanted = policy.step(observation, state), eager.step(observation, wanted_state)
            np.testing.assert_allclose(given.chunk.velocities, wanted.chunk.velocities, atol=0.02)
            state, wanted_state = given.state, wanted.state
    assert ["words_0" in each for each in runner.given] == [True, False, False] * 2
    assert all({"pixels", "motion", "history"} <= each for each in runner.given)
    policy.engine.close()


def test_a_plan_of_another_machine_is_refused_and_says_what_differs(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"plan\.json cannot be read"):
        require_same(tmp_path, ORIN)
    for damaged in ("{", "3", '["gpu"]'):
        (tmp_path / PLAN_MACHINE).write_text(damaged)
        with pytest.raises(DamagedCheckpointError, match="cannot be understood"):
            require_same(tmp_path, ORIN)
    (tmp_path / PLAN_MACHINE).write_text(json.dumps(ORIN))
    require_same(tmp_path, ORIN)
    newer = r"built on another machine \(tensorrt: 10\.3\.0 there, 10\.16\.2 here\): run python3 -m build_engine"
    with pytest.raises(CheckpointError, match=newer):
        require_same(tmp_path, {**ORIN, "tensorrt": "10.16.2"})


def test_without_tensorrt_it_cannot_be_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    runs = backend("tensorrt")
    assert runs.unusable("fp16").startswith("TensorRT cannot be imported")
    with pytest.raises(ConfigError, match="the engine tensorrt cannot run in fp16 here: TensorRT cannot be imported"):
        usable("tensorrt", "fp16")
    step = step_of(load_network(SHIPPED))
    with pytest.raises(ConfigError, match="TensorRT cannot be imported"):
        runs.write(Making(step, "fp32", 1, tmp_path))
    with pytest.raises(CheckpointError, match="cannot be used: TensorRT cannot be imported"):
        runs.open(Opening(step, "fp16", 1, tmp_path))
